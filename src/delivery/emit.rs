use std::{convert::Infallible, future::poll_fn, sync::atomic::Ordering, task::Poll, time::Duration};

use jiff::Timestamp;
use tokio::{sync::oneshot, time::Instant};

use super::{Delivery, IdempotencyKey, acks::PendingAcks, collapse::Topic, envelope::enveloped, proof::Publishing};
use crate::hub::{Counts, EntryMeta, Frame, RoomGuard, WriteMode};
use crate::message::{Audience, Emit, EventName, MessageId, Payload, Position, Receipt, RoomName, UserId};
use crate::state::{KeyReused, NewEntry, RetainedFull, RetainedValue};
use crate::telemetry;

/// Why an emit was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// No more payloads can be retained.
    #[error("retain.max_entries is met")]
    RetainedFull,
    /// No more of this room.
    #[error("retain.max_room_bytes is met")]
    RetainedRoomFull,
    /// The store cannot be reached, or does not write.
    #[error("the store cannot be reached")]
    StoreUnavailable,
    /// No more collapse keys can have a window.
    #[error("collapse.max_keys is met")]
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

/// An emit that is on its way.
pub(super) struct Accepted {
    pub(super) emit: Emit,
    pub(super) message_id: MessageId,
    /// Later emits have larger ones.
    pub(super) number: u64,
    time: Timestamp,
    pub(super) received: Instant,
    /// Kept until it is sent.
    sent: Option<SentSignal>,
}

impl Accepted {
    /// The payload as it is sent.
    pub(super) fn payload(&self) -> Payload {
        if self.emit.envelope { enveloped(&self.emit, self.time) } else { self.emit.payload.clone() }
    }
}

/// Goes when an emit is sent, or will not be, though its answer may wait for acknowledgements.
pub type SentSignal = oneshot::Sender<Infallible>;

impl Delivery {
    /// Sends an event to its audience; `received` is when it was asked for, and `sent` goes once it is sent. Once begun it is finished, even if the caller goes away: half a room would have the
    /// event, and a repetition would send it twice. So `done` is told in any case.
    pub async fn emit(
        &self,
        emit: Emit,
        key: Option<IdempotencyKey>,
        received: Instant,
        sent: Option<SentSignal>,
        done: impl FnOnce(&Result<Receipt, EmitError>) + Send + 'static,
    ) -> Result<Receipt, EmitError> {
        let delivery = self.clone();
        let mut sending = Box::pin(async move {
            let result = delivery.send_once(emit, key, received, sent).await;
            done(&result);
            result
        });
        // Nearly always this is all: the room lock is free, and the room is small.
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await {
            return done;
        }
        let (answer, answered) = oneshot::channel();
        self.inner.lifecycle.spawn(async move {
            let _ = answer.send(sending.await);
        });
        match answered.await {
            Ok(done) => done,
            // A hard stop dropped the task: the caller's connection goes the same way.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether the key was used for another emit to this audience.
    pub fn is_reused(&self, audience: &Audience, key: &IdempotencyKey) -> bool {
        self.inner.idempotency.is_reused(&key.scope(audience), key.request_hash())
    }

    async fn send_once(
        &self,
        emit: Emit,
        key: Option<IdempotencyKey>,
        received: Instant,
        sent: Option<SentSignal>,
    ) -> Result<Receipt, EmitError> {
        let now = self.inner.clock.now();
        let number = self.inner.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let mut accepted = Accepted { emit, message_id: MessageId::at(now), number, time: now, received, sent };
        let Some(key) = key else {
            return self.pass(accepted, None).await;
        };
        let (scope, request_hash) = (key.scope(&accepted.emit.audience), key.request_hash());
        if self.inner.idempotency.knows(&scope) {
            // It will not be sent, and the first one's answer may wait for acknowledgements.
            accepted.sent = None;
        }
        Box::pin(self.inner.idempotency.get_or_run(scope, request_hash, self.pass(accepted, Some(key)))).await
    }

    /// What few emits ask for is kept out of the way of the rest: its state would be moved with each of them.
    async fn pass(&self, accepted: Accepted, key: Option<IdempotencyKey>) -> Result<Receipt, EmitError> {
        if accepted.emit.store {
            return Box::pin(self.store_and_send(accepted, key)).await;
        }
        match accepted.emit.collapse_key.clone() {
            Some(key) => Box::pin(self.collapse(accepted, key)).await,
            None => self.send(accepted).await,
        }
    }

    pub(super) async fn send(&self, accepted: Accepted) -> Result<Receipt, EmitError> {
        let room = accepted.emit.audience.room();
        let overtakes =
            accepted.emit.collapse_key.is_none() && self.inner.collapse.has_waiting(|| Topic::of(&accepted.emit));
        // What is kept is for those who are not there yet, so the lock is needed even if the room is empty.
        let guard = if accepted.emit.retain || overtakes || self.inner.history.keeps(&room) {
            Some(self.hub().lock_room_for_emit(&room).await)
        } else {
            self.hub().lock_occupied_room_for_emit(&room).await
        };
        if overtakes && let Some(guard) = &guard {
            // It came before, and without a key nothing asks for another order.
            for earlier in self.inner.collapse.take_earlier(&Topic::of(&accepted.emit), accepted.number) {
                // Rare, and so kept out of the way of the rest.
                Box::pin(self.send_deferred(earlier, guard)).await;
            }
        }
        let (receipt, pending) = self.send_in(guard.as_ref(), accepted, None).await?;
        drop(guard);
        Ok(self.answered(receipt, pending).await)
    }

    /// Waits for the acknowledgements, if any were asked for.
    pub(super) async fn answered(&self, receipt: Receipt, pending: Option<PendingAcks>) -> Receipt {
        match pending {
            None => receipt,
            Some(pending) => Box::pin(self.acknowledged(receipt, pending)).await,
        }
    }

    /// Sends with the room locked. There is no guard if nobody is in the room and nothing is to be kept. `stored`: where the message stands in
    /// the room's mailbox. Whoever is asked for an acknowledgement is to be waited for once the lock is released.
    pub(super) async fn send_in(
        &self,
        guard: Option<&RoomGuard<'_>>,
        accepted: Accepted,
        stored: Option<&Position>,
    ) -> Result<(Receipt, Option<PendingAcks>), EmitError> {
        // Wrapped for somebody alone: the same large payload may go to a thousand users who are away.
        let payload = if guard.is_some() { accepted.payload() } else { accepted.emit.payload.clone() };
        let Accepted { emit, message_id, number, time, received, sent: _sent } = accepted;
        let room = emit.audience.room();
        if emit.retain && !self.inner.collapse.is_outdated(|| Topic::of(&emit), number) {
            // An envelope around nothing is not nothing, which takes the value away.
            let is_empty = matches!(emit.payload, Payload::None);
            let value = if is_empty { Payload::None } else { payload.clone() };
            let value = RetainedValue {
                payload: value,
                except_users: emit.except.users.clone(),
                expires_at: emit.ttl.and_then(|ttl| time.checked_add(ttl).ok()),
            };
            self.inner.retained.put(&room, &emit.event, value)?;
            self.inner.collapse.note_retained(|| Topic::of(&emit), number);
        }
        let in_history = if stored.is_none() && !emit.volatile {
            let now_ms = self.inner.clock.now().as_millisecond();
            let (event, payload, except_users) = (&emit.event, &payload, &*emit.except.users);
            let entry = NewEntry { id: message_id, event, payload, except_users, ttl: emit.ttl, now_ms };
            self.inner.history.append(&room, &entry)
        } else {
            None
        };
        let entry = stored.or(in_history.as_ref()).map(|position| EntryMeta::new(message_id, &room, position));
        let publishing = stored.and_then(|position| self.begin_publishing(&room, position.number, false));
        let unproven = publishing.as_ref().map(Publishing::unproven);
        let mode = if emit.alone { WriteMode::Inline } else { WriteMode::Batched };
        let frame = Frame { volatile: emit.volatile, mode, entry, unproven, ..Frame::new(emit.event, payload) };
        let (counts, pending) = match (guard, emit.ack) {
            (Some(guard), None) => (guard.fan_out(frame, &emit.except).await, None),
            // Out of the way of all that ask for nothing.
            (Some(guard), Some(ack)) => Box::pin(PendingAcks::send(guard, frame, &emit.except, *ack)).await,
            (None, _) => (Counts::default(), None),
        };
        if let Some(publishing) = publishing {
            publishing.done(&counts);
        }
        let Counts { matched, enqueued, dropped, .. } = counts;
        telemetry::fanned_out(enqueued, dropped, received.elapsed());
        tracing::debug!(message.id = %message_id, room.name = %room, matched, enqueued, dropped, "emitted");
        Ok((Receipt { matched, enqueued, dropped, ..Receipt::new(message_id) }, pending))
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
        self.can_retain(&rooms, &emit.event, &emit.payload)
    }

    pub(super) fn can_retain<'a>(
        &self,
        rooms: impl IntoIterator<Item = &'a RoomName>,
        event: &EventName,
        payload: &Payload,
    ) -> Result<(), EmitError> {
        Ok(self.inner.retained.has_room_for(rooms, event, payload)?)
    }
}

/// An emit to everyone, with this payload.
#[cfg(test)]
pub(super) fn example(json: &str) -> Emit {
    Emit {
        audience: Audience::Everyone,
        except: crate::message::Exceptions::default(),
        event: EventName::new("earnings:new").unwrap(),
        payload: Payload::json(json.into()).unwrap(),
        volatile: false,
        envelope: true,
        retain: false,
        store: false,
        ttl: None,
        collapse_key: None,
        ack: None,
        alone: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::delivery::tests::deps;
    use crate::lifecycle::Lifecycle;

    #[tokio::test]
    async fn a_caller_may_go_away_and_it_is_done_and_told_all_the_same() {
        let config = Config::defaults().unwrap();
        let delivery = Delivery::new(deps(&config, &Lifecycle::new()));
        let guard = delivery.hub().lock_room(&RoomName::everyone()).await;
        let (done, told) = oneshot::channel();
        let tell = move |result: &Result<Receipt, EmitError>| done.send(result.clone()).expect("somebody listens");
        let mut emitting =
            Box::pin(delivery.emit(Emit { retain: true, ..example("1") }, None, Instant::now(), None, tell));
        assert!(futures_util::poll!(emitting.as_mut()).is_pending(), "another holds the lock");
        drop(emitting);
        drop(guard);
        assert!(told.await.unwrap().is_ok());
        assert_eq!(delivery.retained_in(&RoomName::everyone()).len(), 1);
    }
}
