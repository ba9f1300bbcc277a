use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::{
    ConnectError, PATIENCE, deadline,
    device::websocket::{self, WebSocket},
    http::{Caller, reset},
};

/// A WebSocket that says nothing of its own accord, to say on it what no client would.
#[derive(Debug)]
pub struct RawSocket(WebSocket);

/// What came on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawMessage {
    Text(String),
    Binary(Bytes),
    /// The server's close frame with its code, or the end of the stream without one.
    Closed(Option<u16>),
}

impl RawSocket {
    /// Makes a WebSocket; `target` is the path with its query.
    pub async fn connect(address: SocketAddr, target: &str) -> Result<Self, ConnectError> {
        let opened = tokio::time::timeout(PATIENCE, websocket::open(&Caller::new(address), target)).await;
        opened.unwrap_or(Err(ConnectError::Timeout)).map(Self)
    }

    pub(super) fn new(socket: WebSocket) -> Self {
        Self(socket)
    }

    /// Sends text; where the connection has ended, it goes nowhere.
    #[track_caller]
    pub fn send_text(&mut self, text: impl Into<String>) -> impl Future<Output = ()> {
        self.send(Message::text(text.into()))
    }

    /// The same with bytes.
    #[track_caller]
    pub fn send_binary(&mut self, bytes: impl Into<Bytes>) -> impl Future<Output = ()> {
        self.send(Message::Binary(bytes.into()))
    }

    /// What comes next.
    #[track_caller]
    pub fn receive(&mut self) -> impl Future<Output = RawMessage> {
        deadline("a WebSocket message", self.message())
    }

    /// What comes next, if it comes within `duration`.
    pub async fn receive_within(&mut self, duration: Duration) -> Option<RawMessage> {
        tokio::time::timeout(duration, self.message()).await.ok()
    }

    /// Resets the TCP connection.
    pub fn abort(self) {
        reset(self.0.into_inner());
    }

    #[track_caller]
    fn send(&mut self, message: Message) -> impl Future<Output = ()> {
        // Reading will tell of the end.
        deadline("room to send in", async { drop(self.0.send(message).await) })
    }

    async fn message(&mut self) -> RawMessage {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => RawMessage::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => RawMessage::Binary(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => RawMessage::Closed(frame.map(|frame| frame.code.into())),
                Some(Err(_)) | None => RawMessage::Closed(None),
            };
        }
    }
}
