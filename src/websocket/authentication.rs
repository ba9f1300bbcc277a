use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until, timeout_at};
use transport::{
    Upgrade,
    websocket::{CloseFrame, Ended, Message, Violation, WebSocket},
};

use super::{
    closing,
    connection::PlainConnection,
    device::{Device, Session},
    gate::Visitor,
    inbound::ClientMessage,
};
use crate::auth::TokenRefused;
use crate::message::{CloseCode, CloseReason};
use crate::telemetry;

/// The largest message before the token is accepted, in bytes: a token of the longest kind, and as much again around it.
const MAX_BEFORE_AUTH: usize = 16 * 1024;

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
    let parameters = &endpoint.parameters;
    let deadline = Instant::now() + endpoint.config.auth_timeout;
    let Ok(Some((stream, read))) = timeout_at(deadline, upgrade.stream(&parameters.flushers)).await else {
        return;
    };
    let mut socket =
        WebSocket::new(stream, read, MAX_BEFORE_AUTH.min(parameters.max_message), parameters.queue_bytes / 2);
    match authenticate(&mut visitor, &mut socket, deadline).await {
        Ok(session) => {
            socket.set_max_message(parameters.max_message);
            if let Some(stranger) = &visitor.stranger {
                stranger.known();
            }
            Device::new(&mut socket, session).live().await;
        }
        Err(Refusal::Gone) => {}
        Err(Refusal::Told { reason, frame }) => {
            tracing::info!(client.address = %visitor.address, refusal.reason = reason, "refused a device");
            telemetry::refused("websocket", reason);
            telemetry::audit::device_refused("websocket", Some(visitor.address), reason);
            closing::leave(&mut socket, &frame).await;
        }
    }
}

async fn authenticate(visitor: &mut Visitor, socket: &mut WebSocket, deadline: Instant) -> Result<Session, Refusal> {
    let endpoint = visitor.endpoint.clone();
    let parameters = &endpoint.parameters;
    let token = tokio::select! {
        token = first_message(socket) => token?,
        () = sleep_until(deadline) => {
            return Err(Refusal::Told { reason: "no_auth_in_time", frame: closing::no_auth_in_time() });
        }
        () = parameters.lifecycle.stopping() => return Err(draining()),
    };
    let token = token.as_ref().map(ExposeSecret::expose_secret);
    let identity = parameters.commands.identify_device(token).map_err(refused)?;
    let connection = PlainConnection::new(visitor, socket.handle().clone());
    let admission = parameters
        .commands
        .connect_device(&identity, connection.clone(), None)
        .await
        .map_err(|limit| Refusal::Told { reason: limit.as_str(), frame: closing::limit_met(limit) })?;
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
    let events = parameters.commands.events_of(&identity.user);
    Ok(Session { parameters: Arc::clone(parameters), connection, admission, identity, events })
}

/// The token of the first message.
async fn first_message(socket: &mut WebSocket) -> Result<Option<SecretString>, Refusal> {
    loop {
        return match socket.next().await {
            Ok(Message::Text(text)) => match ClientMessage::parse(&text) {
                ClientMessage::Auth(token) => Ok(token),
                ClientMessage::Other => Ok(None),
            },
            Ok(Message::Binary(_)) => Ok(None),
            Ok(Message::Ping | Message::Pong(_)) => continue,
            Err(Ended::Closed(close)) => {
                closing::part(socket, close.as_ref()).await;
                Err(Refusal::Gone)
            }
            Err(Ended::Violation(Violation::TooLarge)) => {
                Err(Refusal::Told { reason: "too_much_before_auth", frame: closing::too_large() })
            }
            Err(ended) => match closing::complaint(&ended) {
                Some(frame) => Err(Refusal::Told { reason: "malformed", frame }),
                None => Err(Refusal::Gone),
            },
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
