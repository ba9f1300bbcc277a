//! Where backends have put users.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::Delivery;
use crate::cluster::{BusError, Frame, PublishError, Shards};
use crate::hub::Reason;
use crate::message::{OfNodes, RoomName, UserId};
use crate::state::{PutError, SharedUserRooms, TooMany, UserRooms};

/// Users in rooms by `JoinRoom`. Among several nodes the engine has them, and this node knows those of the users that connected here.
pub(super) struct Memberships {
    here: UserRooms,
    shared: Option<SharedUserRooms>,
    /// Users whose notes are being read.
    reads: Mutex<HashMap<UserId, Reads>>,
}

/// Reads of one user's notes that are under way.
#[derive(Default)]
struct Reads {
    count: usize,
    /// Counts what frames changed meanwhile.
    changes: u64,
}

/// One of these reads.
struct Reading<'a> {
    memberships: &'a Memberships,
    user: &'a UserId,
    changes: u64,
}

/// Users whose notes are read at one time.
const READ_AT_ONCE: usize = 500;
/// A read that frames change meanwhile is done again so often at most.
const ATTEMPTS: usize = 4;

impl Memberships {
    pub(super) fn new(max_entries: usize, engines: Option<&Shards>) -> Self {
        let shared = engines.map(|engines| SharedUserRooms::new(engines.clone(), "j", max_entries));
        // The engine has the bound.
        let here = UserRooms::new(if shared.is_some() { usize::MAX } else { max_entries });
        Self { here, shared, reads: Mutex::default() }
    }

    /// Puts a user into a room at this node, which is alone.
    pub(super) fn put(&self, caller: &Arc<str>, user: &UserId, room: &RoomName, ttl: Duration) -> Result<(), TooMany> {
        self.here.put(caller, user, room, ttl)
    }

    /// The same at the engine: nodes put the user's connections into the room. `None`: this node is alone.
    pub(super) async fn put_across(
        &self,
        delivery: &Delivery,
        caller: &Arc<str>,
        (user, room): (&UserId, &RoomName),
        ttl: Duration,
    ) -> Option<Result<OfNodes<usize>, PutError>> {
        let (cluster, notes) = delivery.cluster().zip(self.shared.as_ref())?;
        let frame = Frame::Join(user.clone(), room.clone(), ttl);
        let ticket = cluster.publish_by(&frame, |start, rest, channel| {
            notes.put_command(caller, (user, room), ttl, (channel, start, rest))
        });
        Some(delivery.count_by(ticket).await.map_err(|error| match error {
            PublishError::Bus(error) => PutError::Bus(error),
            PublishError::Rejected(number) => PutError::TooMany(SharedUserRooms::rejected(number)),
        }))
    }

    /// Ends that at this node, which is alone.
    pub(super) fn take(&self, user: &UserId, room: &RoomName) {
        self.here.take(user, room);
    }

    /// The same at the engine. `None`: this node is alone.
    pub(super) async fn take_across(
        &self,
        delivery: &Delivery,
        user: &UserId,
        room: &RoomName,
    ) -> Option<Result<OfNodes<usize>, BusError>> {
        let (cluster, notes) = delivery.cluster().zip(self.shared.as_ref())?;
        let frame = Frame::Leave(user.clone(), room.clone());
        let take = |start: &[u8], rest: &[u8], channel: &str| notes.take_command(user, room, (channel, start, rest));
        Some(taken(delivery.count_by(cluster.publish_by(&frame, take)).await))
    }

    /// The rooms of a user who connects. From then on this node knows them, if it is subscribed to the user's room. While the engine is away,
    /// those that are known here.
    pub(super) async fn load(&self, user: &UserId) -> Vec<RoomName> {
        let Some(shared) = &self.shared else {
            return self.here.rooms(user);
        };
        for attempt in 1..=ATTEMPTS {
            let mut reading = self.begin_read(user);
            let Ok(rooms) = shared.rooms(user).await else { break };
            if reading.is_current() || attempt == ATTEMPTS {
                self.replace(user, &rooms);
                break;
            }
        }
        self.here.rooms(user)
    }

    fn begin_read<'a>(&'a self, user: &'a UserId) -> Reading<'a> {
        let mut reads = self.reads.lock();
        let entry = reads.entry(user.clone()).or_default();
        entry.count += 1;
        Reading { memberships: self, user, changes: entry.changes }
    }

    /// Notes that a frame changes what the engine has of a user.
    fn changed(&self, user: &UserId) {
        if let Some(reads) = self.reads.lock().get_mut(user) {
            reads.changes += 1;
        }
    }

    fn replace(&self, user: &UserId, rooms: &[(RoomName, Duration)]) {
        for gone in self.here.rooms(user).iter().filter(|room| !rooms.iter().any(|(name, _)| name == *room)) {
            self.here.take(user, gone);
        }
        for (room, left) in rooms {
            self.note_put(user, room, *left);
        }
    }

    /// The rooms of a user that are known here.
    pub(super) fn rooms(&self, user: &UserId) -> Vec<RoomName> {
        self.here.rooms(user)
    }

    /// Whether a user is known here to be put into a room.
    pub(super) fn has(&self, user: &UserId, room: &RoomName) -> bool {
        self.here.has(user, room)
    }

    fn note_put(&self, user: &UserId, room: &RoomName, ttl: Duration) {
        // There is no bound here that it could exceed but that of one user's rooms, which the engine has too.
        let _: Result<(), TooMany> = self.here.put(&"".into(), user, room, ttl);
    }

    /// Forgets some of those that have ended, and says which.
    pub(super) fn sweep(&self) -> Vec<(UserId, RoomName)> {
        self.here.sweep()
    }

    /// The same at the engines.
    pub(super) async fn sweep_shared(&self) {
        if let Some(shared) = &self.shared {
            while matches!(shared.sweep().await, Ok(true)) {}
        }
    }
}

/// A call that takes something is never rejected.
pub(super) fn taken(counted: Result<OfNodes<usize>, PublishError>) -> Result<OfNodes<usize>, BusError> {
    counted.map_err(|error| match error {
        PublishError::Bus(error) => error,
        PublishError::Rejected(_) => BusError::Refused,
    })
}

impl Delivery {
    /// Notes that a backend has put a user into a room for this time. To be called in the order of the frames.
    pub(super) fn note_join(&self, user: &UserId, room: &RoomName, ttl: Duration) {
        let memberships = &self.inner.memberships;
        memberships.changed(user);
        memberships.note_put(user, room, ttl);
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
        let memberships = &self.inner.memberships;
        memberships.changed(user);
        memberships.here.take(user, room);
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

impl Reading<'_> {
    /// Whether no frame has changed anything since the read began, or since this was asked last.
    fn is_current(&mut self) -> bool {
        let now = self.memberships.reads.lock().get(self.user).map_or(0, |reads| reads.changes);
        std::mem::replace(&mut self.changes, now) == now
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut all = self.memberships.reads.lock();
        if let Some(reads) = all.get_mut(self.user) {
            reads.count -= 1;
            if reads.count == 0 {
                all.remove(self.user);
            }
        }
    }
}
