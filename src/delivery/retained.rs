use std::sync::Arc;

use super::Delivery;
use crate::hub::{Frame, Member, RoomGuard};
use crate::message::{EventName, RoomName};
use crate::state::RetainedValue;

impl Delivery {
    /// Sends what is retained in a room to a connection that has just joined it. With the room locked: nothing newer can be on
    /// its way already, and nothing in between is missed.
    pub(super) fn send_retained(&self, guard: &RoomGuard<'_>, member: &Arc<Member>) {
        for (event, value) in self.retained_in(guard.room()) {
            if !value.except_users.contains(member.user()) {
                guard.send(member, Frame::on_join(event, value.payload));
            }
        }
    }

    /// The last payload of an event that is retained in a room.
    pub fn retained(&self, room: &RoomName, event: &str) -> Option<RetainedValue> {
        self.inner.retained.get(room, event, self.inner.clock.now())
    }

    /// All that is retained in a room, ordered by event.
    pub fn retained_in(&self, room: &RoomName) -> Vec<(EventName, RetainedValue)> {
        self.inner.retained.of_room(room, self.inner.clock.now())
    }

    /// Whether a room's last messages are kept.
    pub fn has_history(&self, room: &RoomName) -> bool {
        self.inner.history.keeps(room)
    }
}
