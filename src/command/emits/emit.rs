use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Commands, Error, Violation};
use crate::auth::Caller;
use crate::delivery::{BusError, EmitError, IdempotencyKey, PendingAcks, Place, Publishing};
use crate::limits::{Rate, TooFast};
use crate::message::{Audience, AudienceKind, Emit, EventName, Invalid, Payload, Receipt};
use crate::telemetry;

/// An emit, and how to make its repetition harmless.
#[derive(Clone, Debug)]
pub struct EmitRequest {
    /// What to send to whom.
    pub emit: Emit,
    /// The idempotency key.
    pub idempotency_key: Option<Arc<str>>,
    /// When it was asked for.
    pub received: Instant,
}

/// The longest idempotency or collapse key, in bytes.
const MAX_KEY: usize = 256;

impl EmitRequest {
    /// Checks an idempotency or collapse key; empty: none.
    pub fn key(text: &str) -> Result<Option<Arc<str>>, Invalid> {
        if text.len() > MAX_KEY {
            return Err(Invalid::new(format!("has {} bytes: at most {MAX_KEY} are allowed", text.len())));
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

/// A working store writes its queue in less time.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Values are retained until they are taken away, so there is no better time to name.
const RETAINED_RETRY: Duration = Duration::from_mins(1);

/// What became of an emit: its receipt, and the acknowledgements that are still awaited, if it asked for any.
pub(super) type Emitted = Result<(Receipt, Option<PendingAcks>), Error>;

impl Commands {
    /// Sends an event.
    pub async fn emit(&self, caller: &Caller, request: EmitRequest) -> Result<Receipt, Error> {
        completed(self.begin_emit(caller, request).done().await).await
    }

    /// Begins to send an event: most are published by this call. The others run to completion even if the future is dropped.
    pub(super) fn begin_emit(&self, caller: &Caller, mut request: EmitRequest) -> Publishing<Emitted> {
        self.wrap_as_configured(&mut request.emit);
        let key = idempotency_key(caller, &request);
        let counted = self.count_emits(caller, 1);
        self.begin_counted(caller, request, key, counted)
    }

    /// The same for an event that was wrapped, and counted towards the rate of its API key.
    pub(super) fn begin_counted(
        &self,
        caller: &Caller,
        request: EmitRequest,
        key: Option<IdempotencyKey>,
        counted: Result<(), Error>,
    ) -> Publishing<Emitted> {
        let EmitRequest { emit, received, .. } = request;
        let audit =
            EmitAudit { api_key: caller.name.clone(), audience: emit.audience.clone(), event: emit.event.clone() };
        let checked = counted.and_then(|()| caller.may_emit_to(&emit.audience).map_err(Error::from));
        if let Err(error) = checked.and_then(|()| self.check(&emit)) {
            return Publishing::Done(audit.noted(Err(error)));
        }
        match self.delivery.publish(&caller.name, emit, key, received) {
            Publishing::Done(published) => Publishing::Done(audit.noted(published.map_err(refusal))),
            Publishing::Pending(place, publishing) => {
                let finishing = async move { audit.noted(publishing.await.map_err(refusal)) };
                let finishing: BoxFuture<'static, Emitted> = match place {
                    // It is published, and only its answers are awaited.
                    Place::Channel => Box::pin(self.lifecycle.complete(Box::pin(finishing))),
                    Place::Lane | Place::Unplaced => Box::pin(self.lifecycle.detach(finishing)),
                };
                Publishing::Pending(place, finishing)
            }
        }
    }

    /// Sends an event of a device, which is neither counted nor refused.
    pub(in crate::command) async fn relay_emit(&self, emit: Emit) {
        if let Publishing::Pending(_, publishing) = self.delivery.publish(&self.devices, emit, None, Instant::now()) {
            // Refused is only what is to be kept, collapsed or sent once.
            let _ = self.lifecycle.detach(publishing).await;
        }
    }

    /// Counts so many emits towards the rate of the caller's API key: all or none.
    pub(in crate::command) fn count_emits(&self, caller: &Caller, count: u32) -> Result<(), Error> {
        let Rate { per_second, burst } = self.emits.rate();
        match self.emits.take_all(&caller.name, count) {
            Some(Ok(())) => Ok(()),
            Some(Err(TooFast { retry_after })) => Err(Error::ResourceExhausted {
                message: format!(
                    "limits.emits_per_api_key is met by the API key `{}`: {per_second} per second, {burst} at once",
                    caller.name
                ),
                retry_after,
            }),
            None => {
                let description = format!(
                    "has {count} entries: limits.emits_per_api_key lets the API key `{}` send {burst} at once",
                    caller.name
                );
                Err(Error::invalid("user_ids", description))
            }
        }
    }

    /// Whether an event would be sent, as far as can be told before and without its idempotency key.
    pub(super) fn check_for(&self, caller: &Caller, emit: &Emit) -> Result<(), Error> {
        caller.may_emit_to(&emit.audience)?;
        self.check(emit)
    }

    fn check(&self, emit: &Emit) -> Result<(), Error> {
        self.check_payload(emit)?;
        let keeps_history = self.delivery.has_history(emit.audience.room());
        if emit.store && !self.delivery.can_store() {
            return Err(Error::FailedPrecondition(
                "options.store: nothing is stored here, since store.url is empty".into(),
            ));
        }
        let problem = match () {
            () if emit.store && emit.audience.kind() == AudienceKind::Everyone => {
                Some(("options.store", "is for a user or a room: everyone has no mailbox"))
            }
            () if emit.store && keeps_history => Some((
                "options.store",
                "is not for a room with a history ([[rooms]] in the configuration): its messages are kept there already",
            )),
            () if emit.store && emit.collapse_key.is_some() => {
                Some(("options.collapse_key", "cannot go with `store`: what is stored is not thinned out"))
            }
            () if emit.store && emit.volatile => {
                Some(("options.volatile", "cannot go with `store`: what is stored is not to be lost"))
            }
            () if (emit.store || keeps_history) && !emit.except.rooms.is_empty() => Some((
                "options.except_rooms",
                "cannot go with a message that is kept: who will be in those rooms when it is read is not known",
            )),
            () => None,
        };
        problem.map_or(Ok(()), |(field, description)| Err(Error::invalid(field, description)))
    }

    fn check_payload(&self, emit: &Emit) -> Result<(), Violation> {
        let (size, max) = (emit.payload.len(), self.max_payload);
        if size > max {
            let description = format!("has {size} bytes: at most {max} are allowed (limits.max_payload)");
            return Err(Violation::new("payload", description));
        }
        if !emit.envelope || !matches!(emit.payload, Payload::Binary(_)) {
            return Ok(());
        }
        if self.is_wrapped(&emit.event) {
            let description = format!(
                "cannot be wrapped, and [[envelopes]] in the configuration wraps the event `{}`: send JSON, or another event",
                emit.event
            );
            return Err(Violation::new("binary", description));
        }
        Err(Violation::new("options.envelope", "wraps JSON: it cannot hold `binary`"))
    }
}

/// What the audit log and the metrics say of an emit, once it came to its end.
struct EmitAudit {
    api_key: Arc<str>,
    audience: Audience,
    event: EventName,
}

impl EmitAudit {
    fn noted(self, emitted: Emitted) -> Emitted {
        let outcome = match &emitted {
            Ok((receipt, _)) if receipt.duplicate => "duplicate",
            Ok(_) => "sent",
            Err(_) => "refused",
        };
        telemetry::emitted(self.audience.kind().as_str(), outcome);
        match &emitted {
            Ok((receipt, _)) => {
                telemetry::audit::emitted(&self.api_key, &self.audience, self.event.as_str(), &sent(receipt));
            }
            Err(error) => audit_refusal(&self.api_key, Some(&self.audience), Some(&self.event), error),
        }
        emitted
    }
}

/// Waits for the acknowledgements of an emit, if any are awaited.
pub(super) async fn completed(emitted: Emitted) -> Result<Receipt, Error> {
    match emitted? {
        (receipt, None) => Ok(receipt),
        // Few emits ask for acknowledgements, and the others need not make room for their state.
        (receipt, Some(acks)) => Ok(Box::pin(acks.complete(receipt)).await),
    }
}

fn sent(receipt: &Receipt) -> telemetry::audit::EmitOutcome<'_> {
    telemetry::audit::EmitOutcome {
        message_id: &receipt.message_id,
        matched: receipt.matched,
        enqueued: receipt.enqueued,
        dropped: receipt.dropped,
        duplicate: receipt.duplicate,
        deferred: receipt.deferred,
    }
}

/// Puts what was refused into the audit log, with what is known of it.
pub(in crate::command) fn audit_refusal(
    api_key: &str,
    audience: Option<&Audience>,
    event: Option<&EventName>,
    error: &Error,
) {
    telemetry::audit::refused(&telemetry::audit::RefusedCall {
        api_key: Some(api_key),
        audience: audience.map(|audience| audience as _),
        event: event.map(EventName::as_str),
        code: error.code(),
        reason: &error.to_string(),
        ..telemetry::audit::RefusedCall::default()
    });
}

pub(super) fn idempotency_key(caller: &Caller, request: &EmitRequest) -> Option<IdempotencyKey> {
    request.idempotency_key.clone().map(|key| IdempotencyKey::new(caller.name.clone(), key, &request.emit))
}

pub(in crate::command) fn refusal(error: EmitError) -> Error {
    match error {
        EmitError::KeyReused => key_reused(),
        EmitError::RetainedFull => Error::ResourceExhausted {
            message: "retain.max_entries is met: take values away by retaining no payload, or keep more".into(),
            retry_after: RETAINED_RETRY,
        },
        EmitError::RetainedRoomFull => Error::ResourceExhausted {
            message: "retain.max_room_bytes is met: take values of this room away by retaining no payload, or retain \
                      smaller ones"
                .into(),
            retry_after: RETAINED_RETRY,
        },
        EmitError::StoreUnavailable => Error::Unavailable(
            "the store cannot be reached, and this emit was not sent. It may be kept all the same: send it again, with the same \
             options.idempotency_key to have it once"
                .into(),
        ),
        EmitError::MailboxDamaged => Error::Unavailable(
            "the mailbox of this audience is damaged, so that nothing can be stored there: this emit was neither kept nor sent. Send it \
             without options.store to reach connected devices; the log tells the operator what to repair"
                .into(),
        ),
        EmitError::DirectRefused(_) => Error::PermissionDenied(error.to_string()),
        EmitError::StoreBusy => Error::ResourceExhausted {
            message: "too much waits for the store, which writes more slowly than emits come: send stored emits more slowly"
                .into(),
            retry_after: STORE_RETRY,
        },
        EmitError::FirstRuns => Error::Unavailable(
            "another call with this options.idempotency_key still runs, or was cut off: send this one again for its receipt".into(),
        ),
        EmitError::Bus(BusError::Away) => Error::Unavailable(
            "the engine between the nodes (cluster.redis) cannot be reached: nothing was sent, and it can be sent again".into(),
        ),
        EmitError::Bus(error @ BusError::Full) => Error::full(error),
        EmitError::Bus(error @ (BusError::Unanswered | BusError::Refused)) => Error::Unavailable(format!(
            "{error}: this emit may have been sent. Send it again, with the same options.idempotency_key to have it once"
        )),
        EmitError::CollapseFull { retry_after } => Error::ResourceExhausted {
            message: "more keys than collapse.max_keys, or more than 64 MiB of emits, are collapsed at one time".into(),
            retry_after,
        },
    }
}

pub(super) fn key_reused() -> Error {
    Error::invalid(
        "options.idempotency_key",
        "was used for another request to this audience within 5 minutes: choose a new one",
    )
}
