use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::accepted::Accepted;
use crate::hub::Counts;
use crate::message::{Position, Receipt, RoomName};

/// Rooms with stored messages that this node has not published in their order yet: their frames came after later ones, or never. A task reads
/// them from the store, outside the room's lock and its frame lane.
pub(super) struct Fills {
    rooms: Mutex<HashMap<RoomName, Fill>>,
    /// What became of messages that were read, for their frames.
    filled: Mutex<HashMap<RoomName, Filled>>,
    /// Tasks that read at this time.
    pub(super) reads: Semaphore,
}

impl Default for Fills {
    fn default() -> Self {
        Self { rooms: Mutex::default(), filled: Mutex::default(), reads: Semaphore::new(MAX_READS) }
    }
}

/// What is to be read of a room's mailbox. A task runs as long as there is one.
#[derive(Default)]
struct Fill {
    /// The mailbox has messages up to these positions, one of each epoch.
    targets: Vec<Position>,
    /// The first position of a frame that waits.
    first_waiting: Option<u64>,
    /// A frame has waited for too long: others do not.
    is_overdue: bool,
    /// Up to where the room was published before the store began a new epoch.
    stood_at: Option<Position>,
    /// Dropped when all is read.
    waiting: Vec<oneshot::Sender<()>>,
}

struct Filled {
    at: Instant,
    /// The room was empty when it was read that it stands there: earlier messages have no audience.
    empty_until: u64,
    counts: VecDeque<(u64, Counts)>,
}

/// Rooms that are read at one time: connects read, too.
const MAX_READS: usize = 3;
/// What became of so many messages of a room is remembered, for as long as their frames may be under way.
const MAX_REMEMBERED: usize = 64;
const REMEMBERED: Duration = Duration::from_secs(30);

/// What the task of a room is to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// To read where the room stands.
    Head,
    /// To publish what the mailbox has up to there.
    Up(Position),
}

impl Fills {
    /// Notes that a room's mailbox has messages up to a position. True if no task reads it yet.
    #[must_use]
    pub(super) fn want(&self, room: &RoomName, target: Position) -> bool {
        self.change(room, |fill| fill.add(target))
    }

    /// The same. Returns also what ends when all is published.
    pub(super) fn wait_for(&self, room: &RoomName, target: Position) -> (bool, oneshot::Receiver<()>) {
        let (waiting, ended) = oneshot::channel();
        let is_first = self.change(room, |fill| {
            fill.add(target);
            fill.waiting.push(waiting);
        });
        (is_first, ended)
    }

    /// Notes that it is not known where a room stands. True if no task reads it yet.
    #[must_use]
    pub(super) fn want_head(&self, room: &RoomName) -> bool {
        self.change(room, |_| {})
    }

    /// The same for a frame, which waits for what is before it. Returns what ends when that was read; none: it is overdue, and the frame is to be
    /// read, too.
    pub(super) fn wait_before(&self, room: &RoomName, position: &Position) -> (bool, Option<oneshot::Receiver<()>>) {
        let mut waits = None;
        let is_first = self.change(room, |fill| {
            let number = position.number;
            fill.first_waiting = Some(fill.first_waiting.map_or(number, |first| first.min(number)));
            if fill.is_overdue {
                fill.add(position.clone());
                return;
            }
            fill.add(Position { number: number.saturating_sub(1), ..position.clone() });
            let (waiting, ended) = oneshot::channel();
            fill.waiting.push(waiting);
            waits = Some(ended);
        });
        (is_first, waits)
    }

    /// Notes that a frame waits no longer: it is to be read with all before it. True if no task reads it yet.
    #[must_use]
    pub(super) fn give_up_waiting(&self, room: &RoomName, position: &Position) -> bool {
        self.change(room, |fill| {
            fill.is_overdue = true;
            fill.add(position.clone());
        })
    }

    /// Notes up to where a room was published when the store began a new epoch. True if no task reads it yet.
    #[must_use]
    pub(super) fn note_stood(&self, room: &RoomName, position: Position) -> bool {
        self.change(room, |fill| {
            fill.stood_at.get_or_insert(position);
        })
    }

    fn change(&self, room: &RoomName, change: impl FnOnce(&mut Fill)) -> bool {
        let mut rooms = self.rooms.lock();
        let is_first = !rooms.contains_key(room);
        change(rooms.entry(room.clone()).or_default());
        is_first
    }

    /// Up to where the room was published before a new epoch, and the first position of a frame that waits.
    pub(super) fn known(&self, room: &RoomName) -> (Option<Position>, Option<u64>) {
        let rooms = self.rooms.lock();
        rooms.get(room).map_or((None, None), |fill| (fill.stood_at.clone(), fill.first_waiting))
    }

    /// It is known again where the room stands. True: it was so before the store began a new epoch.
    pub(super) fn settle(&self, room: &RoomName) -> bool {
        self.rooms.lock().get_mut(room).is_some_and(|fill| fill.stood_at.take().is_some())
    }

    /// What is to be done next in a room that was published up to `head`, in the store's epoch. `None`: nothing, and the task ends.
    pub(super) fn next(&self, room: &RoomName, head: Option<u64>, epoch: &str) -> Option<Next> {
        let mut rooms = self.rooms.lock();
        let fill = rooms.get_mut(room)?;
        let Some(head) = head else {
            return Some(Next::Head);
        };
        fill.targets.retain(|target| *target.epoch != *epoch || target.number > head);
        let next = fill.targets.iter().max_by_key(|target| (*target.epoch != *epoch, target.number)).cloned();
        if next.is_none() {
            rooms.remove(room);
        }
        next.map(Next::Up)
    }

    /// Positions of this epoch are none of the mailbox: what was stored there is lost.
    pub(super) fn discard(&self, room: &RoomName, epoch: &str) {
        if let Some(fill) = self.rooms.lock().get_mut(room) {
            fill.targets.retain(|other| *other.epoch != *epoch);
        }
    }

    /// Ends the task of a room, whatever is left.
    pub(super) fn abandon(&self, room: &RoomName) {
        self.rooms.lock().remove(room);
    }

    /// Notes what became of a message that was read.
    pub(super) fn note_filled(&self, room: &RoomName, number: u64, counts: Counts) {
        self.change_filled(room, |filled| {
            if filled.counts.len() == MAX_REMEMBERED {
                filled.counts.pop_front();
            }
            filled.counts.push_back((number, counts));
        });
    }

    /// Notes that no connection was in a room when it was read that it stands at a position.
    pub(super) fn note_empty(&self, room: &RoomName, until: u64) {
        self.change_filled(room, |filled| filled.empty_until = filled.empty_until.max(until));
    }

    fn change_filled(&self, room: &RoomName, change: impl FnOnce(&mut Filled)) {
        let (mut rooms, at) = (self.filled.lock(), Instant::now());
        let filled =
            rooms.entry(room.clone()).or_insert_with(|| Filled { at, empty_until: 0, counts: VecDeque::new() });
        filled.at = at;
        change(filled);
    }

    /// The receipt of an emit whose message was read before its frame came, if that is remembered. What devices answer that were sent it then is not
    /// known.
    pub(super) fn receipt(&self, accepted: &Accepted, number: u64) -> Option<Receipt> {
        let filled = self.filled(accepted.room(), number).filter(|_| accepted.emit.ack.is_none());
        let Counts { matched, enqueued, dropped, .. } = filled?;
        Some(Receipt { matched, enqueued, dropped, ..Receipt::new(accepted.message_id) })
    }

    /// What became of a message that was read before its frame came, if that is remembered.
    pub(super) fn filled(&self, room: &RoomName, number: u64) -> Option<Counts> {
        let mut rooms = self.filled.lock();
        let Filled { empty_until, counts, .. } = rooms.get_mut(room)?;
        if number <= *empty_until {
            return Some(Counts::default());
        }
        let index = counts.iter().position(|(other, _)| *other == number)?;
        counts.remove(index).map(|(_, counts)| counts)
    }

    /// Forgets what became of all messages: their numbers may be those of others now.
    pub(super) fn forget_filled(&self) {
        self.filled.lock().clear();
    }

    /// The same of one room.
    pub(super) fn forget_filled_in(&self, room: &RoomName) {
        self.filled.lock().remove(room);
    }

    /// Forgets what no frame can meet any more.
    pub(super) fn sweep(&self) {
        self.filled.lock().retain(|_, filled| filled.at.elapsed() < REMEMBERED);
    }
}

impl Fill {
    fn add(&mut self, target: Position) {
        match self.targets.iter_mut().find(|other| other.epoch == target.epoch) {
            Some(other) => other.number = other.number.max(target.number),
            None => self.targets.push(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> RoomName {
        RoomName::new("r").unwrap()
    }

    fn at(number: u64) -> Position {
        Position::new("a".into(), number)
    }

    #[test]
    fn a_frame_waits_until_all_before_it_was_read() {
        let fills = Fills::default();
        let (is_first, waits) = fills.wait_before(&room(), &at(5));
        let mut waits = waits.unwrap();
        assert!(is_first && !fills.want(&room(), at(3)));
        assert_eq!(fills.next(&room(), None, "a"), Some(Next::Head));
        assert_eq!(fills.known(&room()), (None, Some(5)));
        assert_eq!(fills.next(&room(), Some(2), "a"), Some(Next::Up(at(4))));
        assert!(waits.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert_eq!(fills.next(&room(), Some(4), "a"), None);
        assert!(waits.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn when_one_has_waited_for_too_long_the_others_do_not() {
        let fills = Fills::default();
        drop(fills.wait_before(&room(), &at(5)));
        assert!(!fills.give_up_waiting(&room(), &at(5)));
        assert!(fills.wait_before(&room(), &at(6)).1.is_none());
        assert_eq!(fills.next(&room(), Some(2), "a"), Some(Next::Up(at(6))), "they are read");
        assert_eq!(fills.next(&room(), Some(6), "a"), None);
        assert!(fills.wait_before(&room(), &at(8)).1.is_some(), "from then on frames wait again");
    }

    #[test]
    fn what_was_stored_in_an_epoch_that_is_lost_is_not_waited_for() {
        let fills = Fills::default();
        let lost = Position::new("b".into(), 9);
        assert!(fills.want(&room(), lost.clone()));
        assert!(!fills.want(&room(), at(3)));
        assert_eq!(fills.next(&room(), Some(2), "a"), Some(Next::Up(lost.clone())));
        fills.discard(&room(), "b");
        assert_eq!(fills.next(&room(), Some(2), "a"), Some(Next::Up(at(3))));
    }

    #[test]
    fn what_became_of_a_message_that_was_read_is_told_to_its_frame_once() {
        let fills = Fills::default();
        for number in 1..=65 {
            fills.note_filled(&room(), number, Counts { matched: number, ..Counts::default() });
        }
        assert!(fills.filled(&room(), 1).is_none(), "64 are remembered");
        assert_eq!(fills.filled(&room(), 2).map(|counts| counts.matched), Some(2));
        assert!(fills.filled(&room(), 2).is_none());
    }
}
