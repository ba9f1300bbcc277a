use std::{sync::Arc, time::Duration};

use super::Delivery;
use crate::hub::Member;
use crate::message::{Position, RoomName, UserId};
use crate::state::TooMany;

impl Delivery {
    /// Puts a connection into a room, and sends it what is retained there; one that resumes is told where the room stands. False if
    /// it was there, or is gone.
    pub(super) async fn join(&self, member: &Arc<Member>, room: &RoomName) -> bool {
        let guard = self.hub().lock_room(room).await;
        let joined = guard.join(member);
        if joined {
            self.send_retained(&guard, member);
            // With the room locked: nothing that it has not got is before this position, and nothing that it has is after it.
            if let Some(position) = self.position_for(member, room).await {
                self.hub().send(member, Self::position_frame(room, &position));
            }
        }
        joined
    }

    /// The same for a connection that has not gone live: it is told later. `replaying`: it is first given what it has missed there. None: it was
    /// there, or is gone.
    pub(super) async fn join_early(
        &self,
        member: &Arc<Member>,
        room: &RoomName,
        replaying: bool,
    ) -> Option<Option<Position>> {
        let guard = self.hub().lock_room(room).await;
        let joined = if replaying { guard.join_replaying(member) } else { guard.join(member) };
        if !joined {
            return None;
        }
        self.send_retained(&guard, member);
        Some(if replaying { None } else { self.position_for(member, room).await })
    }

    /// Where a room stands, for a connection that resumes, as far as can be told. The room is to be locked.
    async fn position_for(&self, member: &Member, room: &RoomName) -> Option<Position> {
        if !member.connection().resumes() {
            return None;
        }
        if let Some(position) = self.inner.history.position(room) {
            return Some(position);
        }
        let store = self.store()?;
        let mailbox = store.mailbox(room).await.ok()?.unwrap_or_default();
        store.position(mailbox.last).await.ok()
    }

    /// Puts a user into a room: the connections of now, and for `ttl` those to come. Says how many joined.
    pub async fn join_user(&self, user: &UserId, room: &RoomName, ttl: Duration) -> Result<usize, TooMany> {
        // Noted first: a connection that comes in between sees the note, or is seen here.
        self.inner.memberships.put(user, room, ttl)?;
        let mut joined = 0;
        for member in self.hub().of_user(user) {
            joined += usize::from(self.join_as_member(&member, room).await);
        }
        Ok(joined)
    }

    pub(super) async fn join_again(&self, user: &UserId, room: &RoomName) {
        for member in self.hub().of_user(user) {
            self.join_as_member(&member, room).await;
        }
    }

    /// These rooms and those that backends put the user into, each once.
    pub fn rooms_of(&self, user: &UserId, rooms: &[RoomName]) -> Vec<RoomName> {
        let mut all = rooms.to_vec();
        let put = self.inner.memberships.rooms(user);
        all.extend(put.into_iter().filter(|room| !rooms.contains(room)));
        all
    }

    /// Takes a user out of a room, now and for connections to come. Says how many connections left.
    pub fn leave_user(&self, user: &UserId, room: &RoomName) -> usize {
        self.inner.memberships.take(user, room);
        self.leave_now(user, room)
    }

    /// Whether a backend has put a user into a room.
    pub fn is_member(&self, user: &UserId, room: &RoomName) -> bool {
        self.inner.memberships.has(user, room)
    }

    /// Gives a user the right to join a room, for `ttl`.
    pub fn allow_user(&self, user: &UserId, room: &RoomName, ttl: Duration) -> Result<(), TooMany> {
        self.inner.grants.put(user, room, ttl)
    }

    /// Whether a backend has given a user the right to join a room.
    pub fn is_allowed(&self, user: &UserId, room: &RoomName) -> bool {
        self.inner.grants.has(user, room)
    }

    /// Takes the right to join a room back, and the user's connections out of it, unless a backend has put the user there. Says how
    /// many connections left.
    pub fn forbid_user(&self, user: &UserId, room: &RoomName) -> usize {
        self.inner.grants.take(user, room);
        if self.inner.memberships.has(user, room) { 0 } else { self.leave_now(user, room) }
    }

    pub(super) fn leave_now(&self, user: &UserId, room: &RoomName) -> usize {
        let members = self.hub().of_user(user);
        members.iter().filter(|member| self.hub().leave(member, room)).count()
    }
}
