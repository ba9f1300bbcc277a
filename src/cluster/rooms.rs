//! The rooms that this node is subscribed to, or is to be.

use std::{sync::Arc, time::Duration};

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::shard::Shard;
use crate::message::RoomName;

/// Rooms of one shard. A room is *wanted* until the engine has confirmed its subscription, and *hot* from then on, as long as the subscribing
/// connection lives. It is given up when no connection was in it for some time.
#[derive(Default)]
pub(super) struct Rooms {
    entries: Mutex<IndexMap<RoomName, Entry>>,
    requests: Mutex<Requests>,
    pub(super) requested: Notify,
}

#[derive(Default)]
enum Requests {
    /// No receipt counts this node as ready: joins do not wait.
    #[default]
    Refused,
    /// What joins wait for.
    Accepted(Vec<Request>),
    /// This node has left: joins never wait again.
    Closed,
}

#[derive(Default)]
struct Entry {
    is_hot: bool,
    /// Joins that are under way.
    pins: usize,
    /// Since when no connection was in the room, as far as sweeps have seen.
    empty_since: Option<Instant>,
}

/// Rooms that a join waits for.
pub(super) struct Request {
    pub(super) rooms: Vec<RoomName>,
    /// Dropped if they cannot be subscribed now.
    pub(super) done: oneshot::Sender<()>,
}

/// Keeps rooms subscribed while a connection joins them.
pub(super) struct Pin {
    shard: Arc<Shard>,
    names: Vec<RoomName>,
}

/// Rooms that one step of a sweep looks at.
const SWEEP_STEP: usize = 1_000;

impl Requests {
    /// Accepts requests, and returns those that wait. `None`: this node has left.
    fn accept(&mut self) -> Option<&mut Vec<Request>> {
        if matches!(self, Self::Refused) {
            *self = Self::Accepted(Vec::new());
        }
        match self {
            Self::Accepted(requests) => Some(requests),
            Self::Refused | Self::Closed => None,
        }
    }
}

impl Rooms {
    /// Wants rooms, and returns a pin to each. The receiver tells when they are hot, or that this takes until another connection is there.
    pub(super) fn want(shard: &Arc<Shard>, names: Vec<RoomName>) -> (Pin, Option<oneshot::Receiver<()>>) {
        let rooms = &shard.rooms;
        let mut cold = Vec::new();
        {
            let mut entries = rooms.entries.lock();
            for name in &names {
                let entry = entries.entry(name.clone()).or_default();
                entry.pins += 1;
                entry.empty_since = None;
                if !entry.is_hot {
                    cold.push(name.clone());
                }
            }
        }
        let done = (!cold.is_empty()).then(|| {
            let (done, confirmed) = oneshot::channel();
            if let Requests::Accepted(requests) = &mut *rooms.requests.lock() {
                requests.push(Request { rooms: cold, done });
            }
            rooms.requested.notify_one();
            confirmed
        });
        (Pin { shard: shard.clone(), names }, done)
    }

    /// Lets joins wait for their rooms.
    pub(super) fn accept_requests(&self) {
        self.requests.lock().accept();
    }

    /// Lets joins go on without their rooms, those that wait and later ones.
    pub(super) fn refuse_requests(&self) {
        let mut requests = self.requests.lock();
        if !matches!(*requests, Requests::Closed) {
            *requests = Requests::Refused;
        }
    }

    /// The same for good.
    pub(super) fn close_requests(&self) {
        *self.requests.lock() = Requests::Closed;
    }

    /// What joins wait for.
    pub(super) fn take_requests(&self) -> Vec<Request> {
        match &mut *self.requests.lock() {
            Requests::Accepted(requests) => std::mem::take(requests),
            Requests::Refused | Requests::Closed => Vec::new(),
        }
    }

    /// Lets joins wait on whose rooms could not be subscribed.
    pub(super) fn put_back(&self, taken: Vec<Request>) {
        if let Some(requests) = self.requests.lock().accept() {
            requests.extend(taken);
        }
        self.requested.notify_one();
    }

    /// Notes that the engine has confirmed these.
    pub(super) fn set_hot(&self, names: &[RoomName]) {
        let mut entries = self.entries.lock();
        for name in names {
            if let Some(entry) = entries.get_mut(name) {
                entry.is_hot = true;
            }
        }
    }

    /// Notes that the subscribing connection is lost: no room is hot.
    pub(super) fn set_all_cold(&self) {
        self.entries.lock().values_mut().for_each(|entry| entry.is_hot = false);
    }

    /// The rooms that are not hot.
    pub(super) fn cold(&self) -> Vec<RoomName> {
        let entries = self.entries.lock();
        entries.iter().filter(|(_, entry)| !entry.is_hot).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// How many joins keep some room.
    #[cfg(test)]
    pub(super) fn pins(&self) -> usize {
        self.entries.lock().values().map(|entry| entry.pins).sum()
    }

    /// Gives up the rooms that were empty for `linger`, and returns them. `is_occupied` says whether a connection is in a room; `forget` is told
    /// of each before a join can want it again.
    pub(super) fn sweep(
        &self,
        linger: Duration,
        is_occupied: impl Fn(&RoomName) -> bool,
        forget: impl Fn(&RoomName),
    ) -> Vec<RoomName> {
        let (mut index, mut given_up) = (0, Vec::new());
        loop {
            let now = Instant::now();
            let mut entries = self.entries.lock();
            let end = index + SWEEP_STEP;
            while index < end {
                let Some((name, entry)) = entries.get_index_mut(index) else {
                    shrink(&mut entries);
                    return given_up;
                };
                let is_pinned = entry.pins > 0;
                #[cfg(test)]
                let is_pinned = is_pinned && !is_broken(Rule::PinKeepsRoom);
                if is_pinned || is_occupied(name) {
                    entry.empty_since = None;
                } else if now - *entry.empty_since.get_or_insert(now) >= linger {
                    forget(name);
                    // The last one takes its place, and is looked at next.
                    given_up.extend(entries.swap_remove_index(index).map(|(name, _)| name));
                    continue;
                }
                index += 1;
            }
        }
    }
}

/// A node that had many rooms once does not keep their memory.
fn shrink(rooms: &mut IndexMap<RoomName, Entry>) {
    if rooms.capacity() > 1_024 && rooms.len() < rooms.capacity() / 4 {
        rooms.shrink_to(rooms.len() * 2);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut entries = self.shard.rooms.entries.lock();
        for name in &self.names {
            if let Some(entry) = entries.get_mut(name) {
                entry.pins -= 1;
            }
        }
    }
}
