use std::{fmt, sync::Arc, time::Duration};

use engineioxide::{
    DisconnectReason,
    session::{Ending, Session as EngineSession},
};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use socketioxide::extract::{SocketRef, TryData};

use super::{
    Edge,
    closing::{IDLE_GRACE, own_event},
    connection::SocketConnection,
    inbound::{InboundHandler, Inbox},
    resume::resume,
    session::{Attempt, Session},
    token_watch::Watched,
};
use crate::auth::{Identity, InvalidToken, TokenRefused};
use crate::command::{Admission, RefreshRefused};
use crate::hub::{Connection, Frame};
use crate::limits::ConnectionEvents;
use crate::message::{CloseCode, EventName};
use crate::telemetry;

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
    let session = edge.engine().and_then(|engine| engine.session(socket.id));
    let Some((session, kept)) = session.and_then(|session| Some((session.clone(), session.context::<Session>()?)))
    else {
        return Err(Refusal::TurnedAway);
    };
    let attempt = Connect { edge, session, kept };
    if attempt.edge.parameters.lifecycle.is_stopping() {
        return Err(attempt.turn_away("draining").await);
    }
    match attempt.kept.attempt() {
        Attempt::First => attempt.run(&socket, auth).await,
        Attempt::Refused(refused) => Err(Refusal::Token(refused)),
        Attempt::TooLate => Err(attempt.turn_away("second_connect").await),
    }
}

/// The connect handler.
pub(super) fn go_live(edge: &Edge, socket: &SocketRef) {
    let session = edge.engine().and_then(|engine| engine.session(socket.id));
    if let Some(device) = session.and_then(|session| session.context::<Session>()?.device()) {
        device.go_live(socket.clone());
    }
}

/// A CONNECT that is being answered.
struct Connect {
    edge: Arc<Edge>,
    session: Arc<EngineSession>,
    kept: Arc<Session>,
}

impl Connect {
    async fn run(self, socket: &SocketRef, auth: TryData<Value>) -> Result<(), Refusal> {
        if self.kept.has_lost_token() {
            return Err(self.turn_away("unauthenticated_bytes").await);
        }
        let mut said = auth.0.ok();
        let identity = match self.identify(said.as_ref()) {
            Ok(identity) => identity,
            Err(refused) => return Err(self.refuse_token(refused)),
        };
        let resume = resume(said.as_mut().and_then(|said| said.get_mut("resume")).map(Value::take));
        let resume = resume.or_else(|| self.kept.take_resume());
        let Self { edge, session, kept } = &self;
        let connection = SocketConnection::new(edge.clone(), kept.clone(), session.clone(), resume.is_some());
        let connecting = edge.parameters.commands.connect_device(&identity, connection.clone(), resume.as_ref());
        let admission = match connecting.await {
            Ok(admission) => admission,
            Err(limit) => return Err(self.turn_away(limit.as_str()).await),
        };
        let events = edge.parameters.commands.events_of(&identity.user);
        let device = Arc::new(Device {
            edge: edge.clone(),
            admission,
            connection,
            identity: Mutex::new(Arc::new(identity)),
            inbox: Inbox::default(),
            events,
            watched: Watched::default(),
        });
        socket.on_fallback(InboundHandler(device.clone()));
        if kept.keep(device.clone()) {
            return Ok(());
        }
        device.ended("transport_close");
        // A refusal that may pass is never told.
        self.session.end_after(Duration::ZERO, Ending::Abort, DisconnectReason::ClosingServer);
        self.session.closed().await;
        Err(Refusal::TurnedAway)
    }

    fn identify(&self, auth: Option<&Value>) -> Result<Identity, TokenRefused> {
        let commands = &self.edge.parameters.commands;
        match auth.and_then(|auth| auth.get("token")) {
            Some(Value::String(token)) if !token.is_empty() => commands.identify_device(Some(token)),
            None | Some(Value::Null | Value::String(_)) => {
                let token = self.kept.token();
                commands.identify_device(token.as_ref().map(ExposeSecret::expose_secret))
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(InvalidToken::Malformed.into())
            }
        }
    }

    /// Official clients stop at this. Those that do not are cut off.
    fn refuse_token(&self, refused: TokenRefused) -> Refusal {
        self.kept.refuse(refused);
        log_refusal(&self.kept, refused.reason());
        self.session.end_after(IDLE_GRACE, Ending::Cut, DisconnectReason::ClosingServer);
        Refusal::Token(refused)
    }

    /// Cuts a device off without a word, since an official client that is refused gives up for good. Returns when a
    /// refusal cannot reach it any more.
    async fn turn_away(&self, reason: &'static str) -> Refusal {
        log_refusal(&self.kept, reason);
        self.session.end_after(Duration::ZERO, Ending::Abort, DisconnectReason::ClosingServer);
        self.session.closed().await;
        Refusal::TurnedAway
    }
}

pub(super) fn log_refusal(session: &Session, reason: &'static str) {
    tracing::info!(client.address = %session.address, refusal.reason = reason, "refused a device");
    telemetry::refused("socketio", reason);
    telemetry::audit::device_refused("socketio", Some(session.address), reason);
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

    /// The device has left, or its session has ended.
    pub(super) fn ended(&self, how: &'static str) {
        self.admission.ended(how);
        self.connection.ended();
        self.forget_token();
    }
}
