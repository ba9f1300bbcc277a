use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str, TransportType};
use http::{Extensions, Request, Response};
use serde_json::json;
use tokio::time::timeout;
use transport::{
    Handle, Stream, Upgrade, WriteMode,
    websocket::{End, Ended, Leave, Message, Opcode, Peer, Step, Task, WebSocket, close_frame, frame},
};

use crate::{
    engine::Engine,
    frame::packet,
    payload,
    reason::DisconnectReason,
    reply::{Body, RequestError, switching},
    request::check_handshake,
    session::{Host, Opening, Session},
};

/// The time from the response 101 to the WebSocket.
const UPGRADES_WITHIN: Duration = Duration::from_secs(5);
/// The close code of a policy violation (RFC 6455, section 7.4.1).
const POLICY: u16 = 1008;

/// Agrees to a WebSocket and serves it in a task of its own. `connect` makes its session, or returns `None` if there is none.
pub(crate) fn agree<B, F>(
    engine: &Engine,
    request: Request<B>,
    connect: impl FnOnce(Stream, Bytes, Extensions) -> F + Send + 'static,
) -> Result<Response<Body>, RequestError>
where
    F: Future<Output = Option<(WebSocket, SessionPeer)>> + Send,
{
    let accept = check_handshake(&request)?;
    let mut extensions = request.into_parts().0.extensions;
    let upgrade = Upgrade::take(&mut extensions);
    // The session keeps what is left of them, and must not keep the connection's own handle.
    extensions.remove::<Handle>();
    let flushers = engine.flushers().clone();
    engine.spawn(Task::new(async move {
        let (stream, read) = timeout(UPGRADES_WITHIN, upgrade.stream(&flushers)).await.ok()??;
        connect(stream, read, extensions).await
    }));
    Ok(switching(&accept))
}

/// Opens a session on a WebSocket.
pub(crate) fn open(
    engine: &Engine,
    protocol: ProtocolVersion,
    stream: Stream,
    read: Bytes,
    extensions: &mut Extensions,
) -> (WebSocket, SessionPeer) {
    let host = engine.host();
    let websocket = accept(&*host, stream, read);
    let opening = Opening { protocol, supports_binary: true, stream: Some(websocket.handle().clone()) };
    let session = Session::open(host, opening, extensions);
    engine.admit(session.clone());
    // A stream that has ended ends the session by itself.
    let _ = session.send(&[packet(&open_packet(&session))], WriteMode::Inline);
    if session.protocol() == ProtocolVersion::V3 {
        session.link();
    }
    (websocket, SessionPeer::new(session))
}

pub(crate) fn accept(host: &dyn Host, stream: Stream, read: Bytes) -> WebSocket {
    WebSocket::new(stream, read, host.config().ws_max_message_size, host.max_unread_backlog())
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

/// A session as its WebSocket's task has it.
pub(crate) struct SessionPeer {
    session: Arc<Session>,
    /// Why the session ends, if its device's last packet is the reason.
    reason: Option<DisconnectReason>,
}

impl SessionPeer {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, reason: None }
    }

    #[cfg(test)]
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Peer for SessionPeer {
    fn receive(&mut self, message: Message) -> Step {
        self.reason = receive(&self.session, message).err();
        if self.reason.is_some() { Step::End } else { Step::Read }
    }

    fn end(&mut self, end: End) -> Leave {
        let (reason, last) = match end {
            End::Requested => {
                (self.reason.take().unwrap_or(DisconnectReason::TransportError), Some(frame(Opcode::Close, &[])))
            }
            End::WebSocket(ended) => how(&ended),
        };
        self.session.close(reason);
        Leave { last, on_lost: None }
    }
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
