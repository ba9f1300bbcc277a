use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use super::Member;
use crate::message::{ConnectionId, RoomName};

/// A named set of connections.
pub(super) struct Room {
    name: RoomName,
    members: Mutex<Members>,
    /// Whoever holds it acts on the room.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Emits wait here for each other, so that one of them at most waits for the turn: joins need not wait for all of them.
    pub(super) line: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Members {
    by_id: IndexMap<ConnectionId, Arc<Member>>,
    /// The same as a list, from an emit on until somebody joins or leaves.
    list: Option<Arc<[Arc<Member>]>>,
}

/// Of a larger room the list is kept: to copy it for each emit is to touch each member twice.
const SMALL: usize = 16;

impl Room {
    pub(super) fn new(name: RoomName) -> Self {
        Self { name, members: Mutex::default(), turn: Arc::default(), line: Arc::default() }
    }

    pub(super) fn name(&self) -> &RoomName {
        &self.name
    }

    /// True if it was empty before.
    pub(super) fn insert(&self, member: Arc<Member>) -> bool {
        let Members { by_id, list } = &mut *self.members.lock();
        by_id.insert(member.id(), member);
        *list = None;
        by_id.len() == 1
    }

    /// True if it is empty now and was not before.
    pub(super) fn remove(&self, id: ConnectionId) -> bool {
        let Members { by_id, list } = &mut *self.members.lock();
        let was_there = by_id.swap_remove(&id).is_some();
        *list = None;
        // A room that was large once does not stay so.
        if by_id.capacity() > 64 && by_id.len() < by_id.capacity() / 4 {
            by_id.shrink_to_fit();
        }
        was_there && by_id.is_empty()
    }

    pub(super) fn members(&self) -> Arc<[Arc<Member>]> {
        let Members { by_id, list } = &mut *self.members.lock();
        if let Some(list) = list {
            return list.clone();
        }
        let members: Arc<[_]> = by_id.values().cloned().collect();
        if members.len() > SMALL {
            *list = Some(members.clone());
        }
        members
    }

    pub(super) fn len(&self) -> usize {
        self.members.lock().by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
