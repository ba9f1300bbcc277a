use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::message::{Position, RoomName};
use crate::store::COMMITTED_WITHIN;

/// Rooms with stored messages whose nodes may not have got them in frames, and are to be told. Cheap to lose: nodes that miss a frame mostly know
/// it, and look into the store by themselves.
#[derive(Default)]
pub(super) struct Wakes {
    owed: Mutex<HashMap<RoomName, Option<Position>>>,
    /// Rooms in which something may be committed still that was given up, until then, and the last position of each that was seen.
    uncertain: Mutex<HashMap<RoomName, (Instant, u64)>>,
    /// Notified when nodes are to be told now.
    requested: Notify,
}

/// Rooms that are remembered.
const MAX_ROOMS: usize = 10_000;

impl Wakes {
    /// Notes that a room has messages up to a position; none: up to its last one, which is not known.
    pub(super) fn note(&self, room: &RoomName, position: Option<Position>) {
        let mut rooms = self.owed.lock();
        if let Some(known) = rooms.get_mut(room) {
            *known = later(known.take(), position);
        } else if rooms.len() < MAX_ROOMS {
            rooms.insert(room.clone(), position);
        }
    }

    /// Notes that a room has messages that are not known, or will have some soon.
    pub(super) fn note_uncertain(&self, room: &RoomName) {
        self.note(room, None);
        let mut rooms = self.uncertain.lock();
        if rooms.len() < MAX_ROOMS || rooms.contains_key(room) {
            rooms.insert(room.clone(), (Instant::now() + COMMITTED_WITHIN, 0));
        }
    }

    /// The rooms of these.
    pub(super) fn uncertain(&self) -> Vec<RoomName> {
        let mut rooms = self.uncertain.lock();
        rooms.retain(|_, (until, _)| Instant::now() < *until);
        rooms.keys().cloned().collect()
    }

    /// Notes the last position of one of them. Returns whether it is another one than before: nodes are to be told of it.
    pub(super) fn note_last(&self, room: &RoomName, position: &Position) -> bool {
        let before = self.uncertain.lock().get_mut(room).map(|(_, last)| std::mem::replace(last, position.number));
        before != Some(position.number)
    }

    /// Has nodes told now. Of several requests during a pass one is remembered.
    pub(super) fn request(&self) {
        self.requested.notify_one();
    }

    /// Waits for a request.
    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// Takes all.
    pub(super) fn take(&self) -> HashMap<RoomName, Option<Position>> {
        std::mem::take(&mut *self.owed.lock())
    }
}

/// The later one of two positions. Which one is later is not known across epochs.
fn later(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    one.zip(other)
        .filter(|(one, other)| one.epoch == other.epoch)
        .map(|(one, other)| if one.number < other.number { other } else { one })
}
