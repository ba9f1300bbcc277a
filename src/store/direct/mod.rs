//! Direct messages: what one user writes to another. A message is a row of `direct_messages`, and an entry in the mailboxes of both users, so that
//! their devices get it when they come back. `conversations` has two rows for each pair of users, one for each side. The three are written in one
//! transaction.
//!
//! The tables are there only if `[messages]` is enabled, see `tables.rs`.

mod tables;
pub(super) use tables::ensure;

mod new;
pub use new::{DirectRefusal, NewDirect, Render};

mod rules;
pub use rules::Rule;
pub(super) use rules::refused;

mod write;
pub(super) use write::write;

mod read;
pub use read::{Before, Conversation, DirectPage, Of, Sides};

mod reading;
pub use reading::ReadOutcome;

mod deletion;

mod retention;
pub use retention::DirectRetention;

#[cfg(test)]
mod plans;
