use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::mapref::entry::Entry;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Hub, Member, Reason,
    room::{Room, Snapshot},
    vacate,
};
use crate::message::RoomName;

/// The lock of a room. Its holder publishes to the room or joins a connection to it, and touches nothing but memory meanwhile.
pub struct RoomGuard<'a> {
    held: HeldRoom<'a>,
}

impl Hub {
    /// Keeps a room as it is, empty or not, without a lock. What is noted of its log stays known.
    pub fn hold_room(&self, name: &RoomName) -> HeldRoom<'_> {
        if let Some(room) = self.rooms.get(name) {
            return HeldRoom::new(self, &room);
        }
        HeldRoom::new(self, &self.rooms.entry(name.clone()).or_insert_with(|| Arc::new(Room::new(name.clone()))))
    }

    /// Locks a room for a join.
    pub async fn lock_room(&self, name: &RoomName) -> RoomGuard<'_> {
        self.hold_room(name).lock().await
    }

    /// Locks a room for an emit. Emits acquire the lock in FIFO order; joins go first.
    pub async fn lock_room_for_emit(&self, name: &RoomName) -> RoomGuard<'_> {
        self.hold_room(name).lock_for_emit().await
    }

    /// The same, if a connection is in the room.
    pub async fn lock_occupied_room_for_emit(&self, name: &RoomName) -> Option<RoomGuard<'_>> {
        let held = HeldRoom::new(self, &*self.rooms.get(name)?);
        Some(held.lock_for_emit().await)
    }

    /// Locks a room for an emit if nothing holds or awaits its lock.
    pub fn try_lock_room_for_emit(&self, name: &RoomName) -> Option<RoomGuard<'_>> {
        self.hold_room(name).try_lock_for_emit()
    }

    /// The same, if a connection is in the room.
    pub fn try_lock_occupied_room_for_emit(&self, name: &RoomName) -> TryLock<'_> {
        let Some(held) = self.rooms.get(name).map(|room| HeldRoom::new(self, &room)) else {
            return TryLock::Empty;
        };
        held.try_lock_for_emit().map_or(TryLock::Busy, TryLock::Locked)
    }
}

/// Whether a room could be locked at once.
pub enum TryLock<'a> {
    /// It is locked.
    Locked(RoomGuard<'a>),
    /// No connection is in the room.
    Empty,
    /// Another holds or awaits the lock.
    Busy,
}

impl<'a> RoomGuard<'a> {
    /// The name of the locked room.
    pub fn room(&self) -> &RoomName {
        self.held.room.name()
    }

    /// Puts a connection into the room. False if it was there, and has one more reason now, or is gone.
    pub fn join(&self, member: &Arc<Member>, reason: Reason) -> bool {
        self.held.hub.enter(member, self.room(), reason, None, usize::MAX)
    }

    /// The number of connections in the room.
    pub fn connections(&self) -> usize {
        self.held.room.len()
    }

    /// The position of the last message of the room's mailbox that was published here. `None`: not known yet.
    pub fn log_head(&self) -> Option<u64> {
        self.held.room.log_head()
    }

    /// Notes that the room's mailbox was published up to this position, if it is known how far it was before.
    pub fn raise_log_head(&self, position: u64) {
        self.held.room.raise_log_head(position);
    }

    pub(super) fn hub(&self) -> &'a Hub {
        self.held.hub
    }

    pub(super) fn departures(&self) -> u64 {
        self.held.room.departures()
    }

    /// The room's connections, and how many had left it before they were listed.
    pub(super) fn departures_and_members(&self) -> (u64, Snapshot) {
        (self.held.room.departures(), self.held.room.members())
    }

    pub(super) fn waiting_emits(&self) -> usize {
        self.held.room.waiting_emits.load(Ordering::Relaxed)
    }
}

/// A room that stays while this does, empty or not, and what is locked of it.
pub struct HeldRoom<'a> {
    hub: &'a Hub,
    room: Arc<Room>,
    has_lock: bool,
    is_first_in_queue: bool,
}

impl<'a> HeldRoom<'a> {
    /// `room` is in the map, whose shard is locked.
    fn new(hub: &'a Hub, room: &Arc<Room>) -> Self {
        room.holders.fetch_add(1, Ordering::Relaxed);
        Self { hub, room: room.clone(), has_lock: false, is_first_in_queue: false }
    }

    /// The room's name.
    pub fn name(&self) -> &RoomName {
        self.room.name()
    }

    /// Locks the room for a join.
    pub async fn lock(mut self) -> RoomGuard<'a> {
        lock(&self.room.lock).await;
        self.has_lock = true;
        RoomGuard { held: self }
    }

    async fn lock_for_emit(mut self) -> RoomGuard<'a> {
        if !try_lock(&self.room.emit_queue) {
            let _waiting = WaitingEmit::new(&self.room.waiting_emits);
            lock(&self.room.emit_queue).await;
        }
        self.is_first_in_queue = true;
        self.lock().await
    }

    /// Tokio's semaphores are fair: a permit goes to those that wait, so none overtakes them here.
    fn try_lock_for_emit(mut self) -> Option<RoomGuard<'a>> {
        self.is_first_in_queue = try_lock(&self.room.emit_queue);
        self.has_lock = self.is_first_in_queue && try_lock(&self.room.lock);
        self.has_lock.then_some(RoomGuard { held: self })
    }
}

/// Locks one of a room's locks; adding a permit unlocks it. Cancel safe.
async fn lock(lock: &Semaphore) {
    // It is never closed.
    if let Ok(permit) = lock.acquire().await {
        permit.forget();
    }
}

fn try_lock(lock: &Semaphore) -> bool {
    lock.try_acquire().map(SemaphorePermit::forget).is_ok()
}

/// An emit that waits for a room.
struct WaitingEmit<'a>(&'a AtomicUsize);

impl<'a> WaitingEmit<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaitingEmit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for HeldRoom<'_> {
    fn drop(&mut self) {
        if self.has_lock {
            self.room.lock.add_permits(1);
        }
        if self.is_first_in_queue {
            self.room.emit_queue.add_permits(1);
        }
        // Before the room's connections are counted: who leaves meanwhile sees that nobody holds the room, or is seen here.
        self.room.holders.fetch_sub(1, Ordering::AcqRel);
        if self.room.is_empty()
            && let Entry::Occupied(room) = self.hub.rooms.entry(self.room.name().clone())
        {
            vacate(room);
        }
    }
}
