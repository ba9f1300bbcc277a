use std::{fmt::Display, sync::Arc};

use tokio::time::Instant;

use super::{Commands, Error, Violation};
use crate::auth::Caller;
use crate::delivery::{KeyReused, Once};
use crate::limits::{Rate, TooFast};
use crate::message::{Audience, Emit, EventName, Payload, Receipt};
use crate::telemetry::{self, audit};

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

impl Commands {
    /// Sends an event.
    pub async fn emit(&self, caller: &Caller, request: EmitRequest) -> Result<Receipt, Error> {
        let counted = self.count_emits(caller, 1);
        self.emit_counted(caller, request, counted).await
    }

    /// Sends an event that counted, or did not count, towards the rate of its API key.
    pub(super) async fn emit_counted(
        &self,
        caller: &Caller,
        request: EmitRequest,
        counted: Result<(), Error>,
    ) -> Result<Receipt, Error> {
        let (audience, event) = (request.emit.audience.clone(), request.emit.event.clone());
        let result = match counted {
            Ok(()) => self.emit_checked(caller, request).await,
            Err(error) => Err(error),
        };
        let outcome = match &result {
            Ok(receipt) if receipt.duplicate => "duplicate",
            Ok(_) => "sent",
            Err(_) => "refused",
        };
        telemetry::emitted(audience.kind(), outcome);
        match &result {
            Ok(receipt) => audit::emitted(&caller.name, &audience, event.as_str(), &sent(receipt)),
            Err(error) => refused(caller, Some(&audience), Some(&event), error),
        }
        result
    }

    async fn emit_checked(&self, caller: &Caller, mut request: EmitRequest) -> Result<Receipt, Error> {
        caller.may_emit_to(&request.emit.audience)?;
        self.check(&mut request.emit)?;
        let once = once(caller, &request);
        let sent = self.delivery.emit(request.emit, once, request.received).await;
        sent.map_err(|KeyReused| key_reused())
    }

    /// Counts so many emits towards the rate of the caller's API key: all or none.
    pub(super) fn count_emits(&self, caller: &Caller, count: u32) -> Result<(), Error> {
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

    /// Whether the emit would be sent, as far as can be told before.
    pub(super) fn check_request(&self, caller: &Caller, request: &mut EmitRequest) -> Result<(), Error> {
        caller.may_emit_to(&request.emit.audience)?;
        self.check(&mut request.emit)?;
        match once(caller, request) {
            Some(once) if self.delivery.is_reused(&request.emit, &once) => Err(key_reused()),
            Some(_) | None => Ok(()),
        }
    }

    fn check(&self, emit: &mut Emit) -> Result<(), Violation> {
        let (size, most) = (emit.payload.len(), self.max_payload);
        if size > most {
            let description = format!("has {size} bytes: at most {most} are allowed (limits.max_payload)");
            return Err(Violation::new("payload", description));
        }
        if emit.envelope && matches!(emit.payload, Payload::Binary(_)) {
            return Err(Violation::new("options.envelope", "wraps JSON: it cannot hold `binary`"));
        }
        self.wrap_as_configured(emit)
    }
}

fn sent(receipt: &Receipt) -> audit::Sent<'_> {
    audit::Sent {
        message_id: &receipt.message_id,
        matched: receipt.matched,
        enqueued: receipt.enqueued,
        dropped: receipt.dropped,
        duplicate: receipt.duplicate,
    }
}

/// Puts what was refused into the audit log, with what is known of it.
pub(super) fn refused(caller: &Caller, audience: Option<&Audience>, event: Option<&EventName>, error: &Error) {
    audit::refused(&audit::Refused {
        api_key: Some(&caller.name),
        audience: audience.map(|audience| audience as &dyn Display),
        event: event.map(EventName::as_str),
        code: error.code(),
        reason: &error.to_string(),
        ..audit::Refused::default()
    });
}

fn once(caller: &Caller, request: &EmitRequest) -> Option<Once> {
    request.idempotency_key.clone().map(|key| Once { caller: caller.name.clone(), key })
}

fn key_reused() -> Error {
    Error::invalid(
        "options.idempotency_key",
        "was used for another request to this audience within 5 minutes: choose a new one",
    )
}
