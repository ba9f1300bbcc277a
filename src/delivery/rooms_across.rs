//! Memberships and rights to join at the engine, and what nodes do about them.

use std::{sync::Arc, time::Duration};

use super::Delivery;
use crate::cluster::{BusError, Frame, PublishError};
use crate::hub::Reason;
use crate::message::{OfNodes, RoomName, UserId};
use crate::state::{PutError, SharedUserRooms};

/// Users whose notes are read at one time.
const READ_AT_ONCE: usize = 500;

/// A call that takes something is never rejected.
pub(super) fn taken(counted: Result<OfNodes<usize>, PublishError>) -> Result<OfNodes<usize>, BusError> {
    counted.map_err(|error| match error {
        PublishError::Bus(error) => error,
        PublishError::Rejected(_) => BusError::Refused,
    })
}

impl Delivery {
    /// Puts a user into a room at the engine: nodes put the user's connections into the room. `None`: this node is alone.
    pub(super) async fn join_across(
        &self,
        caller: &Arc<str>,
        (user, room): (&UserId, &RoomName),
        ttl: Duration,
    ) -> Option<Result<OfNodes<usize>, PutError>> {
        let (cluster, notes) = self.cluster().zip(self.inner.memberships.shared.as_ref())?;
        let frame = Frame::Join(user.clone(), room.clone(), ttl);
        let ticket = cluster.publish_by(&frame, |start, rest, channel| {
            notes.put_command(caller, (user, room), ttl, (channel, start, rest))
        });
        Some(self.count_by(ticket).await.map_err(|error| match error {
            PublishError::Bus(error) => PutError::Bus(error),
            PublishError::Rejected(number) => PutError::TooMany(SharedUserRooms::rejected(number)),
        }))
    }

    /// Ends that at the engine. `None`: this node is alone.
    pub(super) async fn leave_across(
        &self,
        user: &UserId,
        room: &RoomName,
    ) -> Option<Result<OfNodes<usize>, BusError>> {
        let (cluster, notes) = self.cluster().zip(self.inner.memberships.shared.as_ref())?;
        let frame = Frame::Leave(user.clone(), room.clone());
        let take = |start: &[u8], rest: &[u8], channel: &str| notes.take_command(user, room, (channel, start, rest));
        Some(taken(self.count_by(cluster.publish_by(&frame, take)).await))
    }

    /// Notes that a backend has put a user into a room for this time. To be called in the order of the frames.
    pub(super) fn note_join(&self, user: &UserId, room: &RoomName, ttl: Duration) {
        self.inner.memberships.join(user, room, ttl);
    }

    /// Puts a user's connections here into a room, as long as that is noted. Says how many joined.
    pub(super) async fn join_here(&self, user: &UserId, room: &RoomName) -> usize {
        let mut joined = 0;
        for member in self.hub().of_user(user) {
            joined += usize::from(self.join_as_member(&member, room).await);
        }
        joined
    }

    /// Notes the end of that, and takes the user's connections here out of the room. Says how many left.
    pub(super) fn leave_here(&self, user: &UserId, room: &RoomName) -> usize {
        self.inner.memberships.leave(user, room);
        self.leave_now(user, room, Reason::Backend)
    }

    /// Does what frames asked for that did not come to this node. `leaves`: users leave rooms, too, that the engine does not have.
    pub(super) async fn reconcile_memberships(&self, shard: usize, leaves: bool) {
        let (Some(cluster), Some(notes)) = (self.cluster(), &self.inner.memberships.shared) else { return };
        let mut users = Vec::new();
        self.hub().for_each_room(|room| {
            if cluster.engines().index_of(room) == shard
                && let Some(user) = room.user()
            {
                users.extend(UserId::new(user));
            }
        });
        for users in users.chunks(READ_AT_ONCE) {
            let readings: Vec<_> = users.iter().map(|user| self.inner.memberships.begin_read(user)).collect();
            // If the engine is away again, this is done again when it is back.
            let Ok(rooms) = notes.rooms_of_many(users).await else { return };
            for (mut reading, rooms) in readings.into_iter().zip(rooms) {
                if reading.is_current() {
                    self.reconcile(reading.user, &rooms, leaves).await;
                } else if let Ok(rooms) = notes.rooms(reading.user).await {
                    // What changes from here on, frames tell.
                    self.reconcile(reading.user, &rooms, false).await;
                }
            }
        }
    }

    async fn reconcile(&self, user: &UserId, rooms: &[(RoomName, Duration)], leaves: bool) {
        let known = self.inner.memberships.rooms(user);
        // All notes first, without a pause: frames come meanwhile.
        for (room, left) in rooms {
            self.inner.memberships.note_put(user, room, *left);
        }
        if leaves {
            for room in known.iter().filter(|room| !rooms.iter().any(|(name, _)| name == *room)) {
                self.leave_here(user, room);
            }
        }
        for (room, _) in rooms.iter().filter(|(room, _)| !known.contains(room)) {
            self.join_here(user, room).await;
        }
    }
}
