use std::collections::{HashMap, VecDeque, hash_map::Entry};

use parking_lot::Mutex;

use crate::cluster::Received;
use crate::message::RoomName;

/// Frames that wait for their rooms, by room. A room with a task that executes them has an entry.
#[derive(Default)]
pub(super) struct FrameLanes(Mutex<HashMap<RoomName, VecDeque<Received>>>);

impl FrameLanes {
    /// Queues a frame behind others of its room. `None`: none are there.
    pub(super) fn push_behind(&self, room: &RoomName, received: Received) -> Option<Received> {
        match self.0.lock().get_mut(room) {
            Some(lane) => {
                lane.push_back(received);
                None
            }
            None => Some(received),
        }
    }

    pub(super) fn open(&self, room: &RoomName) {
        self.0.lock().insert(room.clone(), VecDeque::new());
    }

    /// The next frame of a room. `None`: there is none, and the lane is closed.
    pub(super) fn next(&self, room: &RoomName) -> Option<Received> {
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
