//! The audit log's lines: who asked for what, and what became of it. No line holds a payload, a token or a key.

use std::{fmt::Display, net::IpAddr};

use tracing::{Metadata, field};

use crate::clock::Clock;

const TARGET: &str = "bugle::audit";

macro_rules! line {
    ($kind:literal, $($field:tt)*) => {
        tracing::info!(target: TARGET, time = %now(), kind = $kind, $($field)*)
    };
}

/// Whether this is a line of the audit log, and of no other.
pub(super) fn is_line(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

/// What became of an emit.
pub struct EmitOutcome<'a> {
    /// The emit's id.
    pub message_id: &'a dyn Display,
    /// Connections that it was for.
    pub matched: u64,
    /// Those whose queue took it.
    pub enqueued: u64,
    /// Those whose queue did not.
    pub dropped: u64,
    /// It was sent before.
    pub duplicate: bool,
    /// It is held back by its collapse key.
    pub deferred: bool,
}

/// What a backend asked for and did not get.
#[derive(Default)]
pub struct RefusedCall<'a> {
    /// The name of its API key, if it has a known one.
    pub api_key: Option<&'a str>,
    /// What was called; none: one emit of several.
    pub method: Option<&'a str>,
    /// Whom it is about, if that is known.
    pub audience: Option<&'a dyn Display>,
    /// The event that was to be sent.
    pub event: Option<&'a str>,
    /// The code that it was answered with.
    pub code: &'a str,
    /// The message that it was answered with.
    pub reason: &'a str,
}

fn now() -> String {
    format!("{:.3}", Clock::system().now())
}

/// An event was sent.
pub fn emitted(api_key: &str, audience: &dyn Display, event: &str, sent: &EmitOutcome<'_>) {
    let EmitOutcome { message_id, matched, enqueued, dropped, duplicate, deferred } = sent;
    line!(
        "emit",
        api_key,
        audience = %audience,
        event,
        message_id = %message_id,
        matched,
        enqueued,
        dropped,
        duplicate,
        deferred
    );
}

/// A backend was refused.
pub fn refused(refused: &RefusedCall<'_>) {
    let RefusedCall { api_key, method, audience, event, code, reason } = *refused;
    line!("refusal", api_key, method, audience = audience.map(field::display), event, code, reason);
}

/// A backend closed a user's connections; each of them has a line of its own.
pub fn user_disconnected(api_key: &str, audience: &dyn Display, reason: &str, disconnected: usize) {
    line!("disconnect_user", api_key, audience = %audience, reason, disconnected);
}

/// A backend sent a direct message.
pub fn message_sent(
    api_key: &str,
    (sender, receiver): (&dyn Display, &dyn Display),
    message_id: &dyn Display,
    duplicate: bool,
) {
    line!("message", api_key, sender = %sender, receiver = %receiver, message_id = %message_id, duplicate);
}

/// A backend deleted a direct message of its sender.
pub fn message_deleted(api_key: &str, sender: &dyn Display, message_id: &dyn Display) {
    line!("delete_message", api_key, sender = %sender, message_id = %message_id);
}

/// A backend deleted what is stored of a user: so many direct messages, and so many others.
pub fn user_erased(api_key: &str, user: &dyn Display, deleted: u64, mailbox_deleted: u64) {
    line!("erase_user", api_key, user = %user, deleted, mailbox_deleted);
}

/// A connection ended.
pub fn disconnected(user: &dyn Display, connection_id: &dyn Display, code: &str, reason: &str) {
    line!("disconnect", user = %user, connection_id = %connection_id, code, reason);
}

/// A device was not let in.
pub fn device_refused(edge: &str, address: Option<IpAddr>, reason: &str) {
    line!("refusal", edge, address = address.map(field::display), reason);
}

/// A device may not do what its event asks for. `event`: its name, if it is one of ours.
pub fn client_event_refused(user: &dyn Display, connection_id: &dyn Display, event: Option<&str>, code: &str) {
    line!("refusal", user = %user, connection_id = %connection_id, event, code);
}
