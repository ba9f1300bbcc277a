use std::{sync::Arc, time::Duration};

use super::{
    Delivery,
    faulty_logs::FailedReads,
    log_lane::published_head,
    resumed::{Resumed, Standing},
    retained::RetainedRead,
};
use crate::cluster::BusError;
use crate::hub::{Member, Reason, RoomGuard};
use crate::message::{OfNodes, Position, RoomName, UserId};
use crate::state::PutError;
use crate::store;

impl Delivery {
    /// Puts a connection into a room, and sends it what is retained there; one that resumes is told where the room stands. False if
    /// it was there, and has one more reason now, or is gone.
    pub(super) async fn join(&self, member: &Arc<Member>, room: &RoomName, reason: Reason) -> bool {
        let subscribed = self.inner.bus.subscribe([room]).await;
        let read = if subscribed.is_confirmed() { None } else { Some(None) };
        let _held = self.hold_with_heads([room].into_iter()).await;
        self.read_history_heads([room].into_iter()).await;
        let (guard, retained) = self.lock_with_retained(room, read).await;
        let joined = guard.join(member, reason);
        if joined {
            self.send_retained(&guard, member, retained);
            self.send_position(&guard, member);
        }
        joined
    }

    /// The same for a connection that has not gone live: it is told later. `replay`: what it has missed there is replayed first. `None`: it
    /// was there, or is gone.
    pub(super) async fn join_early(
        &self,
        member: &Arc<Member>,
        room: &RoomName,
        reason: Reason,
        replay: bool,
        retained: Option<RetainedRead>,
    ) -> Option<Standing> {
        let (guard, retained) = self.lock_with_retained(room, retained).await;
        let joined = if replay { guard.join_replaying(member, reason) } else { guard.join(member, reason) };
        joined.then(|| {
            self.send_retained(&guard, member, retained);
            self.standing(&guard)
        })
    }

    /// Tells a connection that resumes where the room stands: nothing that it has not got is before this position, and nothing that it has is
    /// after it. If that is not known, it is read first, without the lock.
    fn send_position(&self, guard: &RoomGuard<'_>, member: &Arc<Member>) {
        if !member.connection().resumes() {
            return;
        }
        match self.standing(guard) {
            Standing::NoLog => {}
            Standing::At(position) => self.hub().send(member, Self::position_frame(guard.room(), &position)),
            Standing::Unknown => {
                let (delivery, member, room) = (self.clone(), member.clone(), guard.room().clone());
                self.inner.lifecycle.spawn(async move { delivery.send_position_later(&member, &room).await });
            }
        }
    }

    /// The same once the position can be read. If it cannot, the device is told that. Ends when the connection does.
    pub(super) async fn send_position_later(&self, member: &Arc<Member>, room: &RoomName) {
        let read = async {
            let mut failed = FailedReads::default();
            while let Err(error) = self.log_position(room).await {
                if failed.is_final(&error) || self.wait_for_log(room, &mut failed).await.is_none() {
                    self.inner.faulty_logs.note(room, &error);
                    if member.is_in(room) {
                        self.hub().send(member, Self::resumed_frame(room, Resumed::unreadable()));
                    }
                    return;
                }
            }
            let guard = self.hub().lock_room(room).await;
            if let Standing::At(position) = self.standing(&guard)
                && member.is_in(room)
            {
                self.hub().send(member, Self::position_frame(room, &position));
            }
        };
        tokio::select! {
            () = read => {}
            () = member.gone() => {}
        }
    }

    /// Where a locked room stands.
    pub(super) fn standing(&self, guard: &RoomGuard<'_>) -> Standing {
        if self.has_history(guard.room()) {
            return self.history_position(guard.room()).map_or(Standing::Unknown, Standing::At);
        }
        let Some(store) = self.store() else {
            return Standing::NoLog;
        };
        // The epoch first: heads are forgotten before a new one begins.
        let epoch = store.epoch();
        let position = epoch.zip(published_head(guard)).map(|(epoch, head)| Position::new(epoch, head));
        position.map_or(Standing::Unknown, Standing::At)
    }

    /// Where a room stands, from the store or the engine if need be.
    pub(super) async fn log_position(&self, room: &RoomName) -> Result<Position, store::Error> {
        if self.has_history(room) {
            return match self.inner.history.position(room).filter(|_| self.is_alone()) {
                Some(position) => Ok(position),
                None => Ok(self.history_head(room).await?.position()),
            };
        }
        let store = self.store().ok_or(store::Error::Closed)?;
        loop {
            let begin = store.position(0).await?;
            let position = Position { number: self.log_head(room).await?, ..begin };
            // Else it may have been read in a new epoch.
            if store.epoch().as_ref() == Some(&position.epoch) {
                return Ok(position);
            }
        }
    }

    /// Puts a user into a room, for an API key: the connections of now, and for `ttl` those to come. Says how many joined.
    pub async fn join_user(
        &self,
        caller: &Arc<str>,
        user: &UserId,
        room: &RoomName,
        ttl: Duration,
    ) -> Result<OfNodes<usize>, PutError> {
        // Noted first: a connection that comes in between sees the note, or is seen here.
        if let Some(joined) = self.join_across(caller, (user, room), ttl).await {
            return joined;
        }
        self.inner.memberships.put(caller, user, room, ttl).map_err(PutError::TooMany)?;
        Ok(OfNodes::of_one(self.join_here(user, room).await))
    }

    /// Puts a user's connections into a room again, which `JoinRoom` joined while an earlier one ended.
    pub(super) async fn join_again(&self, user: &UserId, room: &RoomName) {
        for member in self.hub().of_user(user) {
            self.join_as_member(&member, room).await;
        }
    }

    /// These rooms and those that backends put the user into, each once.
    pub async fn rooms_of(&self, user: &UserId, rooms: &[RoomName]) -> Vec<RoomName> {
        let mut all = rooms.to_vec();
        let put = self.inner.memberships.load(user).await;
        all.extend(put.into_iter().filter(|room| !rooms.contains(room)));
        all
    }

    /// Ends what [`Delivery::join_user`] began, now and for connections to come. Says how many connections left: those that are in the room
    /// for another reason stay.
    pub async fn leave_user(&self, user: &UserId, room: &RoomName) -> Result<OfNodes<usize>, BusError> {
        if let Some(left) = self.leave_across(user, room).await {
            return left;
        }
        self.inner.memberships.take(user, room);
        let left = OfNodes::of_one(self.leave_now(user, room, Reason::Backend));
        // A JoinRoom in between saw its connections in the room still.
        if self.inner.memberships.has(user, room) {
            self.join_again(user, room).await;
        }
        Ok(left)
    }

    /// Takes the right to join a room back, and the user's connections out of it that joined by an event and have no other reason to be
    /// there. Says how many connections left.
    pub async fn forbid_user(&self, user: &UserId, room: &RoomName) -> Result<OfNodes<usize>, BusError> {
        if let Some(left) = self.forbid_across(user, room).await {
            return left;
        }
        Ok(OfNodes::of_one(self.forbid_here(user, room)))
    }

    /// The same of this node's connections.
    pub(super) fn forbid_here(&self, user: &UserId, room: &RoomName) -> usize {
        let members = self.hub().of_user(user);
        // Stops when a concurrent AllowRoom grants the right again: connections that have joined since stay.
        let members = members.iter().take_while(|_| !self.inner.grants.has_here(user, room));
        members.filter(|member| self.hub().leave(member, room, Reason::Device)).count()
    }

    pub(super) fn leave_now(&self, user: &UserId, room: &RoomName, reason: Reason) -> usize {
        let members = self.hub().of_user(user);
        members.iter().filter(|member| self.hub().leave(member, room, reason)).count()
    }
}
