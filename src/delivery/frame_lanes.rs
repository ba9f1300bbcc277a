use std::collections::{HashMap, VecDeque, hash_map::Entry};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::laned::Laned;
use crate::message::{Position, RoomName};

/// What waits for its room, by room. A room with a task that executes it has an entry.
#[derive(Default)]
pub(super) struct FrameLanes(Mutex<HashMap<RoomName, Lane>>);

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Laned>,
    /// The message whose frame is to come before what is executed now.
    awaited: Option<(Position, oneshot::Sender<()>)>,
}

impl FrameLanes {
    /// Queues something behind what waits of its room. `None`: nothing does.
    pub(super) fn push_behind(&self, room: &RoomName, laned: Laned) -> Option<Laned> {
        match self.0.lock().get_mut(room) {
            Some(lane) => {
                lane.push(laned);
                None
            }
            None => Some(laned),
        }
    }

    /// The same, and opens a lane if there is none. True: the caller is to have it run.
    pub(super) fn push(&self, room: &RoomName, laned: Laned) -> bool {
        let mut rooms = self.0.lock();
        let is_first = !rooms.contains_key(room);
        rooms.entry(room.clone()).or_default().push(laned);
        is_first
    }

    /// What is next in a room. `None`: there is nothing, and the lane is closed.
    pub(super) fn next(&self, room: &RoomName) -> Option<Laned> {
        let mut lanes = self.0.lock();
        let Entry::Occupied(mut lane) = lanes.entry(room.clone()) else {
            return None;
        };
        let next = lane.get_mut().waiting.pop_front();
        if next.is_none() {
            lane.remove();
        }
        next
    }

    /// Takes the frame with a stored message out of the lane. The error ends when it has come.
    pub(super) fn take_stored(&self, room: &RoomName, position: &Position) -> Result<Laned, oneshot::Receiver<()>> {
        let (come, comes) = oneshot::channel();
        let mut rooms = self.0.lock();
        let Some(lane) = rooms.get_mut(room) else { return Err(comes) };
        let place = lane.waiting.iter().position(|laned| laned.stored() == Some(position));
        place.and_then(|place| lane.waiting.remove(place)).ok_or_else(|| {
            lane.awaited = Some((position.clone(), come));
            comes
        })
    }

    /// Closes a lane whose task has panicked. Its frames are not answered.
    pub(super) fn abandon(&self, room: &RoomName) {
        self.0.lock().remove(room);
    }
}

impl Lane {
    fn push(&mut self, laned: Laned) {
        if let Some((_, come)) = self.awaited.take_if(|(position, _)| laned.stored() == Some(position)) {
            // Who awaits it may have given up.
            let _ = come.send(());
        }
        self.waiting.push_back(laned);
    }
}
