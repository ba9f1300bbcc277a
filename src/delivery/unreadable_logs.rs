//! Logs that cannot be read: how often a read is repeated, and what is logged of it.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::message::RoomName;
use crate::store::{self, Store};

/// Rooms whose logs could not be read or written, and when that was logged: each is logged once, whatever the number of devices that catch up there and of
/// emits to it.
#[derive(Default)]
pub(super) struct UnreadableLogs(Mutex<HashMap<RoomName, Instant>>);

/// Rooms that are remembered.
const MAX_ROOMS: usize = 1_000;
/// A log that is still unreadable is logged again after this time.
const LOGGED_AGAIN_AFTER: Duration = Duration::from_hours(24);

/// The reads of one log that have failed, one after the other, while the store counted as reachable.
#[derive(Default)]
pub(super) struct FailedReads(u32);

/// So many such reads fail before the log counts as unreadable.
const MAX_FAILED_READS: u32 = 5;
/// The time to the second read; it doubles from one to the next.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl UnreadableLogs {
    /// Logs that a room's log cannot be read, once.
    pub(super) fn note(&self, room: &RoomName, error: &store::Error) {
        let what = "the stored messages of a room cannot be read: its devices are told that they have missed some (check the database)";
        self.log(room, error, what);
    }

    /// Logs that nothing can be stored in a room's log, once.
    pub(super) fn note_unwritten(&self, room: &RoomName, error: &store::Error) {
        let what = "nothing can be stored for a room, since its mailbox is damaged: stored emits to it are refused (check the database)";
        self.log(room, error, what);
    }

    fn log(&self, room: &RoomName, error: &store::Error, what: &str) {
        if self.is_to_be_logged(room) {
            tracing::error!(%error, error.cause = error.cause(), room.name = %room, "{what}");
        }
    }

    fn is_to_be_logged(&self, room: &RoomName) -> bool {
        let (mut rooms, now) = (self.0.lock(), Instant::now());
        let is_recent = |logged: &Instant| now.duration_since(*logged) < LOGGED_AGAIN_AFTER;
        if rooms.get(room).is_some_and(is_recent) {
            return false;
        }
        if rooms.len() >= MAX_ROOMS {
            rooms.retain(|_, logged| is_recent(logged));
        }
        if rooms.len() >= MAX_ROOMS {
            // Rather logged twice than not at all.
            rooms.clear();
        }
        rooms.insert(room.clone(), now);
        true
    }
}

impl FailedReads {
    /// Notes a failed read. True: the log counts as unreadable, as its data is damaged or as reads have failed often.
    pub(super) fn is_final(&mut self, error: &store::Error) -> bool {
        match error {
            store::Error::Damaged(_) | store::Error::Broken(_) => return true,
            store::Error::Unreachable => self.0 = 0,
            store::Error::Unavailable(_)
            | store::Error::Refused(_)
            | store::Error::Url
            | store::Error::NotShared
            | store::Error::Closed => {
                self.0 += 1;
            }
        }
        self.0 >= MAX_FAILED_READS
    }

    /// Waits until the log is to be read again: until the store can be reached, and no sooner than [`READ_AGAIN`] after the failed read. Cancel
    /// safe; it is cancelled when the connection ends.
    pub(super) async fn wait(&mut self, store: &Store) {
        sleep(READ_AGAIN * (1 << self.0.saturating_sub(1))).await;
        if !store.watch_status().borrow_and_update().can_read() {
            self.0 = 0;
        }
        store.reached().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(number: usize) -> RoomName {
        RoomName::new(&format!("r:{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_is_logged_once_a_day_and_few_are_remembered() {
        let logs = UnreadableLogs::default();
        assert!(logs.is_to_be_logged(&room(1)) && logs.is_to_be_logged(&room(2)));
        assert!(!logs.is_to_be_logged(&room(1)) && !logs.is_to_be_logged(&room(2)));
        tokio::time::advance(LOGGED_AGAIN_AFTER).await;
        assert!(logs.is_to_be_logged(&room(1)) && !logs.is_to_be_logged(&room(1)));
        for number in 0..3 * MAX_ROOMS {
            logs.is_to_be_logged(&room(number));
            assert!(logs.0.lock().len() <= MAX_ROOMS);
        }
    }

    #[test]
    fn damage_is_final_at_once_and_other_failures_when_they_are_repeated_while_the_store_is_reachable() {
        let mut failed = FailedReads::default();
        assert!(failed.is_final(&store::Error::Broken("x")));
        for _ in 0..2 {
            for _ in 1..MAX_FAILED_READS {
                assert!(!failed.is_final(&store::Error::Closed));
            }
            assert!(!failed.is_final(&store::Error::Unreachable), "that was the store's fault");
        }
        for count in 1..=MAX_FAILED_READS {
            assert_eq!(failed.is_final(&store::Error::Closed), count == MAX_FAILED_READS);
        }
    }
}
