//! What emits carry.

use bugle::bench::EVENT;

/// A payload as an application sends them, of about a hundred bytes.
pub fn ordinary(number: usize) -> String {
    format!(
        r#"{{"walletId":"w-{number:08}","balance":"100.50","currency":"EUR","reason":"bid.settled","at":"2026-01-31T09:30:00.000Z"}}"#
    )
}

/// The one argument of an [`EVENT`], out of the packet's array.
pub fn argument(event: &[u8]) -> Option<&str> {
    let argument =
        event.strip_prefix(b"[\"")?.strip_prefix(EVENT.as_bytes())?.strip_prefix(b"\",")?.strip_suffix(b"]")?;
    std::str::from_utf8(argument).ok()
}
