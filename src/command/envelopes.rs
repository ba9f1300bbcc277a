use serde::{Deserialize, Serialize};

use super::{Commands, Violation};
use crate::message::{Emit, EventPattern, Payload};

/// An entry of `[[envelopes]]`: events that are wrapped as `options.envelope` asks for, whoever emits them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeConfig {
    /// Names, or what names begin with and a `*`.
    pub events: Vec<EventPattern>,
}

impl Commands {
    /// Asks for the envelope that the configuration wants for this event.
    pub(super) fn wrap_as_configured(&self, emit: &mut Emit) -> Result<(), Violation> {
        if !self.envelopes.iter().any(|pattern| pattern.matches(&emit.event)) {
            return Ok(());
        }
        if matches!(emit.payload, Payload::Binary(_)) {
            let description = format!(
                "cannot be wrapped, and [[envelopes]] in the configuration wraps the event `{}`: send JSON, or another event",
                emit.event
            );
            return Err(Violation::new("binary", description));
        }
        emit.envelope = true;
        Ok(())
    }
}
