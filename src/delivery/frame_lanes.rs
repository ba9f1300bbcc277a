use std::collections::{HashMap, VecDeque, hash_map::Entry};

use parking_lot::Mutex;

use super::laned::Laned;
use crate::message::RoomName;

/// What waits for its room, by room. A room with a task that executes it has an entry.
#[derive(Default)]
pub(super) struct FrameLanes(Mutex<HashMap<RoomName, VecDeque<Laned>>>);

impl FrameLanes {
    /// Queues something behind what waits of its room. `None`: nothing does.
    pub(super) fn push_behind(&self, room: &RoomName, laned: Laned) -> Option<Laned> {
        match self.0.lock().get_mut(room) {
            Some(lane) => {
                lane.push_back(laned);
                None
            }
            None => Some(laned),
        }
    }

    /// The same, and opens a lane if there is none. True: the caller is to have it run.
    pub(super) fn push(&self, room: &RoomName, laned: Laned) -> bool {
        let mut rooms = self.0.lock();
        let is_first = !rooms.contains_key(room);
        rooms.entry(room.clone()).or_default().push_back(laned);
        is_first
    }

    /// What is next in a room. `None`: there is nothing, and the lane is closed.
    pub(super) fn next(&self, room: &RoomName) -> Option<Laned> {
        let mut lanes = self.0.lock();
        let Entry::Occupied(mut lane) = lanes.entry(room.clone()) else {
            return None;
        };
        let next = lane.get_mut().pop_front();
        if next.is_none() {
            lane.remove();
        }
        next
    }

    /// Closes a lane whose task has panicked. Its frames are not answered.
    pub(super) fn abandon(&self, room: &RoomName) {
        self.0.lock().remove(room);
    }
}
