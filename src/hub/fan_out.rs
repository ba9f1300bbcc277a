use std::{collections::HashSet, sync::Arc};

use dashmap::mapref::entry::Entry;

use super::{
    Frame, Hub, Member,
    member::{Delivery, is_fatal},
    room::Room,
};
use crate::message::{CloseCode, ConnectionId, Exceptions, RoomName, UserId};

/// After this many deliveries, others get a chance to run.
const STRETCH: usize = 128;

/// What became of a frame at a room's connections: each counts once as matched, and once as enqueued or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were in the room, not excepted and not gone.
    pub matched: u64,
    /// Of those, the ones whose queue took the frame.
    pub enqueued: u64,
    /// Of those, the ones whose queue did not.
    pub dropped: u64,
}

impl Hub {
    /// Sends a frame to a room's connections, after whatever has the room's turn. Those that cannot take it are closed as slow,
    /// unless the frame is volatile.
    pub async fn fan_out(&self, name: &RoomName, frame: Frame, except: &Exceptions) -> Counts {
        let Some(room) = self.hold(name) else {
            return Counts::default();
        };
        self.fan_out_in(&room, Arc::new(frame), except).await
    }

    async fn fan_out_in(&self, room: &Room, frame: Arc<Frame>, except: &Exceptions) -> Counts {
        let _turn = room.turn.lock().await;
        let excepted = Excepted::new(self, except);
        let mut counts = Counts::default();
        for (index, member) in room.members().iter().enumerate() {
            if index % STRETCH == STRETCH - 1 {
                tokio::task::yield_now().await;
            }
            if !excepted.contains(member) {
                self.deliver(member, &frame, &mut counts);
            }
        }
        counts
    }

    fn deliver(&self, member: &Arc<Member>, frame: &Arc<Frame>, counts: &mut Counts) {
        match member.deliver(frame) {
            Delivery::Gone => return,
            Delivery::Ended => {
                self.ended(member, "transport_close");
                return;
            }
            Delivery::Enqueued => counts.enqueued += 1,
            Delivery::Dropped(error) => {
                counts.dropped += 1;
                if is_fatal(Err(error), frame) {
                    self.close(member, &CloseCode::Slow.into());
                }
            }
        }
        counts.matched += 1;
    }

    fn hold(&self, name: &RoomName) -> Option<Held<'_>> {
        let room = self.rooms.get(name)?.clone();
        Some(Held { hub: self, room: Some(room) })
    }
}

/// A room that stays while this does, empty or not.
struct Held<'a> {
    hub: &'a Hub,
    room: Option<Arc<Room>>,
}

impl std::ops::Deref for Held<'_> {
    type Target = Room;

    fn deref(&self) -> &Room {
        self.room.as_ref().expect("given up in drop alone")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else {
            return;
        };
        let name = room.name().clone();
        drop(room);
        // Looked at only now: whoever left while the room was held could not forget it.
        if self.hub.rooms.get(&name).is_some_and(|room| room.is_empty())
            && let Entry::Occupied(room) = self.hub.rooms.entry(name)
        {
            self.hub.vacate(room);
        }
    }
}

struct Excepted<'a> {
    connections: HashSet<ConnectionId>,
    users: HashSet<&'a UserId>,
}

impl<'a> Excepted<'a> {
    fn new(hub: &Hub, except: &'a Exceptions) -> Self {
        let in_rooms = except.rooms.iter().flat_map(|room| hub.members(room)).map(|member| member.id());
        Self {
            connections: except.connections.iter().copied().chain(in_rooms).collect(),
            users: except.users.iter().collect(),
        }
    }

    fn contains(&self, member: &Member) -> bool {
        (!self.connections.is_empty() && self.connections.contains(&member.id()))
            || (!self.users.is_empty() && self.users.contains(member.user()))
    }
}
