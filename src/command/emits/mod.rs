//! Emits: one, to several users, in a batch, in a stream.

mod emit;
pub use emit::EmitRequest;
pub(super) use emit::{audit_refusal, refusal};

mod envelopes;
pub use envelopes::EnvelopeConfig;

mod sequencer;

mod to_users;
pub use to_users::EmitToUsers;

mod batch;

mod stream;
pub use stream::{Answer, EmitStream};

use super::{Commands, Error, Violation};

#[cfg(test)]
mod tests;
