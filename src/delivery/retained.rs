use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Delivery;
use crate::cluster::BusError;
use crate::hub::{Frame, Member, RoomGuard};
use crate::message::{EventName, Exceptions, RoomName};
use crate::state::{RetainedValue, SharedValue};

/// The values of a room, and the number of its last change; none: they cannot be read now.
pub(super) type RetainedRead = Option<(u64, Vec<SharedValue>)>;

impl Delivery {
    /// Locks a room for a join, with its values: nothing newer can be on its way already, and nothing in between is missed.
    pub(super) async fn lock_with_retained<'a>(
        &'a self,
        room: &RoomName,
        mut read: Option<RetainedRead>,
    ) -> (RoomGuard<'a>, RetainedRead) {
        let Ok(shared) = self.shared() else {
            let guard = self.hub().lock_room(room).await;
            let values = self.inner.retained.of_room(room, self.inner.clock.now()).into_iter();
            let values = values.map(|(event, value)| SharedValue { event, value, change: 0 });
            return (guard, Some((0, values.collect())));
        };
        loop {
            let before = if read.is_some() { 0 } else { shared.changes.last(room) };
            let values = match read.take() {
                Some(values) => values,
                None => shared.retained.of_room(room).await.ok(),
            };
            let guard = self.hub().lock_room(room).await;
            let number = values.as_ref().map_or(u64::MAX, |(number, _)| *number);
            let last = shared.changes.last(room);
            if number < before && last == before {
                // The engine had made that change before it was executed here: it has lost it.
                shared.changes.forget(room);
            } else if number < last {
                // A change came meanwhile, which a connection that joins now would miss.
                continue;
            }
            return (guard, values);
        }
    }

    /// Notes a change of what a locked room retains. Connections that have read it already are excepted; returns how many of the audience were
    /// given its value when they joined, and are in the room still.
    pub(super) fn note_change(&self, room: &RoomName, change: u64, except: &mut Exceptions) -> u64 {
        let Ok(shared) = self.shared() else { return 0 };
        let (mut given, mut have_it) = (HashSet::new(), HashSet::new());
        for (member, is_given) in shared.changes.executed(room, change) {
            let is_in_audience = member.is_in(room)
                && !except.users.contains(member.user())
                && !except.connections.contains(&member.id())
                && !except.rooms.iter().any(|other| member.is_in(other));
            if is_given && is_in_audience {
                given.insert(member.id());
            }
            have_it.insert(member.id());
        }
        except.connections.extend(have_it);
        given.len() as u64
    }

    /// Notes a change of what a room retains that is not sent: a connection that has read the room before it, and joins after this,
    /// reads it again.
    pub(super) fn note_missed_change(&self, room: &RoomName, change: u64) {
        if let Ok(shared) = self.shared() {
            shared.changes.missed(room, change);
        }
    }

    /// Reads the values of rooms that a connection is about to join, all at one time. Those of rooms that are not subscribed are read later.
    pub(super) async fn read_retained(
        &self,
        rooms: impl Iterator<Item = &RoomName>,
        is_subscribed: bool,
    ) -> HashMap<RoomName, RetainedRead> {
        let Ok(shared) = self.shared() else {
            return HashMap::new();
        };
        let read = async |room: RoomName| {
            let values = if is_subscribed { shared.retained.of_room(&room).await.ok() } else { None };
            (room, values)
        };
        futures_util::future::join_all(rooms.cloned().map(read)).await.into_iter().collect()
    }

    /// Sends what is retained in a locked room to a connection that has just joined it.
    pub(super) fn send_retained(&self, guard: &RoomGuard<'_>, member: &Arc<Member>, read: RetainedRead) {
        let Some((number, values)) = read else {
            if let Ok(shared) = self.shared() {
                shared.changes.owed.lock().push((Arc::downgrade(member), guard.room().clone()));
            }
            return;
        };
        let mut given = Vec::new();
        for SharedValue { event, value, change } in values {
            let is_excepted = value.except_users.contains(member.user());
            if !is_excepted && guard.send(member, Frame::on_join(event, value.payload)) {
                given.push(change);
            }
        }
        if let Ok(shared) = self.shared() {
            shared.changes.read(guard.room(), member, number, given);
        }
    }

    /// Sends what is retained to the connections that joined while it could not be read.
    pub(super) async fn send_owed(&self) {
        let Ok(shared) = self.shared() else { return };
        let owed = std::mem::take(&mut *shared.changes.owed.lock());
        for (member, room) in owed {
            let Some(member) = member.upgrade() else { continue };
            let (guard, read) = self.lock_with_retained(&room, None).await;
            if member.is_in(&room) {
                self.send_retained(&guard, &member, read);
            }
        }
    }

    /// The last payload of an event that is retained in a room.
    pub async fn retained(&self, room: &RoomName, event: &str) -> Result<Option<RetainedValue>, BusError> {
        match self.shared() {
            Err(_) => Ok(self.inner.retained.get(room, event, self.inner.clock.now())),
            Ok(shared) => shared.retained.get(room, event).await,
        }
    }

    /// All that is retained in a room, ordered by event.
    pub async fn retained_in(&self, room: &RoomName) -> Result<Vec<(EventName, RetainedValue)>, BusError> {
        match self.shared() {
            Err(_) => Ok(self.inner.retained.of_room(room, self.inner.clock.now())),
            Ok(shared) => {
                let (_, values) = shared.retained.of_room(room).await?;
                Ok(values.into_iter().map(|SharedValue { event, value, .. }| (event, value)).collect())
            }
        }
    }

    /// Whether a room's last messages are kept.
    pub fn has_history(&self, room: &RoomName) -> bool {
        self.inner.history.keeps(room)
    }
}
