use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::{json, value::RawValue};
use socketioxide::{
    adapter::LocalAdapter,
    extract::AckSender,
    handler::{FromMessageParts, MessageHandler, Value},
    socket::Socket,
};

use super::connect::Device;
use crate::command::{EventRefused, RefreshRefused};
use crate::limits::Excess;
use crate::message::CloseCode;
use crate::telemetry;

/// How many events of one device may wait to be handled: what a client has kept while it was offline comes at once.
const MOST_WAITING: usize = 4_096;
/// How many bytes those may have, in largest messages.
const MOST_WAITING_MESSAGES: usize = 2;

/// A device's events, handled one after the other in the order in which they came. The library would run a task for each.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    events: VecDeque<ClientEvent>,
    bytes: usize,
    is_handled: bool,
}

/// An event from a device.
struct ClientEvent {
    name: String,
    /// The first argument, unless one of them is binary.
    argument: Option<Box<RawValue>>,
    bytes: usize,
    /// The way to answer, if the device asked for that.
    ack: Option<AckSender>,
}

/// The argument of `bugle:refresh`.
#[derive(serde::Deserialize)]
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
        let ack = ack_id.map(|_| ack);
        if let Err(excess) = self.0.events.take() {
            self.0.refuse_excess(excess, ack);
            return;
        }
        let Some(event) = ClientEvent::parse(&value, ack) else {
            self.0.note_refusal("malformed", None);
            return;
        };
        self.0.receive(event);
    }
}

impl ClientEvent {
    fn parse(value: &Value, ack: Option<AckSender>) -> Option<Self> {
        let Value::Str(text, attachments) = value else {
            return None;
        };
        let Parts { name, argument } = serde_json::from_str(text).ok()?;
        let is_binary = attachments.as_ref().is_some_and(|attachments| !attachments.is_empty());
        Some(Self { name, argument: argument.filter(|_| !is_binary), bytes: text.len(), ack })
    }
}

/// An event's name and first argument; the others are read over, since a stranger decides how many there are.
struct Parts {
    name: String,
    argument: Option<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Parts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event's name and its arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Parts, A::Error> {
                let mut name: String = list.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                if name.is_empty() {
                    // The mark of a name that the library cannot read (`packet::Rewrite`): the name itself is next.
                    name = list.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                }
                let argument = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Parts { name, argument })
            }
        }

        deserializer.deserialize_seq(List)
    }
}

impl Device {
    /// Refuses an event before it is looked at.
    fn refuse_excess(&self, excess: Excess, ack: Option<AckSender>) {
        if self.admission.member().is_gone() {
            return;
        }
        self.note_refusal("rate", None);
        match excess {
            Excess::TooFast { limit, retry_after } => {
                let retry_after = retry_after.as_millis().max(1);
                let message = format!("{limit} is met: try again in {retry_after} ms");
                let error = json!({ "code": "rate", "message": message, "retryAfterMs": retry_after });
                if let Some(ack) = ack {
                    self.connection.acknowledge(ack, &json!({ "error": error }));
                }
            }
            Excess::Abuse => self.admission.close(&CloseCode::Rate.into()),
        }
    }

    /// Counts what was refused, and puts it into the audit log. `event` is its name, unless a stranger made that up.
    fn note_refusal(&self, code: &'static str, event: Option<&str>) {
        let member = self.admission.member();
        telemetry::client_event_refused(code);
        telemetry::audit::client_event_refused(member.user(), &member.id(), event, code);
    }

    fn receive(self: &Arc<Self>, event: ClientEvent) {
        let most_bytes = self.edge.parameters.config.max_message * MOST_WAITING_MESSAGES;
        let mut waiting = self.inbox.0.lock();
        if waiting.events.len() >= MOST_WAITING || waiting.bytes + event.bytes > most_bytes {
            drop(waiting);
            self.admission.close(&CloseCode::Rate.into());
            return;
        }
        waiting.bytes += event.bytes;
        waiting.events.push_back(event);
        if !std::mem::replace(&mut waiting.is_handled, true) {
            let device = self.clone();
            self.edge.parameters.lifecycle.spawn(async move { device.handle_all().await });
        }
    }

    async fn handle_all(self: &Arc<Self>) {
        while let Some(event) = self.inbox.next() {
            self.handle(event).await;
            tokio::task::yield_now().await;
        }
    }

    async fn handle(self: &Arc<Self>, event: ClientEvent) {
        if self.admission.member().is_gone() {
            return;
        }
        let answer = match event.name.as_str() {
            "bugle:refresh" => self.refresh(event.argument.as_deref()).await,
            name => self.obey(name, event.argument.as_deref()).await,
        };
        let reply = match answer {
            Ok(()) => json!({ "ok": true }),
            Err((code, message)) => {
                self.note_refusal(code, Some(&*event.name).filter(|_| code != EventRefused::Unknown.code()));
                let member = self.admission.member();
                tracing::info!(
                    connection.id = %member.id(),
                    user.id = %member.user(),
                    event.name = ?shortened(&event.name),
                    refusal.reason = code,
                    "refused a client event"
                );
                json!({ "error": { "code": code, "message": message } })
            }
        };
        if let Some(ack) = event.ack {
            self.connection.acknowledge(ack, &reply);
        }
    }

    async fn obey(&self, name: &str, argument: Option<&RawValue>) -> Result<(), (&'static str, String)> {
        let identity = self.identity.lock().clone();
        let done = self.edge.parameters.commands.client_event(&self.admission, &identity, name, argument).await;
        done.map_err(|refused| (refused.code(), refused.to_string()))
    }

    async fn refresh(self: &Arc<Self>, argument: Option<&RawValue>) -> Result<(), (&'static str, String)> {
        // A list would do for a struct as well.
        let argument = argument.filter(|raw| raw.get().starts_with('{'));
        let Some(Refresh { token }) = argument.and_then(|raw| serde_json::from_str(raw.get()).ok()) else {
            return Err(("invalid_argument", "the event takes one argument: { token: \"…\" }".to_owned()));
        };
        match self.replace_token(token.expose_secret()).await {
            Ok(()) => Ok(()),
            Err(refused @ RefreshRefused::Token(_)) => Err(("invalid_token", refused.to_string())),
            Err(refused @ RefreshRefused::OtherUser) => Err(("wrong_user", refused.to_string())),
        }
    }
}

/// The beginning of a name that a stranger chose, for the log.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(64)]
}

impl Inbox {
    fn next(&self) -> Option<ClientEvent> {
        let mut waiting = self.0.lock();
        let event = waiting.events.pop_front();
        waiting.is_handled = event.is_some();
        waiting.bytes -= event.as_ref().map_or(0, |event| event.bytes);
        event
    }
}
