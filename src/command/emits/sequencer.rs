use std::collections::{HashMap, VecDeque, hash_map::Entry};

use crate::delivery::Place;
use crate::message::RoomName;

/// Orders the emits of one stream or batch: those to one room are published in the order in which they came, also if some of them are refused,
/// duplicates or wait. Emits to different rooms do not wait for each other.
///
/// An emit begins when all earlier ones to its room are finished. Stored ones need not wait for each other: they keep their order in the
/// room's log lane, and are written together. Nor need plain ones that have their place in the room's channel, among several nodes.
pub(super) struct Sequencer<E> {
    rooms: HashMap<RoomName, RoomSequence<E>>,
}

/// The unfinished emits to one room.
struct RoomSequence<E> {
    /// Emits that have begun and are not finished, by their place.
    in_lane: usize,
    in_channel: usize,
    unplaced: usize,
    waiting: VecDeque<E>,
}

/// An emit, as far as its order is concerned.
pub(super) trait Sequenced {
    /// The room whose connections it is for.
    fn room(&self) -> &RoomName;

    /// Whether it is to be stored.
    fn is_stored(&self) -> bool;
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
        let new = || RoomSequence { in_lane: 0, in_channel: 0, unplaced: 0, waiting: VecDeque::new() };
        *self.rooms.entry(room).or_insert_with(new).count(place) += 1;
    }

    /// Notes that an emit is finished for which `began` was called.
    pub(super) fn finished(&mut self, room: &RoomName, place: Place) {
        if let Some(sequence) = self.rooms.get_mut(room) {
            *sequence.count(place) -= 1;
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
                if sequence.in_lane + sequence.in_channel + sequence.unplaced == 0 {
                    entry.remove();
                }
                None
            }
        }
    }

    /// Whether nothing is unfinished.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.rooms.is_empty()
    }
}

impl<E: Sequenced> RoomSequence<E> {
    fn lets_begin(&self, emit: &E) -> bool {
        self.waiting.is_empty() && self.may_begin(emit)
    }

    fn may_begin(&self, emit: &E) -> bool {
        let (in_lane, in_channel) = (self.in_lane > 0, self.in_channel > 0);
        self.unplaced == 0 && if emit.is_stored() { !in_channel } else { !in_lane }
    }

    fn count(&mut self, place: Place) -> &mut usize {
        match place {
            Place::Lane => &mut self.in_lane,
            Place::Channel => &mut self.in_channel,
            Place::Unplaced => &mut self.unplaced,
        }
    }
}
