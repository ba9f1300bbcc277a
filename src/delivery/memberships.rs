//! Where backends have put users.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::cluster::Shards;
use crate::message::{RoomName, UserId};
use crate::state::{SharedUserRooms, TooMany, UserRooms};

/// Users in rooms by `JoinRoom`. Among several nodes the engine has them, and this node knows those of the users that connected here.
pub(super) struct Memberships {
    here: UserRooms,
    pub(super) shared: Option<SharedUserRooms>,
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
pub(super) struct Reading<'a> {
    memberships: &'a Memberships,
    pub(super) user: &'a UserId,
    changes: u64,
}

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

    /// Ends that at this node, which is alone.
    pub(super) fn take(&self, user: &UserId, room: &RoomName) {
        self.here.take(user, room);
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

    pub(super) fn begin_read<'a>(&'a self, user: &'a UserId) -> Reading<'a> {
        let mut reads = self.reads.lock();
        let entry = reads.entry(user.clone()).or_default();
        entry.count += 1;
        Reading { memberships: self, user, changes: entry.changes }
    }

    /// Notes that a backend has put a user into a room for this time. To be called in the order of the frames.
    pub(super) fn join(&self, user: &UserId, room: &RoomName, ttl: Duration) {
        self.changed(user);
        self.note_put(user, room, ttl);
    }

    /// Notes the end of that, likewise.
    pub(super) fn leave(&self, user: &UserId, room: &RoomName) {
        self.changed(user);
        self.here.take(user, room);
    }

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

    pub(super) fn note_put(&self, user: &UserId, room: &RoomName, ttl: Duration) {
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

impl Reading<'_> {
    /// Whether no frame has changed anything since the read began, or since this was asked last.
    pub(super) fn is_current(&mut self) -> bool {
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
