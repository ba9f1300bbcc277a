use std::{sync::Arc, time::Duration};

use engineioxide::session::Session;
use parking_lot::Mutex;
use scopeguard::guard_on_unwind;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, json, value::RawValue};
use socketioxide::{
    adapter::LocalAdapter,
    extract::AckSender,
    handler::{FromMessageParts, MessageHandler, Value},
    socket::Socket,
};

use super::{device::Device, event::ClientEvent, inbox::Pushed};
use crate::auth::Identity;
use crate::command::{Admission, DirectAnswer, EventRefused, RefreshRefused};
use crate::limits::{ConnectionEvents, Excess};
use crate::message::{CloseCode, ConnectionId, Payload};
use crate::telemetry;

/// How many bytes the events of one device that wait to be handled may have, in largest messages.
const MAX_WAITING_MESSAGES: usize = 2;

/// The argument of `bugle:refresh`.
#[derive(serde::Deserialize)]
struct Refresh {
    token: SecretString,
}

/// What acknowledges a direct message.
#[derive(serde::Serialize)]
struct SentReply<'a> {
    ok: bool,
    message: &'a RawValue,
}

/// Takes every event of a device.
pub(super) struct InboundHandler {
    pub(super) device: Arc<Device>,
    pub(super) id: ConnectionId,
    pub(super) admission: Arc<Admission>,
    pub(super) events: ConnectionEvents,
}

/// Tells this handler from the library's own kinds.
pub(super) struct InOrder;

impl MessageHandler<LocalAdapter, InOrder> for InboundHandler {
    fn call(&self, socket: Arc<Socket>, mut value: Value, ack_id: Option<i64>) {
        let Ok(ack) = AckSender::from_message_parts(&socket, &mut value, &ack_id);
        let ack = ack_id.map(|_| ack);
        if let Err(excess) = self.events.take() {
            self.refuse_excess(excess, ack);
            return;
        }
        let Some(event) = ClientEvent::parse(&value, ack) else {
            note_refusal(&self.admission, "malformed", None);
            return;
        };
        self.device.receive(self.id, event);
    }
}

impl InboundHandler {
    /// Refuses an event before it is looked at.
    fn refuse_excess(&self, excess: Excess, ack: Option<AckSender>) {
        if self.admission.is_gone() {
            return;
        }
        note_refusal(&self.admission, "rate", None);
        match excess {
            Excess::TooFast { limit, retry_after } => {
                let retry_after = retry_after.as_millis().max(1);
                let message = format!("{limit} is met: try again in {retry_after} ms");
                let error = json!({ "code": "rate", "message": message, "retryAfterMs": retry_after });
                let session = self.device.connection(self.id, |admitted| admitted.session.clone());
                if let (Some(ack), Some(session)) = (ack, session) {
                    self.device.acknowledge(&session, ack, &json!({ "error": error }));
                }
            }
            Excess::Abuse => self.admission.close(&CloseCode::Rate.into()),
        }
    }
}

/// Counts what was refused, and puts it into the audit log. `event` is its name, unless a stranger made that up.
fn note_refusal(admission: &Admission, code: &'static str, event: Option<&str>) {
    telemetry::client_event_refused(code);
    telemetry::audit::client_event_refused(admission.user(), &admission.id(), event, code);
}

/// Why an event came to nothing: the code, what is wrong, and when to try again.
type Refused = (&'static str, String, Option<Duration>);

/// What an event is handled with.
struct Handling {
    device: Arc<Device>,
    /// Another connection's events are handled by another.
    id: ConnectionId,
    session: Arc<Session>,
    admission: Arc<Admission>,
}

impl Device {
    fn receive(self: &Arc<Self>, id: ConnectionId, event: ClientEvent) {
        let max_bytes = self.edge.deps.config.max_message * MAX_WAITING_MESSAGES;
        let bytes = event.bytes;
        let pushed = self.connection(id, |admitted| {
            (admitted.inbox.push(event, bytes, max_bytes), admitted.session.clone(), admitted.admission.clone())
        });
        match pushed {
            None | Some((Pushed::Waits, ..)) => {}
            Some((Pushed::Full, _, admission)) => admission.close(&CloseCode::Rate.into()),
            Some((Pushed::First, session, admission)) => {
                let handling = Handling { device: self.clone(), id, session, admission };
                self.edge.deps.lifecycle.spawn(async move { handling.handle_all().await });
            }
        }
    }
}

impl Handling {
    async fn handle_all(&self) {
        // The events that follow would wait for ever: the device comes back.
        let _guard = guard_on_unwind((), |()| self.admission.close(&CloseCode::Unready.into()));
        while let Some(event) = self.device.connection(self.id, |admitted| admitted.inbox.next()).flatten() {
            self.handle(event).await;
            tokio::task::yield_now().await;
        }
    }

    async fn handle(&self, event: ClientEvent) {
        if self.admission.is_gone() {
            return;
        }
        let ack = Arc::new(Mutex::new(event.ack));
        let answer = match event.name.as_str() {
            "bugle:refresh" => self.refresh(event.argument.as_deref()).await.map(|()| Map::new()),
            name => self.obey(name, event.argument.as_deref(), self.answer_with(&ack)).await,
        };
        let reply = match answer {
            Ok(mut reply) => {
                reply.insert("ok".to_owned(), true.into());
                json!(reply)
            }
            Err((code, message, retry_after)) => {
                note_refusal(
                    &self.admission,
                    code,
                    Some(&*event.name).filter(|_| code != EventRefused::Unknown.code()),
                );
                tracing::info!(
                    connection.id = %self.admission.id(),
                    user.id = %self.admission.user(),
                    event.name = ?shortened(&event.name),
                    refusal.reason = code,
                    "refused a client event"
                );
                let mut error = json!({ "code": code, "message": message });
                if let Some(retry_after) = retry_after {
                    error["retryAfterMs"] = json!(retry_after.as_millis().max(1));
                }
                json!({ "error": error })
            }
        };
        if let Some(ack) = ack.lock().take() {
            self.device.acknowledge(&self.session, ack, &reply);
        }
    }

    /// Acknowledges a direct message in the order of the device's events. `None`: the device did not ask for that.
    fn answer_with(&self, ack: &Arc<Mutex<Option<AckSender>>>) -> Option<DirectAnswer> {
        ack.lock().as_ref()?;
        let (ack, device, session) = (ack.clone(), self.device.clone(), self.session.clone());
        Some(Box::new(move |message| {
            if let (Some(ack), Payload::Json(message)) = (ack.lock().take(), message) {
                device.acknowledge(&session, ack, &SentReply { ok: true, message });
            }
        }))
    }

    async fn obey(
        &self,
        name: &str,
        argument: Option<&RawValue>,
        answer: Option<DirectAnswer>,
    ) -> Result<Map<String, serde_json::Value>, Refused> {
        let Some(identity) = self.identity() else {
            return Ok(Map::new());
        };
        let commands = &self.device.edge.deps.commands;
        let done = commands.client_event(&self.admission, &identity, name, argument, answer).await;
        done.map_err(|refused| (refused.code(), refused.to_string(), refused.retry_after()))
    }

    async fn refresh(&self, argument: Option<&RawValue>) -> Result<(), Refused> {
        // A list would do for a struct as well.
        let argument = argument.filter(|raw| raw.get().starts_with('{'));
        let Some(Refresh { token }) = argument.and_then(|raw| serde_json::from_str(raw.get()).ok()) else {
            return Err(("invalid_argument", "the event takes one argument: { token: \"…\" }".to_owned(), None));
        };
        match self.replace_token(token.expose_secret()).await {
            Ok(()) => Ok(()),
            Err(refused @ RefreshRefused::Token(_)) => Err(("invalid_token", refused.to_string(), None)),
            Err(refused @ RefreshRefused::OtherUser) => Err(("wrong_user", refused.to_string(), None)),
        }
    }

    /// The device's identity. `None`: it has left.
    fn identity(&self) -> Option<Arc<Identity>> {
        self.device.connection(self.id, |admitted| admitted.identity.clone())
    }

    /// Replaces the token, and the rooms that it gives.
    async fn replace_token(&self, token: &str) -> Result<(), RefreshRefused> {
        // Events of one device are handled one at a time, so the identity is not replaced in between.
        let Some(old) = self.identity() else {
            return Ok(());
        };
        let commands = &self.device.edge.deps.commands;
        let new = Arc::new(commands.refresh_token(&self.admission, &old, Some(token)).await?);
        drop(self.device.connection(self.id, |admitted| std::mem::replace(&mut admitted.identity, new)));
        self.device.watch_token(&self.session);
        Ok(())
    }
}

/// The beginning of a name that a stranger chose, for the log.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(64)]
}
