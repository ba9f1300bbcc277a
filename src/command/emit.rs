use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Commands, Error, Violation};
use crate::auth::Caller;
use crate::delivery::{Once, Refused};
use crate::message::{Audience, Emit, Invalid, Payload, Receipt};
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

/// Values are retained until they are taken away, so there is no better time to name.
const RETAINED_RETRY: Duration = Duration::from_mins(1);

impl Commands {
    /// Sends an event.
    pub async fn emit(&self, caller: &Caller, request: EmitRequest) -> Result<Receipt, Error> {
        let once = once(caller, &request);
        self.emit_once(caller, request, once).await
    }

    /// Sends an event of which the idempotency key was looked at before.
    pub(super) async fn emit_once(
        &self,
        caller: &Caller,
        request: EmitRequest,
        once: Option<Once>,
    ) -> Result<Receipt, Error> {
        let kind = request.emit.audience.kind();
        let result = self.emit_checked(caller, request, once).await;
        let outcome = match &result {
            Ok(receipt) if receipt.duplicate => "duplicate",
            Ok(_) => "sent",
            Err(_) => "refused",
        };
        telemetry::emitted(kind, outcome);
        result
    }

    async fn emit_checked(&self, caller: &Caller, request: EmitRequest, once: Option<Once>) -> Result<Receipt, Error> {
        caller.may_emit_to(&request.emit.audience)?;
        self.check(&request.emit)?;
        let sent = self.delivery.emit(request.emit, once, request.received).await;
        sent.map_err(refusal)
    }

    /// Whether an event would be sent to this audience, as far as can be told before.
    pub(super) fn check_for(
        &self,
        caller: &Caller,
        emit: &Emit,
        audience: &Audience,
        once: Option<&Once>,
    ) -> Result<(), Error> {
        caller.may_emit_to(audience)?;
        self.check(emit)?;
        match once {
            Some(once) if self.delivery.is_reused(audience, once) => Err(key_reused()),
            Some(_) | None => Ok(()),
        }
    }

    fn check(&self, emit: &Emit) -> Result<(), Violation> {
        let (size, most) = (emit.payload.len(), self.max_payload);
        if size > most {
            let description = format!("has {size} bytes: at most {most} are allowed (limits.max_payload)");
            return Err(Violation::new("payload", description));
        }
        if emit.envelope && matches!(emit.payload, Payload::Binary(_)) {
            return Err(Violation::new("options.envelope", "wraps JSON: it cannot hold `binary`"));
        }
        Ok(())
    }
}

pub(super) fn once(caller: &Caller, request: &EmitRequest) -> Option<Once> {
    request.idempotency_key.clone().map(|key| Once::new(caller.name.clone(), key, &request.emit))
}

fn refusal(refused: Refused) -> Error {
    match refused {
        Refused::KeyReused => key_reused(),
        Refused::RetainedFull => Error::ResourceExhausted {
            message: "retain.max_entries is met: take values away by retaining no payload, or keep more".into(),
            retry_after: RETAINED_RETRY,
        },
        Refused::CollapseFull { retry_after } => Error::ResourceExhausted {
            message: "collapse.max_keys is met: too many collapse keys at one time".into(),
            retry_after,
        },
    }
}

fn key_reused() -> Error {
    Error::invalid(
        "options.idempotency_key",
        "was used for another request to this audience within 5 minutes: choose a new one",
    )
}
