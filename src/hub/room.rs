use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use super::Member;
use crate::message::{ConnectionId, RoomName};

/// A named set of connections.
pub(super) struct Room {
    name: RoomName,
    members: Mutex<IndexMap<ConnectionId, Arc<Member>>>,
    /// Whoever holds it acts on the room; the others wait in line.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Room {
    pub(super) fn new(name: RoomName) -> Self {
        Self { name, members: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    pub(super) fn name(&self) -> &RoomName {
        &self.name
    }

    pub(super) fn insert(&self, member: Arc<Member>) {
        self.members.lock().insert(member.id(), member);
    }

    pub(super) fn remove(&self, id: ConnectionId) {
        let mut members = self.members.lock();
        members.swap_remove(&id);
        // A room that was large once does not stay so.
        if members.capacity() > 64 && members.len() < members.capacity() / 4 {
            members.shrink_to_fit();
        }
    }

    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        self.members.lock().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.members.lock().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
