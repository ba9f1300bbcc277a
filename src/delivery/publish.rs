use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{
    Delivery, IdempotencyKey,
    accepted::{Accepted, EmitError, Place, Published, Publishing, settled},
    acks::PendingAcks,
    collapse_windows::Topic,
    execute::publish_to_nobody,
};
use crate::cluster::BusError;
use crate::hub::{RoomGuard, TryLock};
use crate::message::{Audience, Emit, MessageId, Receipt, RoomName, UserId};
use crate::state::{Claim, Claimed, KeyReused};

impl Delivery {
    /// Publishes an event of this API key to its audience; `received` is when the request arrived. An emit that keeps nothing, to a small room
    /// that is not locked, is published by this call.
    pub fn publish(&self, caller: &Arc<str>, emit: Emit, key: Option<IdempotencyKey>, received: Instant) -> Publishing {
        let now = self.inner.clock.now();
        let number = self.inner.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let caller = caller.clone();
        let (message_id, once) = (MessageId::at(now), false);
        let accepted = Accepted { caller, emit, message_id, number, time: now, received, change: 0, kept: None, once };
        if let Some(nodes) = self.others() {
            if accepted.emit.store {
                return self.store_across(accepted, key);
            }
            return self.publish_across(nodes, accepted, key);
        }
        match key {
            None => self.route(accepted, None),
            Some(key) => self.dedupe(accepted, key),
        }
    }

    /// The first of these users for whom the key was used for another emit. Of stored emits to several nodes, the store tells later.
    pub async fn first_reused<'a>(
        &self,
        emit: &Emit,
        users: &'a [UserId],
        key: &IdempotencyKey,
    ) -> Result<Option<&'a UserId>, BusError> {
        if emit.store && !self.is_alone() {
            return Ok(None);
        }
        let request_hash = key.request_hash();
        let scopes = users.iter().map(|user| key.scope(&Audience::user(user)));
        let index = match self.shared() {
            Err(_) => {
                let mut reused = scopes.map(|scope| self.inner.idempotency.is_reused(&scope, request_hash));
                reused.position(|is_reused| is_reused)
            }
            Ok(shared) => {
                let reused = shared.idempotency.reused(&scopes.collect::<Vec<_>>(), request_hash).await?;
                reused.iter().position(|is_reused| *is_reused)
            }
        };
        Ok(index.map(|index| &users[index]))
    }

    /// Runs the first emit under a key, and answers the others with its receipt.
    fn dedupe(&self, accepted: Accepted, key: IdempotencyKey) -> Publishing {
        let scope = key.scope(&accepted.emit.audience);
        let running = match self.inner.idempotency.claim(&scope, key.request_hash()) {
            Err(KeyReused) => return Publishing::Done(Err(EmitError::KeyReused)),
            Ok(Claimed::First(claim)) => return self.route(accepted, Some((key, claim))),
            Ok(Claimed::Done(first)) => return Publishing::Done(Ok((duplicate(first), None))),
            Ok(Claimed::Published(first, acks)) => {
                return Publishing::Done(Ok((duplicate(first), Some(PendingAcks::of_first(acks)))));
            }
            Ok(Claimed::Running(running)) => running,
        };
        let delivery = self.clone();
        let publishing = async move {
            running.settled().await;
            delivery.dedupe(accepted, key).done().await
        };
        Publishing::Pending(Place::Unplaced, Box::pin(publishing))
    }

    fn route(&self, accepted: Accepted, claimed: Option<(IdempotencyKey, Claim)>) -> Publishing {
        if accepted.emit.store {
            return self.append(accepted, claimed);
        }
        let claim = claimed.map(|(_, claim)| claim);
        if let Some(key) = accepted.emit.collapse_key.clone() {
            return self.collapse(accepted, key, claim);
        }
        self.publish_accepted(accepted, claim)
    }

    /// Publishes by this call if nothing is to be waited for.
    pub(super) fn publish_accepted(&self, accepted: Accepted, claim: Option<Claim>) -> Publishing {
        match self.publish_now(accepted) {
            Ok(published) => Publishing::Done(settled(published, claim)),
            Err(accepted) => {
                let delivery = self.clone();
                let publishing = async move { settled(delivery.publish_in_order(*accepted).await, claim) };
                Publishing::Pending(Place::Unplaced, Box::pin(publishing))
            }
        }
    }

    /// Publishes an emit, unless the room is locked or large, or earlier emits are to be sent first: then it is returned.
    pub(super) fn publish_now(&self, accepted: Accepted) -> Result<Published, Box<Accepted>> {
        let room = accepted.room();
        let guard = if self.overtakes(&accepted) {
            TryLock::Busy
        } else if self.keeps(&accepted) {
            self.hub().try_lock_room_for_emit(room).map_or(TryLock::Busy, TryLock::Locked)
        } else {
            self.hub().try_lock_occupied_room_for_emit(room)
        };
        match guard {
            TryLock::Empty => Ok(Ok((publish_to_nobody(&accepted), None))),
            TryLock::Locked(guard) if guard.is_small(accepted.emit.ack.is_some()) => {
                Ok(self.publish_locked_now(&guard, accepted, None))
            }
            TryLock::Locked(_) | TryLock::Busy => Err(Box::new(accepted)),
        }
    }

    /// Publishes an emit once the room can be locked, after those that were deferred and came before it.
    pub(super) async fn publish_in_order(&self, accepted: Accepted) -> Published {
        let room = accepted.room().clone();
        let overtakes = self.overtakes(&accepted);
        let guard = if overtakes || self.keeps(&accepted) {
            Some(self.hub().lock_room_for_emit(&room).await)
        } else {
            self.hub().lock_occupied_room_for_emit(&room).await
        };
        let Some(guard) = guard else {
            return Ok((publish_to_nobody(&accepted), None));
        };
        if overtakes {
            self.publish_earlier(&guard, &accepted).await;
        }
        self.publish_locked(&guard, accepted, None).await
    }

    /// Publishes the deferred emits that came before this one, which has no key: nothing asks for another order.
    async fn publish_earlier(&self, guard: &RoomGuard<'_>, accepted: &Accepted) {
        for earlier in self.inner.collapse.take_earlier(&Topic::of(&accepted.emit), accepted.number) {
            self.publish_deferred(earlier, guard).await;
        }
    }

    /// Whether deferred emits came before this one.
    fn overtakes(&self, accepted: &Accepted) -> bool {
        accepted.emit.collapse_key.is_none() && self.inner.collapse.has_waiting(|| Topic::of(&accepted.emit))
    }

    /// Whether connections that join later are concerned: then the room is locked even if it is empty. A change of what the room retains at the
    /// engine is noted for those that have read it before, and join now; an emit that may come again is remembered.
    fn keeps(&self, accepted: &Accepted) -> bool {
        accepted.emit.retain || accepted.change != 0 || accepted.once || self.inner.history.keeps(accepted.room())
    }

    /// Whether an event could be kept, and could wait, for each of these users, as far as can be told before.
    pub async fn check_capacity(&self, emit: &Emit, users: &[UserId]) -> Result<(), EmitError> {
        if emit.collapse_key.is_some() {
            self.inner.collapse.has_room_for(users.len())?;
        }
        if !emit.retain {
            return Ok(());
        }
        let rooms: Vec<_> = users.iter().map(RoomName::of_user).collect();
        match self.shared() {
            Err(_) => self.can_retain(&rooms, emit),
            Ok(shared) => {
                let rooms: Vec<_> = rooms.iter().collect();
                let (event, payload, except) = (&emit.event, &emit.payload, &emit.except.users);
                Ok(shared.retained.can_retain(&rooms, event, payload, except).await??)
            }
        }
    }

    pub(super) fn can_retain<'a>(
        &self,
        rooms: impl IntoIterator<Item = &'a RoomName>,
        emit: &Emit,
    ) -> Result<(), EmitError> {
        Ok(self.inner.retained.has_room_for(rooms, &emit.event, &emit.payload, &emit.except.users)?)
    }
}

pub(super) fn duplicate(first: Receipt) -> Receipt {
    Receipt { duplicate: true, ..first }
}
