use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until};
use transport::websocket::{CloseFrame, Ended, Message, WebSocket};

use super::{
    Parameters, closing,
    connection::PlainConnection,
    heartbeat::{Beat, Heartbeat},
    inbound::ClientMessage,
};
use crate::auth::{Identity, OnExpiry};
use crate::command::{Admission, RefreshRefused};
use crate::limits::{ConnectionEvents, Excess};
use crate::message::{CloseCode, CloseReason};
use crate::telemetry;

/// The longest sleep: longer ones are cut into pieces, since timers have an end.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// What is known of an authenticated device.
pub(super) struct Session {
    pub(super) parameters: Arc<Parameters>,
    pub(super) connection: Arc<PlainConnection>,
    pub(super) admission: Arc<Admission>,
    pub(super) identity: Identity,
    pub(super) events: ConnectionEvents,
}

/// An authenticated device, and the one task that speaks with it.
pub(super) struct Device<'a> {
    socket: &'a mut WebSocket,
    session: Session,
    heartbeat: Heartbeat,
    /// When the token is looked at again; none: never.
    token_due: Option<Instant>,
}

/// How it came to an end.
enum End {
    /// The hub has closed it.
    Closed,
    Left(Option<CloseFrame>),
    Silent,
    Failed(Ended),
}

impl<'a> Device<'a> {
    pub(super) fn new(socket: &'a mut WebSocket, session: Session) -> Self {
        let parameters = &session.parameters;
        let heartbeat = Heartbeat::new(parameters.ping_interval, parameters.ping_timeout, Instant::now());
        Self { socket, session, heartbeat, token_due: None }
    }

    /// Speaks with the device until the end.
    pub(super) async fn live(mut self) {
        self.watch_token();
        let mut timer = std::pin::pin!(sleep_until(self.due()));
        let end = loop {
            let due = self.due();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            let heard = tokio::select! {
                heard = self.socket.next() => heard,
                () = timer.as_mut() => {
                    if self.is_silent() {
                        break End::Silent;
                    }
                    continue;
                }
            };
            match heard {
                Ok(message) => {
                    self.heartbeat.heard(Instant::now());
                    self.hear(message).await;
                }
                Err(Ended::Closed(close)) => break End::Left(close),
                Err(Ended::Cut) => break End::Closed,
                Err(ended) => break End::Failed(ended),
            }
        };
        self.end(end).await;
    }

    fn due(&self) -> Instant {
        let heartbeat = self.heartbeat.due();
        self.token_due.map_or(heartbeat, |token| token.min(heartbeat))
    }

    /// Does what is due. True: the device has not answered.
    fn is_silent(&mut self) -> bool {
        self.watch_token();
        match self.heartbeat.beat(Instant::now()) {
            Beat::Early => false,
            Beat::Ask => {
                self.session.connection.ping();
                false
            }
            Beat::Gone if self.session.connection.is_ping_on_its_way() => {
                self.heartbeat.extend(Instant::now());
                false
            }
            Beat::Gone => true,
        }
    }

    async fn hear(&mut self, message: Message) {
        if is_asked(&message) && self.is_excess() {
            // A new token that was not looked at would let the device believe that it was.
            if let Message::Text(text) = &message
                && matches!(ClientMessage::parse(text), ClientMessage::Auth(_))
            {
                self.session.admission.close(&CloseCode::Rate.into());
            }
            return;
        }
        match message {
            Message::Text(text) => match ClientMessage::parse(&text) {
                ClientMessage::Auth(token) => self.replace_token(token.as_ref()).await,
                ClientMessage::Other => self.ignore(),
            },
            Message::Binary(_) => self.ignore(),
            Message::Pong(payload) => self.session.connection.pong(&payload),
            Message::Ping => {}
        }
    }

    /// Whether this is more than the device may send; if it goes on all the same, its connection is closed.
    fn is_excess(&self) -> bool {
        let Err(excess) = self.session.events.take() else {
            return false;
        };
        self.note_refusal("rate");
        if excess == Excess::Abuse {
            self.session.admission.close(&CloseCode::Rate.into());
        }
        true
    }

    fn ignore(&self) {
        self.note_refusal("unknown_message");
        tracing::debug!(connection.id = %self.session.admission.member().id(), "ignored a message");
    }

    /// Counts what was refused, and puts it into the audit log.
    fn note_refusal(&self, code: &'static str) {
        let member = self.session.admission.member();
        telemetry::client_event_refused(code);
        telemetry::audit::client_event_refused(member.user(), &member.id(), None, code);
    }

    /// Replaces the token, and the rooms that it gives. If it is no good, the connection is closed: there is no other way to
    /// say so.
    async fn replace_token(&mut self, token: Option<&SecretString>) {
        let Session { parameters, admission, identity, .. } = &self.session;
        let token = token.map(ExposeSecret::expose_secret);
        let text = match parameters.commands.refresh_token(admission, identity, token).await {
            Ok(identity) => {
                self.session.identity = identity;
                self.watch_token();
                return;
            }
            Err(RefreshRefused::Token(refused)) => refused.to_string(),
            Err(RefreshRefused::OtherUser) => closing::invalid_token(),
        };
        admission.close(&CloseReason::new(CloseCode::Token, text));
    }

    /// Closes the connection if its token has expired, or sees to it that this is looked at again when it does.
    fn watch_token(&mut self) {
        let Session { parameters, admission, identity, .. } = &self.session;
        self.token_due = match parameters.on_expiry {
            OnExpiry::Keep => None,
            OnExpiry::Close => {
                // With the leeway, as when the token was verified: else a device would be closed and let in again with it.
                let left = parameters.clock.until(identity.expires_at);
                if left.is_zero() {
                    admission.close(&CloseCode::Expired.into());
                }
                Some(Instant::now() + left.min(LONGEST_SLEEP))
            }
        };
    }

    async fn end(self, end: End) {
        let Self { socket, session, .. } = self;
        let reason = session.connection.end();
        let how = match &end {
            End::Closed => "closed",
            End::Left(_) => "transport_close",
            End::Silent => "ping_timeout",
            End::Failed(ended) if closing::complaint(ended).is_some() => "malformed_message",
            End::Failed(_) => "transport_error",
        };
        // If the hub has closed it, it knows better.
        session.admission.ended(how);
        match end {
            End::Closed => {
                let Some(frame) = reason.as_ref().and_then(closing::farewell) else {
                    return;
                };
                if !closing::leave(socket, &frame).await {
                    telemetry::closed_unannounced();
                    session.connection.abort();
                }
            }
            End::Left(close) => closing::part(socket, close.as_ref()).await,
            End::Silent => session.connection.abort(),
            End::Failed(ended) => {
                if let Some(frame) = closing::complaint(&ended) {
                    closing::leave(socket, &frame).await;
                }
            }
        }
    }
}

/// Whether a message asks something of the server, and so counts: an answer to its ping does not.
fn is_asked(message: &Message) -> bool {
    match message {
        Message::Text(_) | Message::Binary(_) | Message::Ping => true,
        Message::Pong(_) => false,
    }
}
