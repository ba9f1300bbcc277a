use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::{
    Parameters, Socket, closing,
    connection::{PlainConnection, message},
    heartbeat::{Beat, Heartbeat},
    inbound::ClientMessage,
};
use crate::auth::{Identity, OnExpiry};
use crate::command::{Admission, RefreshRefused};
use crate::limits::{ConnectionEvents, Excess};
use crate::listener::StreamHandle;
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
    pub(super) stream: StreamHandle,
    pub(super) events: ConnectionEvents,
}

/// An authenticated device, and the one task that speaks with it.
pub(super) struct Device<'a> {
    socket: &'a mut Socket,
    session: Session,
    heartbeat: Heartbeat,
    is_ping_due: bool,
    /// When the token is to be looked at again; none: never.
    token_due: Option<Instant>,
}

/// What there is to be done.
enum Step {
    Heard(Message),
    /// The timer has run out.
    Due,
    /// The hub has let go of the connection.
    Closing,
    /// The transport has ended.
    Ended,
    Failed(Error),
}

/// How it came to an end.
enum End {
    Closed,
    Left,
    Silent,
    Gone,
    Failed(Error),
}

impl<'a> Device<'a> {
    pub(super) fn new(socket: &'a mut Socket, session: Session) -> Self {
        let parameters = &session.parameters;
        let heartbeat = Heartbeat::new(parameters.ping_interval, parameters.ping_timeout, Instant::now());
        Self { socket, session, heartbeat, is_ping_due: false, token_due: None }
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
            match std::future::poll_fn(|cx| self.poll_step(timer.as_mut(), cx)).await {
                Step::Heard(message) => {
                    self.heartbeat.heard(Instant::now());
                    if matches!(message, Message::Close(_)) {
                        break End::Left;
                    }
                    self.hear(message).await;
                }
                Step::Due => {
                    self.watch_token();
                    match self.heartbeat.beat(Instant::now()) {
                        Beat::Early => {}
                        Beat::Ask => self.is_ping_due = true,
                        Beat::Gone => break End::Silent,
                    }
                }
                Step::Closing => break End::Closed,
                Step::Ended => break End::Gone,
                Step::Failed(error) => break End::Failed(error),
            }
        };
        self.end(end).await;
    }

    fn due(&self) -> Instant {
        let heartbeat = self.heartbeat.due();
        self.token_due.map_or(heartbeat, |token| token.min(heartbeat))
    }

    fn poll_step(&mut self, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Step> {
        self.session.connection.wakes(cx.waker());
        if self.session.connection.is_closing() {
            return Poll::Ready(Step::Closing);
        }
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Step::Failed(error));
        }
        // A device that does not read may still speak, and must be heard for its answers to pings.
        match self.socket.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(message))) => return Poll::Ready(Step::Heard(message)),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Step::Failed(error)),
            Poll::Ready(None) => return Poll::Ready(Step::Ended),
            Poll::Pending => {}
        }
        timer.poll(cx).map(|()| Step::Due)
    }

    /// Sends what waits, as far as the device takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            ready!(self.socket.poll_ready_unpin(cx))?;
            if std::mem::take(&mut self.is_ping_due) {
                self.socket.start_send_unpin(Message::Ping(Bytes::new()))?;
                continue;
            }
            match self.session.connection.next() {
                Some(payload) => self.socket.start_send_unpin(message(payload))?,
                None => return self.socket.poll_flush_unpin(cx),
            }
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
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
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
        let (rest, reason) = session.connection.end();
        let how = match &end {
            End::Closed => "closed",
            End::Left | End::Gone => "transport_close",
            End::Silent => "ping_timeout",
            End::Failed(error) if closing::complaint(error).is_some() => "malformed_message",
            End::Failed(_) => "transport_error",
        };
        // If the hub has let go of it, it knows better.
        session.admission.ended(how);
        match end {
            End::Closed => {
                let Some(frame) = reason.as_ref().and_then(closing::farewell) else {
                    return;
                };
                if !closing::leave(socket, rest, frame).await {
                    telemetry::closed_unannounced();
                    session.stream.abort();
                }
            }
            End::Left => closing::part(socket).await,
            End::Silent => session.stream.abort(),
            End::Gone => {}
            End::Failed(error) => {
                if let Some(frame) = closing::complaint(&error) {
                    closing::leave(socket, [].into(), frame).await;
                }
            }
        }
    }
}

/// Whether a message asks something of us, and so counts: an answer to a ping of ours does not.
fn is_asked(message: &Message) -> bool {
    match message {
        Message::Text(_) | Message::Binary(_) | Message::Ping(_) => true,
        Message::Pong(_) | Message::Close(_) | Message::Frame(_) => false,
    }
}
