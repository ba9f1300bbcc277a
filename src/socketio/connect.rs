use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use socketioxide::{
    extract::{SocketRef, TryData},
    socket::DisconnectReason,
};

use super::{
    Edge,
    closing::{Leaving, own_event},
    connection::SocketConnection,
    inbound::{InboundHandler, Inbox},
    resume::resume,
    session::{Session, Wire},
    token_watch::Watched,
};
use crate::auth::{Identity, InvalidToken, TokenRefused};
use crate::command::{Admission, RefreshRefused};
use crate::hub::{Connection, Frame};
use crate::limits::ConnectionEvents;
use crate::message::{CloseCode, EventName};
use crate::telemetry;

/// How long a device that was refused, or has left, has to end its transport by itself.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// Longer than it takes the library to close a session that was cut.
const CUT_SETTLES: Duration = Duration::from_millis(200);

/// An authenticated device.
pub(super) struct Device {
    pub(super) edge: Arc<Edge>,
    pub(super) admission: Arc<Admission>,
    pub(super) connection: Arc<SocketConnection>,
    pub(super) identity: Mutex<Arc<Identity>>,
    pub(super) inbox: Inbox,
    pub(super) events: ConnectionEvents,
    pub(super) watched: Watched,
}

/// What a device sees when its CONNECT is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// Its token is no good: it should not come back with it.
    Token(TokenRefused),
    /// It should come back. It never sees this: its transport is gone by then.
    TurnedAway,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(refused) => refused.fmt(f),
            Self::TurnedAway => f.write_str("Try again"),
        }
    }
}

/// The connect middleware: authenticates a device and makes it ready to go live. Nothing can be emitted to the device before
/// it has returned.
pub(super) async fn authenticate(edge: Arc<Edge>, socket: SocketRef, auth: TryData<Value>) -> Result<(), Refusal> {
    let Some(session) = socket.req_parts().extensions.get::<Arc<Session>>().cloned() else {
        return Err(Refusal::TurnedAway);
    };
    if edge.parameters.lifecycle.is_stopping() {
        return Err(edge.turn_away(&session, &socket, "draining").await);
    }
    if let Some(refused) = session.refused.get() {
        return Err(Refusal::Token(*refused));
    }
    if session.accepted.load(Ordering::Acquire) {
        return Err(edge.turn_away(&session, &socket, "second_connect").await);
    }
    let mut said = auth.0.ok();
    let identity = match edge.identify(&session, said.as_ref()) {
        Ok(identity) => identity,
        Err(refused) => return Err(edge.refuse_token(&session, &socket, refused)),
    };
    let resume = resume(said.as_mut().and_then(|said| said.get_mut("resume")).map(Value::take));
    let resume = resume.or_else(|| session.resume.lock().take());
    let connection = SocketConnection::new(edge.clone(), session.wire.clone(), &socket, resume.is_some());
    let connecting = edge.parameters.commands.connect_device(&identity, connection.clone(), resume.as_ref());
    let admission = match connecting.await {
        Ok(admission) => admission,
        Err(limit) => return Err(edge.turn_away(&session, &socket, limit.as_str()).await),
    };
    let events = edge.parameters.commands.events_of(&identity.user);
    let device = Arc::new(Device {
        edge,
        admission,
        connection,
        identity: Mutex::new(Arc::new(identity)),
        inbox: Inbox::default(),
        events,
        watched: Watched::default(),
    });
    let leaving = device.clone();
    socket
        .on_disconnect(move |socket: SocketRef, reason: DisconnectReason| async move { leaving.left(&socket, reason) });
    socket.on_fallback(InboundHandler(device.clone()));
    session.accepted.store(true, Ordering::Release);
    if session.keep(device.clone()) {
        return Ok(());
    }
    device.admission.ended("transport_close");
    Err(Refusal::TurnedAway)
}

/// The connect handler.
pub(super) async fn go_live(socket: SocketRef) {
    let Some(session) = socket.req_parts().extensions.get::<Arc<Session>>().cloned() else {
        return;
    };
    if let Some(device) = session.take() {
        device.go_live(socket);
    }
}

impl Edge {
    fn identify(&self, session: &Session, auth: Option<&Value>) -> Result<Identity, TokenRefused> {
        let commands = &self.parameters.commands;
        match auth.and_then(|auth| auth.get("token")) {
            Some(Value::String(token)) if !token.is_empty() => commands.identify_device(Some(token)),
            None | Some(Value::Null | Value::String(_)) => {
                commands.identify_device(session.token.as_ref().map(ExposeSecret::expose_secret))
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(InvalidToken::Malformed.into())
            }
        }
    }

    /// Official clients stop at this. Those that do not are cut off.
    fn refuse_token(self: &Arc<Self>, session: &Session, socket: &SocketRef, refused: TokenRefused) -> Refusal {
        // The first refusal stands.
        let _ = session.refused.set(refused);
        log_refusal(session, refused.reason());
        self.cut_later(&session.wire, socket);
        Refusal::Token(refused)
    }

    /// Cuts a transport that has no device, unless its client ends it before.
    fn cut_later(self: &Arc<Self>, wire: &Arc<Wire>, socket: &SocketRef) {
        let leaving = Leaving::new(self.clone(), wire.clone(), socket);
        self.parameters.lifecycle.spawn(async move {
            tokio::time::sleep(IDLE_GRACE).await;
            leaving.cut();
        });
    }

    /// Cuts a device off without a word, since an official client that is refused gives up for good. Returns when a
    /// refusal cannot reach it any more.
    async fn turn_away(self: &Arc<Self>, session: &Session, socket: &SocketRef, reason: &'static str) -> Refusal {
        log_refusal(session, reason);
        Leaving::new(self.clone(), session.wire.clone(), socket).abort();
        tokio::time::sleep(CUT_SETTLES).await;
        Refusal::TurnedAway
    }
}

fn log_refusal(session: &Session, reason: &'static str) {
    tracing::info!(client.address = %session.wire.address, refusal.reason = reason, "refused a device");
    telemetry::refused("socketio", reason);
    telemetry::audit::device_refused("socketio", Some(session.wire.address), reason);
}

impl Device {
    fn go_live(self: Arc<Self>, socket: SocketRef) {
        if let Some(reason) = self.connection.attach(socket) {
            self.connection.end(&reason);
            return;
        }
        if !self.admission.go_live(self.greeting().as_ref()) {
            self.connection.detach();
            return;
        }
        if self.edge.parameters.lifecycle.is_stopping() {
            // Whoever sends the devices away may have looked for the last time.
            self.admission.close(&CloseCode::Draining.into());
            return;
        }
        let member = self.admission.member();
        tracing::info!(
            connection.id = %member.id(),
            user.id = %member.user(),
            connection.transport = self.connection.transport().as_str(),
            client.address = %self.connection.address(),
            "connected"
        );
        self.watch_token();
    }

    fn greeting(&self) -> Option<Frame> {
        let name = &self.edge.parameters.config.welcome;
        if name.is_empty() {
            return None;
        }
        let member = self.admission.member();
        let rooms: Vec<_> = member.rooms().iter().map(ToString::to_string).collect();
        let body = json!({
            "userId": member.user().as_str(),
            "connectionId": member.id().to_string(),
            "rooms": rooms,
        });
        Some(own_event(EventName::own(name), &body))
    }

    /// Replaces the token, and the rooms that it gives.
    pub(super) async fn replace_token(self: &Arc<Self>, token: &str) -> Result<(), RefreshRefused> {
        // Events of one device are handled one at a time: nobody else replaces it in between.
        let old = self.identity.lock().clone();
        let new = self.edge.parameters.commands.refresh_token(&self.admission, &old, Some(token)).await?;
        *self.identity.lock() = Arc::new(new);
        self.watch_token();
        Ok(())
    }

    fn left(&self, socket: &SocketRef, reason: DisconnectReason) {
        self.admission.ended(reason_name(reason));
        self.connection.detach();
        self.forget_token();
        let Some(session) = socket.req_parts().extensions.get::<Arc<Session>>() else {
            return;
        };
        session.take();
        if reason == DisconnectReason::ClientNSDisconnect {
            // Official clients end the transport right away. Those that do not are cut off: it has no use any more.
            self.edge.cut_later(&session.wire, socket);
        }
    }
}

fn reason_name(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::MultipleHttpPollingError => "several_polls",
        DisconnectReason::PacketParsingError => "malformed_packet",
        DisconnectReason::HeartbeatTimeout => "ping_timeout",
        DisconnectReason::ClientNSDisconnect => "left",
        DisconnectReason::ServerNSDisconnect => "disconnected",
        DisconnectReason::ClosingServer => "draining",
    }
}
