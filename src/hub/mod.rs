//! The connections on this node, the rooms that they are in, and fan-out.
//!
//! A connection enters as catching up, goes live, and ends gone, for good. It is in `user:{id}`, in `everyone` and in as many
//! other rooms as it joins; a room exists while a connection is in it.

mod connection;
pub use connection::{Connection, QueueError};

mod ack;
pub use ack::{AckSink, AckWaiter};

mod frame;
pub use frame::{EntryMeta, Form, Frame};

mod catching_up;
pub use catching_up::SentLive;

mod member;
pub use member::Member;

mod reasons;
pub use reasons::Reason;

mod room;

mod room_guard;
pub use room_guard::{HeldRoom, RoomGuard, TryLock};

mod fan_out;
pub use fan_out::{Counts, FanOut};

mod replay;
pub use replay::{PlainFrames, Replayed};

mod page;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::{DashMap, mapref::entry::Entry};

// What frames carry for edges, whose queues are the transport's.
pub use transport::{Unproven, WriteMode};

use self::room::Room;
use crate::message::{CloseReason, RoomName, UserId};
use crate::telemetry;

/// The connections on this node.
pub struct Hub {
    rooms: DashMap<RoomName, Arc<Room>>,
    /// Rooms and users with a connection: a room that somebody holds on to may have none.
    occupied: AtomicUsize,
    users: AtomicUsize,
    max_waiting_bytes: usize,
}

impl Hub {
    /// A hub without connections. What arrives for one that is still catching up waits, up to `max_waiting_bytes`.
    pub fn new(max_waiting_bytes: usize) -> Self {
        Self { rooms: DashMap::new(), occupied: AtomicUsize::new(0), users: AtomicUsize::new(0), max_waiting_bytes }
    }

    /// Lets a connection in, unless its user has `max_connections` already. It is in no room but that of `guard`, which is its user's, and
    /// there kept messages are replayed first if `replay` says what plain frames do meanwhile. Until it goes live, the frames that it is sent
    /// wait.
    pub fn admit(
        &self,
        guard: &RoomGuard<'_>,
        user: UserId,
        connection: Arc<dyn Connection>,
        replay: Option<PlainFrames>,
        max_connections: usize,
    ) -> Option<Arc<Member>> {
        let member = Arc::new(Member::new(user, connection, self.max_waiting_bytes));
        if !self.enter(&member, guard.room(), Reason::Token, replay, max_connections) {
            return None;
        }
        telemetry::connection_opened(member.connection().transport().as_str());
        Some(member)
    }

    fn enter(
        &self,
        member: &Arc<Member>,
        name: &RoomName,
        reason: Reason,
        replay: Option<PlainFrames>,
        max_connections: usize,
    ) -> bool {
        member.enter(name, reason, replay, |name| {
            let room = self.rooms.entry(name.clone()).or_insert_with(|| Arc::new(Room::new(name.clone())));
            if room.len() >= max_connections {
                return None;
            }
            if room.insert(member.clone()) {
                self.occupied.fetch_add(1, Ordering::Relaxed);
                self.users.fetch_add(usize::from(name.user().is_some()), Ordering::Relaxed);
            }
            // One name for all: a thousand members need not have a thousand copies, and a comparison ends at once.
            Some(room.name().clone())
        })
    }

    /// Takes a reason away for which a connection is in a room. True if it was the last one: the connection has left.
    pub fn leave(&self, member: &Arc<Member>, name: &RoomName, reason: Reason) -> bool {
        member.exit(name, reason, |name| self.remove(member, name))
    }

    /// Closes a connection: it is out of every room at once, and its device is told if there is room in its queue. False if it
    /// was gone already.
    pub fn close(&self, member: &Arc<Member>, reason: &CloseReason) -> bool {
        let closed = self.forget(member);
        if closed {
            let code = reason.code.as_str();
            telemetry::connection_closed(code);
            log_end(member, code, &reason.text);
            member.connection().close(reason);
        }
        closed
    }

    /// Takes note that a connection ended by itself. False if it was gone already.
    pub fn ended(&self, member: &Arc<Member>, how: &'static str) -> bool {
        let ended = self.forget(member);
        if ended {
            telemetry::connection_closed(how);
            log_end(member, how, "");
        }
        ended
    }

    /// The position of the last message of a room's mailbox that was published here. `None`: not known, or no connection is in the room.
    pub fn log_head(&self, name: &RoomName) -> Option<u64> {
        self.rooms.get(name)?.log_head()
    }

    /// Notes the position up to which a room's mailbox was published, while no message is being published there.
    pub fn set_log_head(&self, name: &RoomName, position: u64) {
        if let Some(room) = self.rooms.get(name) {
            room.set_log_head(position);
        }
    }

    /// Forgets the position up to which a room's mailbox was published.
    pub fn forget_log_head(&self, name: &RoomName) {
        if let Some(room) = self.rooms.get(name) {
            room.forget_log_head();
        }
    }

    /// The same of all rooms.
    pub fn forget_log_heads(&self) {
        self.rooms.iter().for_each(|room| room.forget_log_head());
    }

    /// The same, and returns where those stood in which a connection is.
    pub fn take_log_heads(&self) -> Vec<(RoomName, u64)> {
        let take = |room: dashmap::mapref::multiple::RefMulti<'_, RoomName, Arc<Room>>| {
            let head = room.log_head();
            room.forget_log_head();
            head.filter(|_| !room.is_empty()).map(|head| (room.name().clone(), head))
        };
        self.rooms.iter().filter_map(take).collect()
    }

    /// The connections in a room, in no order.
    pub fn members(&self, name: &RoomName) -> Vec<Arc<Member>> {
        self.rooms.get(name).map(|room| room.members().to_vec()).unwrap_or_default()
    }

    /// The connections of a user, in no order.
    pub fn of_user(&self, user: &UserId) -> Vec<Arc<Member>> {
        self.members(&RoomName::of_user(user))
    }

    /// The number of connections in a room.
    pub fn connections_in(&self, name: &RoomName) -> usize {
        self.rooms.get(name).map_or(0, |room| room.len())
    }

    /// Whether a connection is in a room, or is about to join it, or the room is locked.
    pub fn is_in_use(&self, name: &RoomName) -> bool {
        self.rooms.contains_key(name)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections_in(&RoomName::everyone())
    }

    /// How many users have a connection.
    pub fn users(&self) -> usize {
        self.users.load(Ordering::Relaxed)
    }

    /// How many rooms have a connection.
    pub fn rooms(&self) -> usize {
        self.occupied.load(Ordering::Relaxed)
    }

    fn forget(&self, member: &Arc<Member>) -> bool {
        let Some(rooms) = member.end() else {
            return false;
        };
        for name in &rooms {
            self.remove(member, name);
        }
        true
    }

    fn remove(&self, member: &Arc<Member>, name: &RoomName) {
        if let Entry::Occupied(room) = self.rooms.entry(name.clone()) {
            if room.get().remove(member.id()) {
                self.occupied.fetch_sub(1, Ordering::Relaxed);
                self.users.fetch_sub(usize::from(name.user().is_some()), Ordering::Relaxed);
            }
            vacate(room);
        }
    }
}

/// Forgets an empty room, unless a task holds or awaits its lock: all tasks must use one lock.
/// A task that held the room comes here too when it is done.
fn vacate(room: dashmap::OccupiedEntry<'_, RoomName, Arc<Room>>) {
    if room.get().is_empty() && room.get().holders.load(Ordering::Acquire) == 0 {
        room.remove();
    }
}

fn log_end(member: &Member, code: &str, text: &str) {
    telemetry::audit::disconnected(member.user(), &member.id(), code, text);
    tracing::info!(
        connection.id = %member.id(),
        user.id = %member.user(),
        close.code = code,
        close.reason = text,
        "disconnected"
    );
}

#[cfg(test)]
pub(crate) mod fake;

#[cfg(test)]
mod tests;
