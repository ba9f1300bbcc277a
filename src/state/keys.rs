//! Names and numbers for the engine.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::Cmd;
use sha2::{Digest, Sha256};

use crate::cluster::{BusError, Engine, Shards};
use crate::message::{EventName, RoomName};

/// How much one sweep removes at one engine.
pub(super) const SWEEP_STEP: usize = 1_000;

/// A name for several texts together: a digest in hexadecimal digits. Each part is preceded by its length, so that none runs into the next.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |index: u8| char::from(DIGITS[usize::from(index)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A time in milliseconds, at least one.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(MAX_MILLIS).clamp(1, MAX_MILLIS)
}

/// A thousand years: the sum with the time of day is still exact in the engine.
const MAX_MILLIS: u64 = 1_000 * 366 * 86_400 * 1_000;

/// What an engine's `TIME` answered, in milliseconds.
pub(super) fn time_ms((seconds, micros): (u64, u64)) -> u64 {
    seconds * 1_000 + micros / 1_000
}

/// Which engine has everything of a room.
pub(super) fn shard_of(shards: &Shards, room: &RoomName) -> usize {
    let engine = shards.of(room);
    shards.all().iter().position(|other| std::ptr::eq(engine, other)).unwrap_or_default()
}

/// One engine's part of a limit.
pub(super) fn share(limit: usize, shards: &Shards) -> usize {
    limit.div_ceil(shards.all().len())
}

/// Runs a function that removes some of what is over, and returns how much, at each engine. True if more may be left.
pub(super) async fn sweep(shards: &Shards, call: impl Fn(&Engine) -> Cmd) -> Result<bool, BusError> {
    let calls: Vec<_> = shards.all().iter().map(|engine| (engine, call(engine))).collect();
    let swept = try_join_all(calls.iter().map(|(engine, call)| engine.run::<usize>(call))).await?;
    Ok(swept.into_iter().any(|count| count >= SWEEP_STEP))
}

/// The key of the emits of an event to a room that wait for the ends of collapse windows.
pub(super) fn topic(engine: &Engine, room: &RoomName, event: &EventName) -> String {
    engine.name("c", &digest(&[room.as_str(), event.as_str()]))
}

/// The keys of a room's history: the messages, where the room stands, and those of [`histories`].
pub(super) fn history(engine: &Engine, room: &RoomName) -> [String; 6] {
    let own = ["{", room.as_str(), "}"].concat();
    let [ends, talking, silent, sums] = histories(engine);
    [engine.name("h", &own), engine.name("m", &own), ends, talking, silent, sums]
}

/// The keys of all histories: the rooms with messages by when the last one is too old, the same by when it came, the rooms whose messages are all
/// gone, and the sums.
pub(super) fn histories(engine: &Engine) -> [String; 4] {
    ["ends", "talking", "silent", "sums"].map(|kind| engine.name(kind, "h"))
}

/// The key of the sums of all emits that wait so.
pub(super) fn sums(engine: &Engine) -> String {
    engine.name("sums", "c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_name_do_not_run_into_each_other() {
        assert_ne!(digest(&["a", "bc"]), digest(&["ab", "c"]));
        assert_eq!(hex(&[0, 0x1F, 0xA0]), "001fa0");
    }
}
