use std::collections::{HashMap, VecDeque, hash_map::Entry};

use crate::message::RoomName;

/// Orders the emits of one stream or batch: those to one room are published in the order in which they came, whatever becomes of those in
/// between. Emits to different rooms do not wait for each other.
///
/// An emit begins when all earlier ones to its room are finished. Stored ones need not wait for each other: they keep their order in the
/// room's log lane, and are written together.
pub(super) struct Sequencer<E> {
    rooms: HashMap<RoomName, RoomSequence<E>>,
}

/// The unfinished emits to one room.
struct RoomSequence<E> {
    /// Emits that have begun and are not finished. While one that is not in the lane runs, it is the only one.
    running: usize,
    all_in_lane: bool,
    waiting: VecDeque<E>,
}

/// An emit, as far as its order is concerned.
pub(super) trait Sequenced {
    /// The room whose connections it is for.
    fn room(&self) -> &RoomName;

    /// Whether it is to be stored.
    fn is_stored(&self) -> bool;
}

/// Where an emit is that has begun and is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its room's log lane.
    Lane,
    /// Elsewhere.
    Unplaced,
}

impl<E: Sequenced> Sequencer<E> {
    pub(super) fn new() -> Self {
        Self { rooms: HashMap::new() }
    }

    /// Returns the emit if it begins now; else it waits for earlier ones.
    pub(super) fn offer(&mut self, emit: E) -> Option<E> {
        if self.rooms.is_empty() {
            return Some(emit);
        }
        match self.rooms.get_mut(emit.room()) {
            Some(sequence) if !sequence.lets_begin(&emit) => {
                sequence.waiting.push_back(emit);
                None
            }
            Some(_) | None => Some(emit),
        }
    }

    /// Notes that an emit that was returned has begun and is not finished.
    pub(super) fn began(&mut self, room: RoomName, place: Place) {
        let new = || RoomSequence { running: 0, all_in_lane: true, waiting: VecDeque::new() };
        let sequence = self.rooms.entry(room).or_insert_with(new);
        sequence.running += 1;
        sequence.all_in_lane &= place == Place::Lane;
    }

    /// Notes that an emit is finished for which `began` was called.
    pub(super) fn finished(&mut self, room: &RoomName) {
        if let Some(sequence) = self.rooms.get_mut(room) {
            sequence.running = sequence.running.saturating_sub(1);
            sequence.all_in_lane |= sequence.running == 0;
        }
    }

    /// The next emit to a room that begins now. To be called after `finished`, until it returns `None`.
    pub(super) fn next(&mut self, room: &RoomName) -> Option<E> {
        let Entry::Occupied(mut entry) = self.rooms.entry(room.clone()) else {
            return None;
        };
        let sequence = entry.get_mut();
        let emit = sequence.waiting.pop_front();
        match emit {
            Some(emit) if sequence.may_begin(&emit) => Some(emit),
            Some(emit) => {
                sequence.waiting.push_front(emit);
                None
            }
            None => {
                if sequence.running == 0 {
                    entry.remove();
                }
                None
            }
        }
    }
}

impl<E: Sequenced> RoomSequence<E> {
    fn lets_begin(&self, emit: &E) -> bool {
        self.waiting.is_empty() && self.may_begin(emit)
    }

    fn may_begin(&self, emit: &E) -> bool {
        self.running == 0 || (self.all_in_lane && emit.is_stored())
    }
}
