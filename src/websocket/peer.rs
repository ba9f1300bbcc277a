use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use transport::websocket::{End, Ended as SocketEnded, Leave, Message, Opcode, Peer, Step, close_frame, frame};

use super::{
    closing,
    device::{Device, PING_TIMEOUT},
    inbound::ClientMessage,
    phase::Ended,
};
use crate::auth::TokenRefused;
use crate::command::{Admission, Commands, RefreshRefused};
use crate::limits::{AddressSlot, ConnectionEvents, Excess};
use crate::message::{CloseCode, CloseReason};
use crate::telemetry;

/// A device as the task of its socket has it.
pub(super) struct DevicePeer {
    pub(super) device: Arc<Device>,
    pub(super) admission: Arc<Admission>,
    pub(super) events: ConnectionEvents,
    pub(super) commands: Commands,
    /// Held for as long as the socket is open.
    pub(super) _slot: AddressSlot,
}

impl Peer for DevicePeer {
    fn receive(&mut self, message: Message) -> Step {
        self.device.heard();
        if is_asked(&message) && self.is_excess() {
            // A new token that was not looked at would let the device believe that it was.
            if let Message::Text(text) = &message
                && matches!(ClientMessage::parse(text), ClientMessage::Auth(_))
            {
                self.admission.close(&CloseCode::Rate.into());
            }
            return Step::Read;
        }
        match message {
            Message::Text(text) => match ClientMessage::parse(&text) {
                ClientMessage::Auth(token) => return self.replace_token(token),
                ClientMessage::Unreadable | ClientMessage::Other => self.ignore(),
            },
            Message::Binary(_) => self.ignore(),
            Message::Pong(payload) => self.device.pong(&payload),
            Message::Ping => {}
        }
        Step::Read
    }

    fn end(&mut self, end: End) -> Leave {
        let ended = self.device.end();
        let complaint = match &end {
            End::WebSocket(ended) => closing::complaint(ended),
            End::Requested => None,
        };
        let how = match (&ended, &end) {
            (Ended::Silent, _) => PING_TIMEOUT,
            (Ended::Closed(_), _) | (_, End::Requested | End::WebSocket(SocketEnded::Cut)) => "closed",
            (Ended::Live, End::WebSocket(SocketEnded::Closed(_))) => "transport_close",
            (Ended::Live, _) if complaint.is_some() => "malformed_message",
            (Ended::Live, _) => "transport_error",
        };
        // If the hub has closed it, it knows better.
        self.admission.ended(how);
        let last = match (ended, end) {
            (Ended::Silent, _) => None,
            (Ended::Closed(reason), End::WebSocket(SocketEnded::Cut)) => {
                let last = closing::farewell(&reason).map(|farewell| close_frame(farewell.code, &farewell.reason));
                let device = self.device.clone();
                let on_lost = move || {
                    // The device has not even taken the close frame.
                    telemetry::closed_unannounced();
                    device.abort();
                };
                return Leave { last, on_lost: Some(Box::new(on_lost)) };
            }
            (_, End::WebSocket(SocketEnded::Closed(close))) => {
                Some(close.map_or_else(|| frame(Opcode::Close, &[]), |close| close_frame(close.code, "")))
            }
            (_, _) => complaint.map(|complaint| close_frame(complaint.code, &complaint.reason)),
        };
        Leave { last, on_lost: None }
    }
}

impl DevicePeer {
    /// Whether this is more than the device may send; if it goes on all the same, its connection is closed.
    fn is_excess(&self) -> bool {
        let Err(excess) = self.events.take() else {
            return false;
        };
        self.note_refusal("rate");
        if excess == Excess::Abuse {
            self.admission.close(&CloseCode::Rate.into());
        }
        true
    }

    fn ignore(&self) {
        self.note_refusal("unknown_message");
        tracing::debug!(connection.id = %self.admission.id(), "ignored a message");
    }

    /// Counts what was refused, and puts it into the audit log.
    fn note_refusal(&self, code: &'static str) {
        telemetry::client_event_refused(code);
        telemetry::audit::client_event_refused(self.admission.user(), &self.admission.id(), None, code);
    }

    /// Replaces the token, and the rooms that it gives. If it is no good, the connection is closed: there is no other way to
    /// say so.
    fn replace_token(&self, token: Result<Option<SecretString>, TokenRefused>) -> Step {
        let (device, admission, commands) = (self.device.clone(), self.admission.clone(), self.commands.clone());
        let authenticating = device.authenticating();
        Step::Wait(Box::pin(async move {
            let _authenticating = authenticating;
            let Some(old) = device.identity() else {
                return;
            };
            let refreshed = match &token {
                Ok(token) => {
                    let token = token.as_ref().map(ExposeSecret::expose_secret);
                    commands.refresh_token(&admission, &old, token).await
                }
                Err(refused) => Err(RefreshRefused::Token(*refused)),
            };
            let text = match refreshed {
                Ok(identity) => return device.identify(identity),
                Err(RefreshRefused::Token(refused)) => refused.to_string(),
                Err(RefreshRefused::OtherUser) => closing::invalid_token(),
            };
            admission.close(&CloseReason::new(CloseCode::Token, text));
        }))
    }
}

/// Whether a message asks something of the server, and so counts: an answer to its ping does not.
fn is_asked(message: &Message) -> bool {
    match message {
        Message::Text(_) | Message::Binary(_) | Message::Ping => true,
        Message::Pong(_) => false,
    }
}
