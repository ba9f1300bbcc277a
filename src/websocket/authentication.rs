use std::{net::IpAddr, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until, timeout_at};
use transport::{
    Upgrade,
    websocket::{CloseFrame, Ended, Message, Violation, WebSocket},
};

use super::{closing, device::Device, endpoint::Visitor, inbound::ClientMessage, peer::DevicePeer};
use crate::auth::TokenRefused;
use crate::command::Admission;
use crate::limits::ConnectionEvents;
use crate::message::{CloseCode, CloseReason};
use crate::telemetry;

/// The largest message before the token is accepted, in bytes: a token of the longest kind, and as much again around it.
const MAX_BEFORE_AUTH: usize = 16 * 1024;

/// Why a device gets no further.
enum AuthFailure {
    /// It is told.
    Told { reason: &'static str, frame: CloseFrame },
    /// It has left, or will be cut off.
    Gone,
}

/// Opens the connection of a device that was let through the gate, from the upgrade to the accepted token. `None`: it gets no further,
/// and was told.
pub(super) async fn open(visitor: Visitor, upgrade: Upgrade) -> Option<(WebSocket, DevicePeer)> {
    let (deps, address) = (visitor.endpoint.deps.clone(), visitor.address);
    let deadline = Instant::now() + visitor.endpoint.config.auth_timeout;
    let (stream, read) = timeout_at(deadline, upgrade.stream(&deps.flushers)).await.ok()??;
    let max_message = MAX_BEFORE_AUTH.min(deps.max_message);
    let mut socket = WebSocket::new(stream, read, max_message, deps.queue_bytes / 2);
    match authenticate(&visitor, &mut socket, deadline).await {
        Ok((device, admission, events)) => {
            socket.set_max_message(deps.max_message);
            let commands = deps.commands.clone();
            return Some((socket, DevicePeer { device, admission, events, commands, _slot: visitor.slot }));
        }
        Err(AuthFailure::Gone) => {}
        Err(AuthFailure::Told { reason, frame }) => {
            tracing::info!(client.address = %address, refusal.reason = reason, "refused a device");
            telemetry::refused("websocket", reason);
            telemetry::audit::device_refused("websocket", Some(address), reason);
            closing::leave(&mut socket, &frame).await;
        }
    }
    None
}

async fn authenticate(
    visitor: &Visitor,
    socket: &mut WebSocket,
    deadline: Instant,
) -> Result<(Arc<Device>, Arc<Admission>, ConnectionEvents), AuthFailure> {
    let (endpoint, address) = (&visitor.endpoint, visitor.address);
    let deps = &endpoint.deps;
    let token = tokio::select! {
        token = first_message(socket) => token?,
        () = sleep_until(deadline) => {
            return Err(AuthFailure::Told { reason: "no_auth_in_time", frame: closing::no_auth_in_time() });
        }
        () = deps.lifecycle.stopping() => return Err(draining()),
    };
    let token = token.as_ref().map(ExposeSecret::expose_secret);
    let identity = deps.commands.identify_device(token).map_err(refused)?;
    let device = Device::new(endpoint, address, visitor.user_agent.clone(), socket.handle().clone());
    let admission = deps
        .commands
        .connect_device(&identity, device.clone(), None)
        .await
        .map_err(|limit| AuthFailure::Told { reason: limit.as_str(), frame: closing::limit_met(limit) })?;
    if !admission.go_live(None) {
        return Err(AuthFailure::Gone);
    }
    if let Some(stranger) = &visitor.stranger {
        stranger.known();
    }
    log_connected(&admission, address);
    let events = deps.commands.events_of(&identity.user);
    device.admit(admission.clone(), identity);
    if deps.lifecycle.is_stopping() {
        // A drain may have listed the connections before this one was live.
        admission.close(&CloseCode::Draining.into());
    }
    Ok((device, admission, events))
}

fn log_connected(admission: &Admission, address: IpAddr) {
    tracing::info!(
        connection.id = %admission.id(),
        user.id = %admission.user(),
        connection.transport = admission.transport().as_str(),
        client.address = %address,
        "connected"
    );
}

/// The token of the first message.
async fn first_message(socket: &mut WebSocket) -> Result<Option<SecretString>, AuthFailure> {
    loop {
        return match socket.next().await {
            Ok(Message::Text(text)) => match ClientMessage::parse(&text) {
                ClientMessage::Auth(token) => token.map_err(refused),
                ClientMessage::Unreadable => Err(refused(TokenRefused::Unreadable)),
                ClientMessage::Other => Ok(None),
            },
            Ok(Message::Binary(_)) => Ok(None),
            Ok(Message::Ping | Message::Pong(_)) => continue,
            Err(Ended::Closed(close)) => {
                closing::part(socket, close.as_ref()).await;
                Err(AuthFailure::Gone)
            }
            Err(Ended::Violation(Violation::TooLarge)) => {
                Err(AuthFailure::Told { reason: "too_much_before_auth", frame: closing::too_large() })
            }
            Err(ended) => match closing::complaint(&ended) {
                Some(frame) => Err(AuthFailure::Told { reason: "malformed", frame }),
                None => Err(AuthFailure::Gone),
            },
        };
    }
}

fn refused(refused: TokenRefused) -> AuthFailure {
    AuthFailure::Told { reason: refused.reason(), frame: closing::token_refused(refused) }
}

fn draining() -> AuthFailure {
    let reason = CloseReason::from(CloseCode::Draining);
    closing::farewell(&reason)
        .map_or(AuthFailure::Gone, |frame| AuthFailure::Told { reason: reason.code.as_str(), frame })
}
