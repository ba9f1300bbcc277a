use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Semaphore;

use super::Member;
use crate::message::{ConnectionId, RoomName};

/// A named set of connections.
pub(super) struct Room {
    name: RoomName,
    members: Mutex<Members>,
    /// Counts the connections that have left.
    departures: AtomicU64,
    /// The fair lock of the room, with one permit. A semaphore, because its guard would borrow from the room that it is kept beside.
    pub(super) lock: Semaphore,
    /// The queue of emits, with one permit. Only its first waits for the lock, so that a join waits for one emit at most.
    pub(super) emit_queue: Semaphore,
    /// Emits that wait in the queue.
    pub(super) waiting_emits: AtomicUsize,
    /// Tasks that hold or await one of the locks: the room stays in the map meanwhile, empty or not.
    pub(super) holders: AtomicUsize,
    /// The last position of the room's mailbox that was published here, [`UNKNOWN`] at first. Raised under the lock.
    log_head: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

#[derive(Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// Of a room that is not small: where in the list each connection is.
    #[expect(clippy::box_collection, reason = "most rooms are small, and have none")]
    places: Option<Box<HashMap<ConnectionId, usize>>>,
    /// Of such a room: the list as emits take it, from one on until a connection joins or leaves. To copy it for each is to touch each
    /// member twice.
    snapshot: Option<Arc<[Arc<Member>]>>,
}

/// The connections that were in a room at one moment.
pub(super) enum Snapshot {
    /// A user's devices, most often: they need no memory of their own.
    Few(SmallVec<[Arc<Member>; 4]>),
    Many(Arc<[Arc<Member>]>),
}

impl std::ops::Deref for Snapshot {
    type Target = [Arc<Member>];

    fn deref(&self) -> &[Arc<Member>] {
        match self {
            Self::Few(members) => members,
            Self::Many(members) => members,
        }
    }
}

/// Rooms with at most this many members have no index: a search of the list is as fast.
const SMALL: usize = 16;

impl Room {
    pub(super) fn new(name: RoomName) -> Self {
        Self {
            name,
            members: Mutex::default(),
            departures: AtomicU64::new(0),
            lock: Semaphore::new(1),
            emit_queue: Semaphore::new(1),
            waiting_emits: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
            log_head: AtomicU64::new(UNKNOWN),
        }
    }

    pub(super) fn name(&self) -> &RoomName {
        &self.name
    }

    /// Adds a connection that is not in the room. True if it was empty before.
    pub(super) fn insert(&self, member: Arc<Member>) -> bool {
        self.members.lock().insert(member)
    }

    /// True if it is empty now and was not before.
    pub(super) fn remove(&self, id: ConnectionId) -> bool {
        let mut members = self.members.lock();
        let removed = members.remove(id);
        self.departures.fetch_add(u64::from(removed.is_some()), Ordering::Release);
        let is_empty = members.list.is_empty();
        // Dropped without the lock.
        drop(members);
        removed.is_some() && is_empty
    }

    pub(super) fn members(&self) -> Snapshot {
        self.members.lock().snapshot()
    }

    pub(super) fn len(&self) -> usize {
        self.members.lock().list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn log_head(&self) -> Option<u64> {
        Some(self.log_head.load(Ordering::Acquire)).filter(|head| *head != UNKNOWN)
    }

    pub(super) fn set_log_head(&self, position: u64) {
        self.log_head.store(position, Ordering::Release);
    }

    /// Raises it, if it is known. It may be forgotten at any time.
    pub(super) fn raise_log_head(&self, position: u64) {
        // [`UNKNOWN`] is above all positions.
        let raise = |head| (head < position).then_some(position);
        let _ = self.log_head.fetch_update(Ordering::Release, Ordering::Relaxed, raise);
    }

    pub(super) fn forget_log_head(&self) {
        self.set_log_head(UNKNOWN);
    }

    /// How many connections have left since the room was made.
    pub(super) fn departures(&self) -> u64 {
        self.departures.load(Ordering::Acquire)
    }
}

impl Members {
    fn insert(&mut self, member: Arc<Member>) -> bool {
        self.snapshot = None;
        let place = self.list.len();
        if place == 0 {
            // Most rooms have one member.
            self.list.reserve_exact(1);
        }
        if let Some(places) = &mut self.places {
            places.insert(member.id(), place);
        }
        self.list.push(member);
        if self.places.is_none() && self.list.len() > SMALL {
            let places = self.list.iter().enumerate().map(|(place, member)| (member.id(), place));
            self.places = Some(Box::new(places.collect()));
        }
        place == 0
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Arc<Member>> {
        let place = match &mut self.places {
            Some(places) => places.remove(&id)?,
            None => self.list.iter().position(|member| member.id() == id)?,
        };
        self.snapshot = None;
        let removed = self.list.swap_remove(place);
        if let (Some(places), Some(moved)) = (&mut self.places, self.list.get(place)) {
            places.insert(moved.id(), place);
        }
        self.shrink();
        Some(removed)
    }

    /// A room that was large once does not stay so.
    fn shrink(&mut self) {
        if self.list.len() <= SMALL / 2 {
            self.places = None;
        }
        if self.list.capacity() > 64 && self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
            if let Some(places) = &mut self.places {
                places.shrink_to(self.list.len() * 2);
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        if self.list.len() <= SMALL {
            return Snapshot::Few(self.list.iter().cloned().collect());
        }
        let snapshot = self.snapshot.get_or_insert_with(|| self.list.iter().cloned().collect());
        Snapshot::Many(snapshot.clone())
    }
}
