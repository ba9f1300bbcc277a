use serde::{Deserialize, Serialize};

use super::Commands;
use crate::message::{Emit, EventName, EventPattern};

/// An entry of `[[envelopes]]`: events that are wrapped as `options.envelope` asks for, no matter which backend sends them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeConfig {
    /// Names, or what names begin with and a `*`.
    pub events: Vec<EventPattern>,
}

impl Commands {
    /// Asks for the envelope that the configuration wants for this event.
    pub(in crate::command) fn wrap_as_configured(&self, emit: &mut Emit) {
        emit.envelope |= self.is_wrapped(&emit.event);
    }

    /// Whether the configuration wants this event to be wrapped.
    pub(in crate::command) fn is_wrapped(&self, event: &EventName) -> bool {
        self.envelopes.iter().any(|pattern| pattern.matches(event))
    }
}
