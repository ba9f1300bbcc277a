use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use super::Member;
use crate::message::{ConnectionId, RoomName};

/// A named set of connections.
pub(super) struct Room {
    name: RoomName,
    members: Mutex<IndexMap<ConnectionId, Arc<Member>>>,
    /// Whoever holds it acts on the room.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Emits wait here for each other, so that one of them at most waits for the turn: joins need not wait for all of them.
    pub(super) line: Arc<tokio::sync::Mutex<()>>,
}

impl Room {
    pub(super) fn new(name: RoomName) -> Self {
        Self { name, members: Mutex::default(), turn: Arc::default(), line: Arc::default() }
    }

    pub(super) fn name(&self) -> &RoomName {
        &self.name
    }

    /// True if it was empty before.
    pub(super) fn insert(&self, member: Arc<Member>) -> bool {
        let mut members = self.members.lock();
        members.insert(member.id(), member);
        members.len() == 1
    }

    /// True if it is empty now and was not before.
    pub(super) fn remove(&self, id: ConnectionId) -> bool {
        let mut members = self.members.lock();
        let was_there = members.swap_remove(&id).is_some();
        // A room that was large once does not stay so.
        if members.capacity() > 64 && members.len() < members.capacity() / 4 {
            members.shrink_to_fit();
        }
        was_there && members.is_empty()
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
