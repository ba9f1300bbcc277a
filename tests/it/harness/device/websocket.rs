//! Engine.IO over WebSocket.

use std::ops::ControlFlow;

use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderValue, Method, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, handshake::client::generate_key, protocol::Role, protocol::WebSocketConfig},
};

use super::{
    engineio::{Packet, Protocol},
    session::{ClosedBy, Command, Session},
};
use crate::harness::http::{Caller, ConnectError};

pub type WebSocket = WebSocketStream<TcpStream>;

/// Small, for there may be thousands.
const READ_BUFFER: usize = 4096;

/// Makes a WebSocket. The HTTP part is ours, so that a refusal's status, headers and whole body are seen.
pub async fn open(caller: &Caller, target: &str) -> Result<WebSocket, ConnectError> {
    let (mut sender, connection) = handshake(TokioIo::new(caller.open_tcp().await?)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection.with_upgrades());

    let mut request = caller.request(Method::GET, target, bytes::Bytes::new());
    let key = HeaderValue::from_str(&generate_key()).expect("a key fits a header");
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, key);

    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(ConnectError::from_response(response).await);
    }
    let upgraded = hyper::upgrade::on(response).await?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().expect("the connection is a TCP stream");
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let already_read = parts.read_buf.to_vec();
    Ok(WebSocketStream::from_partially_read(parts.io.into_inner(), already_read, Role::Client, Some(config)).await)
}

/// Asks the server whether it would go over to this WebSocket.
pub async fn probe(socket: &mut WebSocket) -> Result<(), ConnectError> {
    let answer = match socket.send(Message::text("2probe")).await {
        Ok(()) => socket.next().await,
        Err(_) => None,
    };
    match answer {
        Some(Ok(Message::Text(text))) if text.as_str() == "3probe" => Ok(()),
        Some(_) | None => Err(ConnectError::Closed),
    }
}

/// Speaks for the device until the transport has ended.
pub async fn speak(socket: &mut WebSocket, session: &mut Session) -> ClosedBy {
    loop {
        let step = tokio::select! {
            command = session.commands.recv() => obey(socket, session, command).await,
            message = socket.next(), if session.is_reading => hear(socket, session, message).await,
            () = session.heartbeat.beat() => send(socket, session.protocol, Packet::Ping(String::new())).await,
        };
        if let ControlFlow::Break(by) = step {
            return by;
        }
    }
}

async fn obey(socket: &mut WebSocket, session: &mut Session, command: Option<Command>) -> ControlFlow<ClosedBy> {
    match command {
        Some(Command::Send(packets)) => {
            for packet in packets {
                send(socket, session.protocol, packet).await?;
            }
        }
        Some(Command::Read(is_reading)) => session.is_reading = is_reading,
        Some(Command::Upgrade(_)) => panic!("this is a WebSocket already"),
        Some(Command::Close) => {
            // Where the peer was faster, reading finds the end too.
            let _ = socket.close(None).await;
            while let Some(Ok(_)) = socket.next().await {}
            return ControlFlow::Break(ClosedBy::TransportClosed);
        }
        None => return ControlFlow::Break(ClosedBy::TransportClosed),
    }
    ControlFlow::Continue(())
}

async fn hear(
    socket: &mut WebSocket,
    session: &mut Session,
    message: Option<Result<Message, tungstenite::Error>>,
) -> ControlFlow<ClosedBy> {
    let packet = match message {
        Some(Ok(Message::Text(text))) => Packet::from_text(session.protocol, &text),
        Some(Ok(Message::Binary(bytes))) => Packet::from_binary(session.protocol, bytes),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return ControlFlow::Continue(()),
        Some(Ok(Message::Close(_))) | None => return ControlFlow::Break(ClosedBy::TransportClosed),
        Some(Err(error)) => return ControlFlow::Break(ClosedBy::error(&error)),
    };
    match session.take(packet)? {
        Some(reply) => send(socket, session.protocol, reply).await,
        None => ControlFlow::Continue(()),
    }
}

async fn send(socket: &mut WebSocket, protocol: Protocol, packet: Packet) -> ControlFlow<ClosedBy> {
    let message = if let Packet::Binary(bytes) = packet {
        Message::Binary(Packet::binary_message(protocol, bytes))
    } else {
        Message::text(packet.to_text(protocol))
    };
    match socket.send(message).await {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(ClosedBy::error(&error)),
    }
}
