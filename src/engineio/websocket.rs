use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str, TransportType};
use http::{Request, Response, request::Parts};
use serde_json::json;
use tokio::time::timeout;
use transport::{
    Stream, Upgrade, WriteMode,
    websocket::{Ended, Message, Opcode, WebSocket, close_frame, frame},
};

use crate::{
    engine::Engine,
    frame::packet,
    payload,
    reply::{Body, Refusal, switching},
    request::check_handshake,
    session::{Opening, Session},
    socket::DisconnectReason,
};

/// The time from the response 101 to the WebSocket.
const UPGRADES_WITHIN: Duration = Duration::from_secs(5);
/// The time that the closing handshake may take.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);
/// The close code of a policy violation (RFC 6455, section 7.4.1).
const POLICY: u16 = 1008;

/// Agrees to a WebSocket and runs `connected` with it in a task of its own.
pub(crate) fn agree<B, F>(
    engine: &Engine,
    request: Request<B>,
    connected: impl FnOnce(Stream, Bytes, Parts) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal>
where
    F: Future<Output = ()> + Send,
{
    let accept = check_handshake(&request)?;
    let (mut parts, _) = request.into_parts();
    let upgrade = Upgrade::take(&mut parts.extensions);
    let flushers = engine.flushers().clone();
    engine.spawn(async move {
        if let Ok(Some((stream, read))) = timeout(UPGRADES_WITHIN, upgrade.stream(&flushers)).await {
            connected(stream, read, parts).await;
        }
    });
    Ok(switching(&accept))
}

/// Opens a session on a WebSocket, and serves it to its end.
pub(crate) async fn open(engine: Engine, protocol: ProtocolVersion, stream: Stream, read: Bytes, parts: Parts) {
    let websocket = accept(&engine, stream, read);
    let opening = Opening { protocol, supports_binary: true, stream: Some(websocket.handle().clone()) };
    let session = Session::open(&engine, opening, parts);
    engine.admit(session.clone());
    let _ = session.send(&[packet(&open_packet(&session))], WriteMode::Inline, false);
    if session.protocol() == ProtocolVersion::V3 {
        session.link();
    }
    drive(session, websocket).await;
}

pub(crate) fn accept(engine: &Engine, stream: Stream, read: Bytes) -> WebSocket {
    WebSocket::new(stream, read, engine.config().ws_max_message_size, engine.max_unread_backlog())
}

/// The packet that opens a session ("Handshake" in the protocol).
pub(crate) fn open_packet(session: &Session) -> String {
    let config = session.engine.config();
    let may_upgrade =
        session.transport_type() == TransportType::Polling && config.allowed_transport(TransportType::Websocket);
    let upgrades: &[&str] = if may_upgrade { &["websocket"] } else { &[] };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let open = json!({
        "sid": session.id().as_str(),
        "upgrades": upgrades,
        "pingInterval": millis(config.ping_interval),
        "pingTimeout": millis(config.ping_timeout),
        "maxPayload": config.max_payload,
    });
    format!("0{open}")
}

/// Serves a session on its WebSocket to the end of either.
pub(crate) async fn drive(session: Arc<Session>, mut websocket: WebSocket) {
    let (reason, last) = loop {
        let received = match websocket.next().await {
            Ok(message) => receive(&session, message),
            Err(ended) => break how(&ended),
        };
        if let Err(reason) = received {
            break (reason, Some(frame(Opcode::Close, &[])));
        }
    };
    session.close(reason);
    drop(session);
    websocket.leave(last, LEAVES_WITHIN).await;
}

fn receive(session: &Arc<Session>, message: Message) -> Result<(), DisconnectReason> {
    let packet = match message {
        Message::Text(text) => payload::shared_packet(session.protocol(), &Str::from(text)),
        Message::Binary(data) => payload::binary_packet(session.protocol(), data),
        Message::Pong(payload) if session.protocol() == ProtocolVersion::V3 => {
            let id = <[u8; 8]>::try_from(&*payload).map(u64::from_be_bytes);
            return id.map_or(Ok(()), |id| session.receive_pong(Some(id)));
        }
        Message::Ping | Message::Pong(_) => return Ok(()),
    };
    session.receive(packet.map_err(|_| DisconnectReason::PacketParsingError)?)
}

/// Why a session ends with its WebSocket, and what the peer is told last.
fn how(ended: &Ended) -> (DisconnectReason, Option<Bytes>) {
    match ended {
        Ended::Closed(close) => {
            let answer = close.as_ref().map_or_else(|| frame(Opcode::Close, &[]), |close| close_frame(close.code, ""));
            (DisconnectReason::TransportClose, Some(answer))
        }
        Ended::Violation(violation) => {
            let last = close_frame(violation.close_code(), &violation.to_string());
            (DisconnectReason::TransportError, Some(last))
        }
        Ended::ControlFlood => (DisconnectReason::TransportError, Some(close_frame(POLICY, &ended.to_string()))),
        Ended::Cut => (DisconnectReason::TransportClose, Some(frame(Opcode::Close, &[]))),
        Ended::Failed(_) => (DisconnectReason::TransportError, None),
    }
}
