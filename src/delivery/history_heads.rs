use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use crate::cluster::Kept;
use crate::message::RoomName;

/// How far the histories of rooms, which several nodes share, were sent to the connections of this one. A room is known from when a connection is about
/// to join it until what is published there does not come any more.
pub(super) struct HistoryHeads {
    rooms: Mutex<HashMap<RoomName, Head>>,
    /// Reads of messages that are under way.
    pub(super) reads: Semaphore,
    refreshed: Mutex<Instant>,
}

/// Rooms of which messages are read at one time: after a gap all may miss some.
const MAX_READS: usize = 16;
/// The sequences of silent rooms end without this.
const REFRESH: Duration = Duration::from_hours(1);

enum Head {
    /// It is read where the room stands.
    Reading {
        readers: usize,
        /// The last message whose frame came meanwhile.
        seen: Option<Kept>,
    },
    At {
        head: Kept,
        /// It stood there when nothing was known of it: no connection missed what is before.
        began: u64,
    },
}

/// Where a message is, seen from where its room stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is sent next.
    Next,
    /// It was sent, or came before all connections that are there.
    Before {
        /// The former.
        is_sent: bool,
    },
    /// Something before it was not sent here, or it is of another sequence.
    Beyond,
}

impl Default for HistoryHeads {
    fn default() -> Self {
        Self { rooms: Mutex::default(), reads: Semaphore::new(MAX_READS), refreshed: Mutex::new(Instant::now()) }
    }
}

impl HistoryHeads {
    pub(super) fn get(&self, room: &RoomName) -> Option<Kept> {
        match self.rooms.lock().get(room) {
            Some(Head::At { head, .. }) => Some(*head),
            Some(Head::Reading { .. }) | None => None,
        }
    }

    /// Whether it is to be read where a room stands: then [`HistoryHeads::read`] or [`HistoryHeads::not_read`] follows. Frames that come meanwhile are
    /// noted.
    pub(super) fn begin_reading(&self, room: &RoomName) -> bool {
        let mut rooms = self.rooms.lock();
        match rooms.entry(room.clone()).or_insert(Head::Reading { readers: 0, seen: None }) {
            Head::Reading { readers, .. } => {
                *readers += 1;
                true
            }
            Head::At { .. } => false,
        }
    }

    /// Notes where a room stood when that was read.
    pub(super) fn read(&self, room: &RoomName, stood: Kept) {
        let mut rooms = self.rooms.lock();
        let seen = match rooms.get(room) {
            Some(Head::Reading { seen, .. }) => *seen,
            // Another was faster; or the room was given up.
            Some(Head::At { .. }) | None => return,
        };
        let seen = seen.filter(|seen| seen.sequence == stood.sequence).map_or(0, |seen| seen.number);
        let head = Kept { number: stood.number.max(seen), ..stood };
        rooms.insert(room.clone(), Head::At { head, began: head.number });
    }

    /// Notes that it could not be read where a room stands.
    pub(super) fn not_read(&self, room: &RoomName) {
        let mut rooms = self.rooms.lock();
        if let Some(Head::Reading { readers, seen }) = rooms.get_mut(room) {
            *readers -= 1;
            if *readers == 0 {
                match *seen {
                    Some(head) => rooms.insert(room.clone(), Head::At { head, began: head.number }),
                    None => rooms.remove(room),
                };
            }
        }
    }

    /// Where a message is whose frame came.
    pub(super) fn place(&self, room: &RoomName, kept: Kept) -> Place {
        let rooms = self.rooms.lock();
        let Some(Head::At { head, began }) = rooms.get(room) else {
            return Place::Next;
        };
        if head.sequence != kept.sequence || kept.number > head.number + 1 {
            Place::Beyond
        } else if kept.number == head.number + 1 {
            Place::Next
        } else {
            Place::Before { is_sent: kept.number > *began }
        }
    }

    /// Notes that a room was sent up to a message. `is_occupied`: a connection is there, maybe one that joined when it could not be read where the
    /// room stands.
    pub(super) fn advance(&self, room: &RoomName, kept: Kept, is_occupied: bool) {
        let mut rooms = self.rooms.lock();
        match rooms.get_mut(room) {
            Some(Head::At { head, .. }) if head.sequence == kept.sequence => head.number = head.number.max(kept.number),
            Some(Head::At { head, began }) => (*head, *began) = (kept, 0),
            Some(Head::Reading { seen, .. }) => *seen = Some(kept),
            None if is_occupied => {
                rooms.insert(room.clone(), Head::At { head: kept, began: kept.number });
            }
            None => {}
        }
    }

    /// Notes that nobody is in a room, which stands there.
    pub(super) fn pass(&self, room: &RoomName, stood: Kept) {
        if let Some(Head::At { head, began }) = self.rooms.lock().get_mut(room)
            && (head.sequence != stood.sequence || head.number < stood.number)
        {
            (*head, *began) = (stood, stood.number);
        }
    }

    /// Forgets a room: what is published there does not come any more.
    pub(super) fn forget(&self, room: &RoomName) {
        self.rooms.lock().remove(room);
    }

    /// All rooms of which it is known how far they were sent, or soon will be.
    pub(super) fn known(&self) -> Vec<RoomName> {
        self.rooms.lock().keys().cloned().collect()
    }

    /// Whether the sequences of the known rooms are to be kept alive now.
    pub(super) fn is_refresh_due(&self) -> bool {
        let mut refreshed = self.refreshed.lock();
        let is_due = refreshed.elapsed() >= REFRESH;
        if is_due {
            *refreshed = Instant::now();
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64, number: u64) -> Kept {
        Kept { sequence, number }
    }

    fn room() -> RoomName {
        RoomName::new("r").unwrap()
    }

    #[test]
    fn frames_that_come_while_the_head_is_read_are_before_it_or_raise_it() {
        for (seen, stood, head) in
            [(None, 5, 5), (Some(at(1, 4)), 5, 5), (Some(at(1, 7)), 5, 7), (Some(at(2, 9)), 5, 5)]
        {
            let heads = HistoryHeads::default();
            assert!(heads.begin_reading(&room()));
            if let Some(seen) = seen {
                assert_eq!(heads.place(&room(), seen), Place::Next);
                heads.advance(&room(), seen, false);
            }
            assert_eq!(heads.get(&room()), None);
            heads.read(&room(), at(1, stood));
            assert_eq!(heads.get(&room()), Some(at(1, head)));
            assert_eq!(heads.place(&room(), at(1, head)), Place::Before { is_sent: false });
            assert_eq!(heads.place(&room(), at(1, head + 1)), Place::Next);
            assert_eq!(heads.place(&room(), at(1, head + 2)), Place::Beyond);
            assert_eq!(heads.place(&room(), at(2, head + 1)), Place::Beyond);
            heads.advance(&room(), at(1, head + 1), true);
            assert_eq!(heads.place(&room(), at(1, head + 1)), Place::Before { is_sent: true });
        }
    }

    #[test]
    fn a_room_that_nobody_is_about_to_join_is_not_known_by_its_frames() {
        let heads = HistoryHeads::default();
        heads.advance(&room(), at(1, 3), false);
        assert!(heads.known().is_empty());
        heads.advance(&room(), at(1, 3), true);
        assert_eq!(heads.known(), [room()]);
        heads.forget(&room());
        assert_eq!(heads.get(&room()), None);
    }

    #[test]
    fn a_read_that_fails_leaves_what_the_frames_said_meanwhile() {
        let heads = HistoryHeads::default();
        assert!(heads.begin_reading(&room()) && heads.begin_reading(&room()));
        heads.not_read(&room());
        heads.advance(&room(), at(1, 3), false);
        heads.not_read(&room());
        assert_eq!(heads.get(&room()), Some(at(1, 3)));
        assert!(!heads.begin_reading(&room()));
        heads.forget(&room());
        assert!(heads.begin_reading(&room()));
        heads.not_read(&room());
        assert!(heads.begin_reading(&room()));
    }
}
