use std::{fmt, sync::Arc, time::Duration};

use engineioxide::{
    DisconnectReason,
    session::{Ending, Session},
};
use secrecy::ExposeSecret;
use serde_json::{json, value::RawValue};
use socketioxide::extract::{SocketRef, TryData};

use super::{
    closing::{IDLE_GRACE, own_event},
    connection::SocketConnection,
    device::{Admitted, Answered, Device},
    edge::Edge,
    inbound::InboundHandler,
    inbox::Inbox,
    opening::{Attempt, Said},
    resume::resume,
};
use crate::auth::{AuthPayload, Identity, TokenRefused};
use crate::command::{Admission, Resume};
use crate::hub::{Connection, Frame};
use crate::message::{CloseCode, EventName};
use crate::telemetry;

/// What a device sees when its CONNECT is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum ConnectError {
    /// Its token is no good: it should not come back with it.
    Token(TokenRefused),
    /// It should come back. It never sees this: its transport is gone by then.
    TurnedAway,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(refused) => refused.fmt(f),
            Self::TurnedAway => f.write_str("Try again"),
        }
    }
}

/// The connect middleware: authenticates a device and makes it ready to go live. Nothing can be emitted to the device before
/// it has returned.
pub(super) async fn authenticate(
    edge: Arc<Edge>,
    socket: SocketRef,
    auth: TryData<Box<RawValue>>,
) -> Result<(), ConnectError> {
    let Some((session, device)) = edge.device(socket.id) else {
        return Err(ConnectError::TurnedAway);
    };
    let connect = Connect { edge, session, device };
    if connect.edge.deps.lifecycle.is_stopping() {
        return Err(connect.turn_away("draining").await);
    }
    match connect.device.attempt() {
        Attempt::First(said) => {
            // socketioxide has not ignored it: see `Watch::text`.
            connect.session.end_if_idle(None);
            connect.run(&socket, said, auth).await
        }
        Attempt::Refused(refused) => Err(ConnectError::Token(refused)),
        Attempt::TooLate => Err(connect.turn_away("second_connect").await),
    }
}

/// The connect handler: the answer to the CONNECT is queued.
pub(super) fn go_live(edge: &Edge, socket: &SocketRef) {
    let Some((session, device)) = edge.device(socket.id) else {
        return;
    };
    let Some(Answered { admission, generation, closed }) = device.answered(socket) else {
        return;
    };
    match closed {
        None => device.greet(&session, &admission),
        Some(reason) => device.tell_of_close(&session, generation, socket, &reason),
    }
}

/// A CONNECT that is being answered.
struct Connect {
    edge: Arc<Edge>,
    session: Arc<Session>,
    device: Arc<Device>,
}

impl Connect {
    async fn run(self, socket: &SocketRef, first: Said, auth: TryData<Box<RawValue>>) -> Result<(), ConnectError> {
        if first.is_lost {
            return Err(self.turn_away("unauthenticated_bytes").await);
        }
        let (identity, resume) = match self.identify(auth, first) {
            Ok(identified) => identified,
            Err(refused) => return Err(self.refuse_token(refused)),
        };
        let Self { edge, session, device } = &self;
        let connection = SocketConnection::new(device.clone(), session.clone(), resume.is_some());
        let (id, generation) = (connection.id(), connection.generation());
        device.begin(id);
        let connecting = edge.deps.commands.connect_device(&identity, connection, resume.as_ref());
        let admission = match connecting.await {
            Ok(admission) => admission,
            Err(limit) => return Err(self.turn_away(limit.as_str()).await),
        };
        let events = edge.deps.commands.events_of(&identity.user);
        socket.on_fallback(InboundHandler { device: device.clone(), id, admission: admission.clone(), events });
        let admitted = Admitted {
            session: session.clone(),
            generation,
            admission,
            identity: Arc::new(identity),
            inbox: Inbox::default(),
            told_of: None,
        };
        let Err(admitted) = device.admit(id, admitted, socket.clone()) else {
            return Ok(());
        };
        admitted.ended("transport_close");
        // A refusal that may pass is never told.
        self.session.end_after(Duration::ZERO, Ending::Abort, DisconnectReason::ClosingServer);
        self.session.closed().await;
        Err(ConnectError::TurnedAway)
    }

    /// Who the device is, and what it says it has seen.
    fn identify(&self, auth: TryData<Box<RawValue>>, first: Said) -> Result<(Identity, Option<Resume>), TokenRefused> {
        let json = auth.0.map_err(|_| TokenRefused::Unreadable)?;
        let auth = AuthPayload::parse(json.get())?;
        let token = auth.token("token")?.filter(|token| !token.expose_secret().is_empty()).or(first.token);
        let identity = self.edge.deps.commands.identify_device(token.as_ref().map(ExposeSecret::expose_secret))?;
        Ok((identity, resume(auth.get("resume")).or(first.resume)))
    }

    /// Official clients stop at this. Those that do not are cut off.
    fn refuse_token(&self, refused: TokenRefused) -> ConnectError {
        self.device.refuse(refused);
        log_refusal(&self.device, refused.reason());
        self.session.end_after(IDLE_GRACE, Ending::Cut, DisconnectReason::ClosingServer);
        ConnectError::Token(refused)
    }

    /// Cuts a device off without a word, since an official client that is refused gives up for good. Returns when a
    /// refusal cannot reach it any more.
    async fn turn_away(&self, reason: &'static str) -> ConnectError {
        log_refusal(&self.device, reason);
        self.session.end_after(Duration::ZERO, Ending::Abort, DisconnectReason::ClosingServer);
        self.session.closed().await;
        ConnectError::TurnedAway
    }
}

pub(super) fn log_refusal(device: &Device, reason: &'static str) {
    tracing::info!(client.address = %device.address, refusal.reason = reason, "refused a device");
    telemetry::refused("socketio", reason);
    telemetry::audit::device_refused("socketio", Some(device.address), reason);
}

impl Device {
    /// Lets events through, behind the greeting.
    fn greet(&self, session: &Session, admission: &Admission) {
        if !admission.go_live(self.greeting(admission).as_ref()) {
            return;
        }
        if self.edge.deps.lifecycle.is_stopping() {
            // A drain may have listed the connections before this one was live.
            admission.close(&CloseCode::Draining.into());
            return;
        }
        tracing::info!(
            connection.id = %admission.id(),
            user.id = %admission.user(),
            connection.transport = admission.transport().as_str(),
            client.address = %self.address,
            "connected"
        );
        self.watch_token(session);
    }

    fn greeting(&self, admission: &Admission) -> Option<Frame> {
        let name = &self.edge.deps.config.welcome;
        if name.is_empty() {
            return None;
        }
        let rooms: Vec<_> = admission.rooms().iter().map(ToString::to_string).collect();
        let body = json!({
            "userId": admission.user().as_str(),
            "connectionId": admission.id().to_string(),
            "rooms": rooms,
        });
        Some(own_event(EventName::own(name), &body))
    }
}

impl Admitted {
    /// The device has left, or its session has ended.
    pub(super) fn ended(&self, how: &'static str) {
        self.admission.ended(how);
        // What is not proven never will be.
        self.session.end_proof();
    }
}
