use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use socketioxide::{
    adapter::LocalAdapter,
    extract::AckSender,
    handler::{FromMessageParts, MessageHandler, Value},
    socket::Socket,
};

use super::connect::Device;
use crate::command::RefreshRefused;
use crate::limits::EventRefused;
use crate::message::CloseCode;
use crate::telemetry;

/// How many events of one device may wait to be handled.
const MOST_WAITING: usize = 64;

/// A device's events, handled one after the other in the order in which they came. The library would run a task for each.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    events: VecDeque<ClientEvent>,
    is_handled: bool,
}

/// An event from a device.
struct ClientEvent {
    name: String,
    /// The arguments, unless one of them is binary.
    arguments: Option<Vec<Box<RawValue>>>,
    ack: AckSender,
}

/// The argument of `bugle:refresh`.
#[derive(Deserialize)]
struct Refresh {
    token: SecretString,
}

/// Takes every event of a device.
pub(super) struct InboundHandler(pub(super) Arc<Device>);

/// Tells this handler from the library's own kinds.
pub(super) struct InOrder;

impl MessageHandler<LocalAdapter, InOrder> for InboundHandler {
    fn call(&self, socket: Arc<Socket>, mut value: Value, ack_id: Option<i64>) {
        let Ok(ack) = AckSender::from_message_parts(&socket, &mut value, &ack_id);
        if let Err(refused) = self.0.events.take() {
            self.0.refuse_by_rate(refused, ack);
            return;
        }
        let Some(event) = ClientEvent::parse(&value, ack) else {
            telemetry::client_event_refused("malformed");
            return;
        };
        self.0.receive(event);
    }
}

impl ClientEvent {
    fn parse(value: &Value, ack: AckSender) -> Option<Self> {
        let Value::Str(text, attachments) = value else {
            return None;
        };
        let mut parts = serde_json::from_str::<Vec<Box<RawValue>>>(text).ok()?.into_iter();
        let name = serde_json::from_str(parts.next()?.get()).ok()?;
        let is_binary = attachments.as_ref().is_some_and(|attachments| !attachments.is_empty());
        Some(Self { name, arguments: (!is_binary).then(|| parts.collect()), ack })
    }
}

impl Device {
    fn refuse_by_rate(&self, refused: EventRefused, ack: AckSender) {
        telemetry::client_event_refused("rate");
        match refused {
            EventRefused::TooFast { limit, retry_after } => {
                let retry_after = retry_after.as_millis().max(1);
                let message = format!("{limit} is met: try again in {retry_after} ms");
                let error = json!({ "code": "rate", "message": message, "retryAfterMs": retry_after });
                // As below.
                let _ = ack.send(&[json!({ "error": error })]);
            }
            EventRefused::Abuse => self.admission.close(&CloseCode::Rate.into()),
        }
    }

    fn receive(self: &Arc<Self>, event: ClientEvent) {
        let mut waiting = self.inbox.0.lock();
        if waiting.events.len() >= MOST_WAITING {
            drop(waiting);
            self.admission.close(&CloseCode::Rate.into());
            return;
        }
        waiting.events.push_back(event);
        if !std::mem::replace(&mut waiting.is_handled, true) {
            let device = self.clone();
            self.edge.parameters.lifecycle.spawn(async move { device.handle_all().await });
        }
    }

    async fn handle_all(&self) {
        while let Some(event) = self.inbox.next() {
            self.handle(event);
            tokio::task::yield_now().await;
        }
    }

    fn handle(&self, event: ClientEvent) {
        if self.admission.member().is_gone() {
            return;
        }
        let answer = match event.name.as_str() {
            "bugle:refresh" => self.refresh(event.arguments.as_deref()),
            _ => Err(("unknown_event", "no rule allows this event".to_owned())),
        };
        let reply = match answer {
            Ok(()) => json!({ "ok": true }),
            Err((code, message)) => {
                telemetry::client_event_refused(code);
                let member = self.admission.member();
                telemetry::audit::client_event_refused(member.user(), &member.id(), code);
                tracing::debug!(connection.id = %self.admission.member().id(), refusal.reason = code, "refused a client event");
                json!({ "error": { "code": code, "message": message } })
            }
        };
        // The device asked for no answer, or is gone, or does not read.
        let _ = event.ack.send(&[reply]);
    }

    fn refresh(&self, arguments: Option<&[Box<RawValue>]>) -> Result<(), (&'static str, String)> {
        // A list would do for a struct as well.
        let argument = arguments.and_then(<[_]>::first).filter(|raw| raw.get().starts_with('{'));
        let Some(Refresh { token }) = argument.and_then(|raw| serde_json::from_str(raw.get()).ok()) else {
            return Err(("invalid_argument", "the event takes one argument: { token: \"…\" }".to_owned()));
        };
        match self.replace_token(token.expose_secret()) {
            Ok(()) => Ok(()),
            Err(refused @ RefreshRefused::Token(_)) => Err(("invalid_token", refused.to_string())),
            Err(refused @ RefreshRefused::OtherUser) => Err(("wrong_user", refused.to_string())),
        }
    }
}

impl Inbox {
    fn next(&self) -> Option<ClientEvent> {
        let mut waiting = self.0.lock();
        let event = waiting.events.pop_front();
        waiting.is_handled = event.is_some();
        event
    }
}
