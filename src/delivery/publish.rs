use std::{future::Future, pin::Pin, sync::atomic::Ordering, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Delivery, IdempotencyKey, acks::PendingAcks, collapse::Topic, envelope::enveloped, execute::publish_to_nobody,
};
use crate::hub::{RoomGuard, TryLock};
use crate::message::{Emit, MessageId, Payload, Receipt, RoomName, UserId};
use crate::state::{Claim, Claimed, KeyReused, RetainedFull};

/// Why an emit was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// No more payloads can be retained.
    #[error("retain.max_entries is exceeded")]
    RetainedFull,
    /// No more of this room.
    #[error("retain.max_room_bytes is exceeded")]
    RetainedRoomFull,
    /// The store cannot be reached, or does not write.
    #[error("the store cannot be reached")]
    StoreUnavailable,
    /// Too much waits for the store already.
    #[error("too much waits for the store")]
    StoreBusy,
    /// No more collapse keys can have a window.
    #[error("collapse.max_keys is exceeded")]
    CollapseFull {
        /// When some of them are closed.
        retry_after: Duration,
    },
}

impl From<KeyReused> for EmitError {
    fn from(_: KeyReused) -> Self {
        Self::KeyReused
    }
}

impl From<RetainedFull> for EmitError {
    fn from(full: RetainedFull) -> Self {
        match full {
            RetainedFull::Entries => Self::RetainedFull,
            RetainedFull::RoomBytes => Self::RetainedRoomFull,
        }
    }
}

/// What became of an emit: its receipt, and the acknowledgements that are still awaited, if it asked for any.
pub type Published = Result<(Receipt, Option<PendingAcks>), EmitError>;

/// An emit that may not be published yet. The futures are to be polled to their end, even if the caller disconnects: half a room would have
/// the event, and a repetition would send it twice.
pub enum Publishing {
    /// It is published, or refused.
    Done(Published),
    /// It waits in its room's log lane: stored emits to the room that are accepted later follow it.
    InLane(Pin<Box<dyn Future<Output = Published> + Send>>),
    /// It has no place yet among the emits to its room.
    Waiting(Pin<Box<dyn Future<Output = Published> + Send>>),
}

/// An emit that was accepted.
pub(super) struct Accepted {
    pub(super) emit: Emit,
    pub(super) message_id: MessageId,
    /// Emits that are accepted later have larger ones.
    pub(super) number: u64,
    pub(super) time: Timestamp,
    pub(super) received: Instant,
}

impl Accepted {
    pub(super) fn room(&self) -> &RoomName {
        self.emit.audience.room()
    }

    /// The payload as it is sent.
    pub(super) fn payload(&self) -> Payload {
        if self.emit.envelope { enveloped(&self.emit, self.time) } else { self.emit.payload.clone() }
    }
}

impl Delivery {
    /// Publishes an event to its audience; `received` is when it was asked for.
    pub async fn publish(&self, emit: Emit, key: Option<IdempotencyKey>, received: Instant) -> Published {
        match self.begin_publish(emit, key, received) {
            Publishing::Done(published) => published,
            Publishing::InLane(publishing) | Publishing::Waiting(publishing) => publishing.await,
        }
    }

    /// The same, without waiting: an emit that keeps nothing to a small room that nobody has locked is published by this call.
    pub fn begin_publish(&self, emit: Emit, key: Option<IdempotencyKey>, received: Instant) -> Publishing {
        let now = self.inner.clock.now();
        let number = self.inner.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let accepted = Accepted { emit, message_id: MessageId::at(now), number, time: now, received };
        match key {
            None => self.route(accepted, None),
            Some(key) => self.dedupe(accepted, key),
        }
    }

    /// Whether the key was used for another emit to this audience.
    pub fn is_reused(&self, emit: &Emit, key: &IdempotencyKey) -> bool {
        self.inner.idempotency.is_reused(&key.scope(&emit.audience), key.request_hash())
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
        Publishing::Waiting(Box::pin(async move {
            running.settled().await;
            match delivery.dedupe(accepted, key) {
                Publishing::Done(published) => published,
                Publishing::InLane(publishing) | Publishing::Waiting(publishing) => publishing.await,
            }
        }))
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
                Publishing::Waiting(Box::pin(async move {
                    let published = delivery.publish_in_order(*accepted).await;
                    settled(published, claim)
                }))
            }
        }
    }

    /// Publishes an emit, unless the room is locked or large, or earlier emits are to be sent first: then it is returned.
    fn publish_now(&self, accepted: Accepted) -> Result<Published, Box<Accepted>> {
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
            TryLock::Locked(guard) if guard.is_small() => Ok(self.publish_locked_now(&guard, accepted)),
            TryLock::Locked(_) | TryLock::Busy => Err(Box::new(accepted)),
        }
    }

    /// Publishes an emit once the room can be locked, after those that were deferred and came before it.
    async fn publish_in_order(&self, accepted: Accepted) -> Published {
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

    /// Whether the emit is kept for connections that join later: then the room is locked even if it is empty.
    fn keeps(&self, accepted: &Accepted) -> bool {
        accepted.emit.retain || self.inner.history.keeps(accepted.room())
    }

    /// Whether an event could be kept, and could wait, for each of these users, as far as can be told before.
    pub fn check_capacity(&self, emit: &Emit, users: &[UserId]) -> Result<(), EmitError> {
        if emit.collapse_key.is_some() {
            self.inner.collapse.has_room_for(users.len())?;
        }
        if !emit.retain {
            return Ok(());
        }
        let rooms: Vec<_> = users.iter().map(RoomName::of_user).collect();
        self.can_retain(&rooms, emit)
    }

    pub(super) fn can_retain<'a>(
        &self,
        rooms: impl IntoIterator<Item = &'a RoomName>,
        emit: &Emit,
    ) -> Result<(), EmitError> {
        Ok(self.inner.retained.has_room_for(rooms, &emit.event, &emit.payload)?)
    }
}

/// Notes the result of the first emit under a key.
pub(super) fn settled(published: Published, claim: Option<Claim>) -> Published {
    let Some(claim) = claim else {
        return published;
    };
    let (receipt, acks) = published?;
    let acks = match acks {
        None => {
            claim.done(&receipt);
            None
        }
        Some(acks) => Some(acks.with_claim(claim, &receipt)),
    };
    Ok((receipt, acks))
}

fn duplicate(first: Receipt) -> Receipt {
    Receipt { duplicate: true, ..first }
}
