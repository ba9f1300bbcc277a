use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cluster::Kept;
use crate::message::RoomName;

/// How far the histories of rooms, which several nodes share, were sent to the connections of this one. A room is known from when a connection is about
/// to join it until what is published there does not come any more.
pub(super) struct HistoryHeads {
    rooms: Mutex<HashMap<RoomName, Head>>,
    /// Reads of messages that are under way.
    pub(super) reads: Semaphore,
}

/// Rooms of which messages are read at one time: after a gap all may miss some.
const MAX_READS: usize = 16;

enum Head {
    /// So many read where the room stands. The first frame that comes meanwhile tells it, too.
    Reading(usize),
    At {
        head: Kept,
        /// It stood there when nothing was known of it: no connection missed what is before. 0: one was there already, which may have.
        began: u64,
    },
}

impl Head {
    /// Notes the first frame of a room of which it is not known where it stands. Returns where, unless that is known.
    fn note_first(&mut self, first: Kept, is_occupied: bool) -> Option<Kept> {
        let Self::Reading(_) = self else { return None };
        let head = Kept { number: first.number.saturating_sub(1), ..first };
        *self = Self::At { head, began: if is_occupied { 0 } else { head.number } };
        Some(head)
    }
}

/// What came of reading where a room stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadRead {
    /// It was not known until now.
    First,
    /// A frame was faster, or another read, or the room was given up.
    Known,
    /// The frames that came meanwhile are of another sequence.
    Other,
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
    /// Something before it was not sent here, or it is of another sequence, and only the engine knows which one is over.
    Beyond,
}

impl Default for HistoryHeads {
    fn default() -> Self {
        Self { rooms: Mutex::default(), reads: Semaphore::new(MAX_READS) }
    }
}

impl HistoryHeads {
    pub(super) fn get(&self, room: &RoomName) -> Option<Kept> {
        match self.rooms.lock().get(room) {
            Some(Head::At { head, .. }) => Some(*head),
            Some(Head::Reading(_)) | None => None,
        }
    }

    /// Whether it is to be read where a room stands: then [`HistoryHeads::read`] or [`HistoryHeads::not_read`] follows.
    pub(super) fn begin_reading(&self, room: &RoomName) -> bool {
        match self.rooms.lock().entry(room.clone()).or_insert(Head::Reading(0)) {
            Head::Reading(readers) => {
                *readers += 1;
                true
            }
            Head::At { .. } => false,
        }
    }

    /// Notes where a room stood when that was read.
    pub(super) fn read(&self, room: &RoomName, stood: Kept) -> HeadRead {
        match self.rooms.lock().get_mut(room) {
            Some(reading @ Head::Reading(_)) => {
                *reading = Head::At { head: stood, began: stood.number };
                HeadRead::First
            }
            Some(Head::At { head, .. }) if head.sequence != stood.sequence => HeadRead::Other,
            Some(Head::At { .. }) | None => HeadRead::Known,
        }
    }

    /// Notes that a connection may have joined a room before it was known where it stands: what was published between may not have been sent to it.
    pub(super) fn read_after_join(&self, room: &RoomName) {
        if let Some(Head::At { began, .. }) = self.rooms.lock().get_mut(room) {
            *began = 0;
        }
    }

    /// Notes that it could not be read where a room stands.
    pub(super) fn not_read(&self, room: &RoomName) {
        let mut rooms = self.rooms.lock();
        if let Some(Head::Reading(readers)) = rooms.get_mut(room) {
            *readers -= 1;
            if *readers == 0 {
                rooms.remove(room);
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

    /// Notes that a message is sent whose place is [`Place::Next`], or is before the head. `is_occupied`: a connection is there. Returns where the
    /// room stood before, if that was not known until now: connections that are there may have missed what is up to there.
    pub(super) fn advance(&self, room: &RoomName, kept: Kept, is_occupied: bool) -> Option<Kept> {
        self.change(room, is_occupied, |head| {
            let stood = head.note_first(kept, is_occupied);
            if let Head::At { head, .. } = head
                && head.sequence == kept.sequence
            {
                head.number = head.number.max(kept.number);
            }
            stood
        })
    }

    /// Notes a message that is not sent as its frame comes. If it is not known where the room stands, the message is the next one. Returns the same.
    pub(super) fn note_missed(&self, room: &RoomName, kept: Kept, is_occupied: bool) -> Option<Kept> {
        self.change(room, is_occupied, |head| head.note_first(kept, is_occupied))
    }

    fn change(
        &self,
        room: &RoomName,
        is_occupied: bool,
        change: impl FnOnce(&mut Head) -> Option<Kept>,
    ) -> Option<Kept> {
        let mut rooms = self.rooms.lock();
        match rooms.get_mut(room) {
            Some(head) => change(head),
            None if is_occupied => change(rooms.entry(room.clone()).or_insert(Head::Reading(0))),
            None => None,
        }
    }

    /// Has a room go on after a message of the same sequence, or begin another one, though not all before that was sent. False: it does not stand at
    /// `before` any more.
    pub(super) fn skip(&self, room: &RoomName, before: Kept, to: Kept) -> bool {
        match self.rooms.lock().get_mut(room) {
            Some(Head::At { head, began }) if *head == before => {
                if to.sequence != before.sequence {
                    *began = 0;
                }
                *head = to;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Notes that nobody is in a room that has messages up to this one. If it is of another sequence, only the engine knows which one is over.
    pub(super) fn pass(&self, room: &RoomName, stood: Kept) {
        let mut rooms = self.rooms.lock();
        match rooms.get_mut(room) {
            Some(Head::At { head, .. }) if head.sequence != stood.sequence => drop(rooms.remove(room)),
            Some(Head::At { head, began }) if head.number < stood.number => (*head, *began) = (stood, stood.number),
            Some(_) | None => {}
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
    fn a_room_goes_on_from_where_it_was_read_or_from_the_first_frame_if_that_is_sooner() {
        for first in [None, Some(at(1, 6))] {
            let heads = HistoryHeads::default();
            assert!(heads.begin_reading(&room()));
            if let Some(first) = first {
                assert_eq!(heads.place(&room(), first), Place::Next);
                heads.advance(&room(), first, false);
            }
            let read = heads.read(&room(), at(1, if first.is_some() { 8 } else { 6 }));
            assert_eq!(read, if first.is_some() { HeadRead::Known } else { HeadRead::First });
            assert_eq!(heads.get(&room()), Some(at(1, 6)));
            assert_eq!(heads.place(&room(), at(1, 6)), Place::Before { is_sent: first.is_some() });
            assert_eq!(heads.place(&room(), at(1, 5)), Place::Before { is_sent: false });
            assert_eq!(heads.place(&room(), at(1, 7)), Place::Next, "though it was read that the room stands at 8");
            assert_eq!(heads.place(&room(), at(1, 8)), Place::Beyond);
            assert_eq!(heads.place(&room(), at(2, 7)), Place::Beyond);
            heads.advance(&room(), at(1, 7), true);
            assert_eq!(heads.place(&room(), at(1, 7)), Place::Before { is_sent: true });
        }
    }

    #[test]
    fn a_message_without_a_frame_is_missing_from_then_on() {
        let heads = HistoryHeads::default();
        heads.note_missed(&room(), at(1, 4), false);
        assert!(heads.known().is_empty());
        assert!(heads.begin_reading(&room()));
        heads.note_missed(&room(), at(1, 4), false);
        assert_eq!(heads.read(&room(), at(1, 9)), HeadRead::Known);
        heads.note_missed(&room(), at(1, 8), true);
        assert_eq!(heads.get(&room()), Some(at(1, 3)));
        assert_eq!(heads.place(&room(), at(1, 4)), Place::Next);
    }

    #[test]
    fn a_message_may_have_been_for_a_connection_that_joined_before_the_head_was_read() {
        let heads = HistoryHeads::default();
        assert!(heads.begin_reading(&room()));
        assert_eq!(heads.read(&room(), at(1, 5)), HeadRead::First);
        assert_eq!(heads.place(&room(), at(1, 5)), Place::Before { is_sent: false });
        heads.read_after_join(&room());
        assert_eq!(heads.place(&room(), at(1, 5)), Place::Before { is_sent: true });
    }

    #[test]
    fn only_the_first_of_two_reads_tells_where_a_room_stands() {
        let heads = HistoryHeads::default();
        assert!(heads.begin_reading(&room()) && heads.begin_reading(&room()));
        assert_eq!(heads.read(&room(), at(1, 5)), HeadRead::First);
        assert_eq!(heads.read(&room(), at(1, 6)), HeadRead::Known);
        assert_eq!(heads.get(&room()), Some(at(1, 5)));
    }

    #[test]
    fn the_first_frame_of_a_room_tells_where_it_stood_before_when_connections_were_let_in() {
        let heads = HistoryHeads::default();
        assert_eq!(heads.advance(&room(), at(1, 5), true), Some(at(1, 4)));
        assert_eq!(heads.place(&room(), at(1, 3)), Place::Before { is_sent: true });
        assert_eq!(heads.advance(&room(), at(1, 6), true), None);
        heads.forget(&room());
        assert_eq!(heads.note_missed(&room(), at(1, 8), true), Some(at(1, 7)));
        assert_eq!(heads.read(&room(), at(1, 9)), HeadRead::Known);
    }

    #[test]
    fn no_frame_moves_a_room_to_another_sequence() {
        let heads = HistoryHeads::default();
        heads.advance(&room(), at(1, 3), true);
        heads.advance(&room(), at(2, 9), true);
        assert_eq!(heads.get(&room()), Some(at(1, 3)));
        assert!(heads.begin_reading(&RoomName::new("other").unwrap()));
        assert_eq!(
            heads.read(&room(), at(2, 0)),
            HeadRead::Other,
            "it was read sooner than the frame was sent, or later"
        );
        assert!(!heads.skip(&room(), at(1, 2), at(2, 0)) && heads.skip(&room(), at(1, 3), at(2, 0)));
        assert_eq!(heads.place(&room(), at(2, 1)), Place::Next);
        assert_eq!(heads.place(&room(), at(1, 4)), Place::Beyond);
        heads.pass(&room(), at(2, 7));
        assert_eq!(heads.get(&room()), Some(at(2, 7)));
        heads.pass(&room(), at(1, 8));
        assert_eq!(heads.get(&room()), None, "nobody is there, and who comes reads it");
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
    fn a_room_is_read_again_unless_a_frame_has_told_where_it_stands() {
        let heads = HistoryHeads::default();
        assert!(heads.begin_reading(&room()) && heads.begin_reading(&room()));
        heads.not_read(&room());
        heads.not_read(&room());
        assert!(heads.known().is_empty() && heads.begin_reading(&room()));
        heads.advance(&room(), at(1, 3), false);
        heads.not_read(&room());
        assert_eq!(heads.get(&room()), Some(at(1, 3)));
        assert!(!heads.begin_reading(&room()));
    }
}
