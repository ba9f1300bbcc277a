//! Engine.IO over HTTP long polling: one request that waits for news, and another connection for what the device says.

use std::{ops::ControlFlow, pin::pin};

use bytes::Bytes;
use futures_util::SinkExt;
use http::{Method, Response, StatusCode};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{
    engineio::{Packet, Protocol, decode_payload, encode_payload},
    session::{ClosedBy, Command, Incoming, Session},
    websocket::WebSocket,
};
use crate::harness::http::{BoxedError, Caller, ConnectError, HttpClient};

/// A session over polling.
pub struct Polling {
    protocol: Protocol,
    target: String,
    polls: HttpClient,
    posts: HttpClient,
    /// What came with the handshake.
    first: Vec<Packet>,
}

/// How polling ended.
pub enum Outcome {
    Closed(ClosedBy),
    /// The session goes on over this WebSocket.
    Upgraded(Box<WebSocket>),
}

impl Polling {
    /// Opens a session. `abort` resets its connections.
    pub async fn open(
        caller: &Caller,
        protocol: Protocol,
        target: &str,
        abort: &CancellationToken,
    ) -> Result<Self, ConnectError> {
        let mut polls = HttpClient::new(caller.clone(), abort.clone());
        let response = polls.request(Method::GET, target, Bytes::new()).await.map_err(|_| ConnectError::Closed)?;
        if response.status() != StatusCode::OK {
            let (head, body) = response.into_parts();
            return Err(ConnectError::from_parts(head, &body));
        }
        let first = decode(protocol, &response);
        let Some(Packet::Open(handshake)) = first.first() else { panic!("the server opened no session: {first:?}") };
        let target = format!("{target}&sid={}", handshake.sid);
        Ok(Self { protocol, target, polls, posts: HttpClient::new(caller.clone(), abort.clone()), first })
    }

    /// Speaks for the device until it is done with polling.
    pub async fn speak(&mut self, session: &mut Session) -> Outcome {
        let first = std::mem::take(&mut self.first);
        if let ControlFlow::Break(by) = self.hear(first, session).await {
            return Outcome::Closed(by);
        }
        loop {
            match self.poll(session).await {
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(Some(mut socket)) => {
                    if let Err(error) = socket.send(Message::text(Packet::Upgrade.to_text(self.protocol))).await {
                        return Outcome::Closed(ClosedBy::error(&error));
                    }
                    session.tell(Incoming::Upgraded);
                    return Outcome::Upgraded(socket);
                }
                ControlFlow::Break(by) => return Outcome::Closed(by),
            }
        }
    }

    /// Waits until its connections have ended.
    pub async fn ended(self) {
        tokio::join!(self.polls.ended(), self.posts.ended());
    }

    /// Asks for news once, and sends what the device says meanwhile. Answers the WebSocket to go over to, if there is one.
    async fn poll(&mut self, session: &mut Session) -> ControlFlow<ClosedBy, Option<Box<WebSocket>>> {
        let mut upgrade = None;
        let response = {
            let mut news = pin!(self.polls.request(Method::GET, &self.target, Bytes::new()));
            let mut mouth = Mouth { protocol: self.protocol, target: &self.target, posts: &mut self.posts };
            loop {
                tokio::select! {
                    response = &mut news, if session.is_reading => break response,
                    command = session.commands.recv() => match command {
                        Some(Command::Send(packets)) => mouth.say(&packets).await?,
                        Some(Command::Read(is_reading)) => session.is_reading = is_reading,
                        Some(Command::Upgrade(socket)) => upgrade = Some(socket),
                        Some(Command::Close) => {
                            mouth.say(&[Packet::Close]).await?;
                            return ControlFlow::Break(ClosedBy::TransportClosed);
                        }
                        None => return ControlFlow::Break(ClosedBy::TransportClosed),
                    },
                    () = session.heartbeat.beat() => mouth.say(&[Packet::Ping(String::new())]).await?,
                }
            }
        };
        let packets = decode(self.protocol, &accepted(response)?);
        self.hear(packets, session).await?;
        ControlFlow::Continue(upgrade)
    }

    async fn hear(&mut self, packets: Vec<Packet>, session: &mut Session) -> ControlFlow<ClosedBy> {
        let mut replies = Vec::new();
        for packet in packets {
            replies.extend(session.take(packet)?);
        }
        if replies.is_empty() {
            return ControlFlow::Continue(());
        }
        Mouth { protocol: self.protocol, target: &self.target, posts: &mut self.posts }.say(&replies).await
    }
}

/// What a polling device says goes this way.
struct Mouth<'a> {
    protocol: Protocol,
    target: &'a str,
    posts: &'a mut HttpClient,
}

impl Mouth<'_> {
    async fn say(&mut self, packets: &[Packet]) -> ControlFlow<ClosedBy> {
        let payload = encode_payload(self.protocol, packets);
        accepted(self.posts.request(Method::POST, self.target, payload.into()).await)?;
        ControlFlow::Continue(())
    }
}

/// The response, if the session is still there.
fn accepted(response: Result<Response<Bytes>, BoxedError>) -> ControlFlow<ClosedBy, Response<Bytes>> {
    match response {
        Ok(response) if response.status() == StatusCode::OK => ControlFlow::Continue(response),
        Ok(_) => ControlFlow::Break(ClosedBy::TransportClosed),
        Err(error) => ControlFlow::Break(ClosedBy::error(error.as_ref())),
    }
}

fn decode(protocol: Protocol, response: &Response<Bytes>) -> Vec<Packet> {
    let text = std::str::from_utf8(response.body()).expect("a polling response is text");
    decode_payload(protocol, text)
}
