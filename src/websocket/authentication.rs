use std::sync::Arc;

use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::{
    Parameters, Socket, closing,
    connection::PlainConnection,
    device::{Device, Session},
    gate::Visitor,
    inbound::ClientMessage,
};
use crate::auth::TokenRefused;
use crate::listener::Upgrade;
use crate::message::{CloseCode, CloseReason};
use crate::telemetry;

/// Each connection has buffers of its own, and most messages are small.
const BUFFER: usize = 1024;

/// What a stranger may send before the token is accepted, in bytes: a token of the longest kind, and as much again around it.
const MOST_BEFORE_AUTH: u64 = 16 * 1024;

/// Why a device gets no further.
enum Refusal {
    /// It is told.
    Told { reason: &'static str, frame: CloseFrame },
    /// It has left, or will be cut off.
    Gone,
}

/// Receives a device that was let through the gate: from the upgrade to the end of its connection.
pub(super) async fn receive(mut visitor: Visitor, upgrade: Upgrade) {
    let endpoint = visitor.endpoint.clone();
    let deadline = Instant::now() + endpoint.config.auth_timeout;
    let Ok(Some((stream, read))) = timeout_at(deadline, upgrade.stream()).await else {
        return;
    };
    visitor.stream.limit_reading(MOST_BEFORE_AUTH);
    let config = socket_config(&endpoint.parameters);
    let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
    match authenticate(&mut visitor, &mut socket, deadline).await {
        Ok(session) => Device::new(&mut socket, session).live().await,
        Err(Refusal::Gone) => {}
        Err(Refusal::Told { reason, frame }) => {
            tracing::info!(client.address = %visitor.address, refusal.reason = reason, "refused a device");
            telemetry::refused("websocket", reason);
            telemetry::audit::device_refused("websocket", Some(visitor.address), reason);
            closing::leave(&mut socket, [].into(), frame).await;
        }
    }
}

fn socket_config(parameters: &Parameters) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(parameters.max_message))
        .max_frame_size(Some(parameters.max_message))
}

async fn authenticate(visitor: &mut Visitor, socket: &mut Socket, deadline: Instant) -> Result<Session, Refusal> {
    let endpoint = visitor.endpoint.clone();
    let parameters = &endpoint.parameters;
    let token = tokio::select! {
        token = first_message(visitor, socket) => token?,
        () = sleep_until(deadline) => {
            return Err(Refusal::Told { reason: "no_auth_in_time", frame: closing::no_auth_in_time() });
        }
        () = parameters.lifecycle.stopping() => return Err(draining()),
    };
    let token = token.as_ref().map(ExposeSecret::expose_secret);
    let identity = parameters.commands.identify_device(token).map_err(refused)?;
    let connection = PlainConnection::new(visitor);
    let admission = parameters
        .commands
        .connect_device(&identity, connection.clone(), None)
        .await
        .map_err(|limit| Refusal::Told { reason: limit.as_str(), frame: closing::limit_met(limit) })?;
    visitor.stream.limit_reading(u64::MAX);
    if !admission.go_live(None) {
        return Err(Refusal::Gone);
    }
    if parameters.lifecycle.is_stopping() {
        // Whoever sends the devices away may have looked for the last time.
        admission.close(&CloseCode::Draining.into());
    }
    let member = admission.member();
    tracing::info!(
        connection.id = %member.id(),
        user.id = %member.user(),
        connection.transport = member.connection().transport().as_str(),
        client.address = %visitor.address,
        "connected"
    );
    let stream = visitor.stream.clone();
    let events = parameters.commands.events_of(&identity.user);
    Ok(Session { parameters: Arc::clone(parameters), connection, admission, identity, stream, events })
}

/// The token of the first message.
async fn first_message(visitor: &Visitor, socket: &mut Socket) -> Result<Option<SecretString>, Refusal> {
    loop {
        return match socket.next().await {
            Some(Ok(Message::Text(text))) => match ClientMessage::parse(&text) {
                ClientMessage::Auth(token) => Ok(token),
                ClientMessage::Other => Ok(None),
            },
            Some(Ok(Message::Binary(_))) => Ok(None),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(_))) => {
                closing::part(socket).await;
                Err(Refusal::Gone)
            }
            Some(Err(_)) if visitor.stream.is_read_up() => {
                Err(Refusal::Told { reason: "too_much_before_auth", frame: closing::too_large() })
            }
            Some(Err(error)) => match closing::complaint(&error) {
                Some(frame) => Err(Refusal::Told { reason: "malformed", frame }),
                None => Err(Refusal::Gone),
            },
            None => Err(Refusal::Gone),
        };
    }
}

fn refused(refused: TokenRefused) -> Refusal {
    Refusal::Told { reason: refused.reason(), frame: closing::token_refused(refused) }
}

fn draining() -> Refusal {
    let reason = CloseReason::from(CloseCode::Draining);
    closing::farewell(&reason).map_or(Refusal::Gone, |frame| Refusal::Told { reason: reason.code.as_str(), frame })
}
