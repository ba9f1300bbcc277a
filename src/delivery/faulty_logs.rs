//! Logs that cannot be read or written: how often a read is repeated, and what is logged of it.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::message::RoomName;
use crate::store::{self, Store};

/// Rooms whose logs could not be read or written, and when that was logged: each is logged once, whatever the number of devices that catch up there and of
/// emits to it.
#[derive(Default)]
pub(super) struct FaultyLogs(Mutex<HashMap<(RoomName, Fault), Instant>>);

/// What cannot be done with a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    Read,
    Append,
}

/// Faults that are remembered.
const MAX_FAULTS: usize = 1_000;
/// One that is still there is logged again after this time.
const LOGGED_AGAIN_AFTER: Duration = Duration::from_hours(24);

/// The reads of one log that have failed, one after the other, while the store counted as reachable.
#[derive(Default)]
pub(super) struct FailedReads(u32);

/// So many such reads fail before the log counts as unreadable.
const MAX_FAILED_READS: u32 = 5;
/// The time to the second read; it doubles from one to the next.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl FaultyLogs {
    /// Logs that a room's log cannot be read, once.
    pub(super) fn note(&self, room: &RoomName, error: &store::Error) {
        let what = "the stored messages of a room cannot be read: its devices are told that they have missed some (check the database)";
        self.log(room, Fault::Read, error, what);
    }

    /// Logs that nothing can be stored in a room's log, once.
    pub(super) fn note_unwritten(&self, room: &RoomName, error: &store::Error) {
        let what = "nothing can be stored for a room, since its mailbox is damaged: stored emits to it are refused (check the database)";
        self.log(room, Fault::Append, error, what);
    }

    fn log(&self, room: &RoomName, fault: Fault, error: &store::Error, what: &str) {
        if self.is_to_be_logged(room, fault) {
            tracing::error!(%error, error.cause = error.cause(), room.name = %room, "{what}");
        }
    }

    fn is_to_be_logged(&self, room: &RoomName, fault: Fault) -> bool {
        let (mut faults, now) = (self.0.lock(), Instant::now());
        let is_recent = |logged: &Instant| now.duration_since(*logged) < LOGGED_AGAIN_AFTER;
        let key = (room.clone(), fault);
        if faults.get(&key).is_some_and(is_recent) {
            return false;
        }
        if faults.len() >= MAX_FAULTS {
            faults.retain(|_, logged| is_recent(logged));
        }
        if faults.len() >= MAX_FAULTS {
            // Rather logged twice than not at all.
            faults.clear();
        }
        faults.insert(key, now);
        true
    }
}

impl FailedReads {
    /// Notes a failed read. True: the log counts as unreadable, as its data is damaged or as reads have failed often.
    pub(super) fn is_final(&mut self, error: &store::Error) -> bool {
        match error {
            store::Error::Damaged(_) | store::Error::Violated(_) | store::Error::Broken(_) => return true,
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
    async fn each_fault_of_a_room_is_logged_once_a_day_and_few_are_remembered() {
        let logs = FaultyLogs::default();
        let is_logged = |number| logs.is_to_be_logged(&room(number), Fault::Read);
        assert!(is_logged(1) && is_logged(2) && logs.is_to_be_logged(&room(1), Fault::Append));
        assert!(!is_logged(1) && !is_logged(2) && !logs.is_to_be_logged(&room(1), Fault::Append));
        tokio::time::advance(LOGGED_AGAIN_AFTER).await;
        assert!(is_logged(1) && !is_logged(1));
        for number in 0..3 * MAX_FAULTS {
            is_logged(number);
            assert!(logs.0.lock().len() <= MAX_FAULTS);
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
