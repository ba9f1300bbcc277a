//! The work on rooms' mailboxes: of one room one thing at a time, in the order in which it came, and without the room lock while the store
//! works. What is appended is published in the order of positions, as no other task of the room publishes stored messages.

use std::future::Future;

use scopeguard::guard_on_unwind;
use tokio::sync::oneshot;

use super::{
    Delivery, IdempotencyKey,
    accepted::{Accepted, EmitError, Place, Published, Publishing, settled},
    log_lanes::{Batch, Job, PendingAppend, TASK_BYTES},
    proof::UnprovenFanOut,
};
use crate::hub::{EntryMeta, Frame, RoomGuard};
use crate::message::{Exceptions, LogEntry, Position, Receipt, RoomName};
use crate::state::Claim;
use crate::store::{self, Appended, Store};

impl Delivery {
    /// Whether emits can be stored at all.
    pub fn can_store(&self) -> bool {
        self.store().is_some()
    }

    /// Whether a room is a user's, and what is stored for that user is there.
    pub(super) fn is_users_mailbox(&self, room: &RoomName) -> bool {
        room.is_users() && self.can_store() && !self.has_history(room)
    }

    /// Appends an emit to its room's mailbox and publishes it then. Its place among the emits to the room is that of this call.
    pub(super) fn append(&self, accepted: Accepted, claimed: Option<(IdempotencyKey, Claim)>) -> Publishing {
        // Checked before the message is on disk: a refusal says that it is not.
        if accepted.emit.retain
            && let Err(refused) = self.can_retain([accepted.room()], &accepted.emit)
        {
            return Publishing::Done(Err(refused));
        }
        let (answer, answered) = oneshot::channel();
        let room = accepted.room().clone();
        let (key, claim) = claimed.unzip();
        let idempotency = key.as_ref().map(IdempotencyKey::stored);
        let append = Box::new(PendingAppend { accepted, idempotency, answer });
        if let Err(refused) = self.enter_lane(&room, Job::Append(append)) {
            return Publishing::Done(Err(refused));
        }
        let publishing = async move { settled(answered.await.unwrap_or(Err(EmitError::StoreUnavailable)), claim) };
        Publishing::Pending(Place::Lane, Box::pin(publishing))
    }

    /// Runs work on a room's mailbox when all that came before it is done. `None`: it was given up. It is not begun if nobody waits for it any
    /// more.
    pub(super) async fn in_lane<T: Send + 'static>(
        &self,
        room: &RoomName,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let task = async move {
            if !answer.is_closed() {
                // Who asked may be gone by then.
                let _ = answer.send(work.await);
            }
        };
        self.enter_lane(room, Job::Task(Box::pin(task))).ok()?;
        answered.await.ok()
    }

    fn enter_lane(&self, room: &RoomName, job: Job) -> Result<(), EmitError> {
        if self.inner.lanes.push(room, job)? {
            let (delivery, room) = (self.clone(), room.clone());
            self.inner.lifecycle.spawn(async move { delivery.run_lane(&room).await });
        }
        Ok(())
    }

    async fn run_lane(&self, room: &RoomName) {
        let _guard = guard_on_unwind((), |()| self.inner.lanes.abandon(room));
        while let Some(batch) = self.inner.lanes.take(room) {
            match batch {
                Batch::Task(task) => {
                    task.await;
                    self.inner.lanes.release(room, TASK_BYTES);
                }
                Batch::Appends(appends) => {
                    let bytes = appends.iter().map(PendingAppend::bytes).sum();
                    self.append_all(room, appends).await;
                    self.inner.lanes.release(room, bytes);
                }
            }
        }
    }

    /// Writes emits at one time, and publishes them in the order of their positions.
    async fn append_all(&self, room: &RoomName, appends: Vec<PendingAppend>) {
        let Some(store) = self.store() else {
            return;
        };
        let Ok(appended) = self.append_after_uncertain(room, store, &appends).await else {
            for PendingAppend { answer, .. } in appends {
                // Who asked may be gone.
                let _ = answer.send(Err(EmitError::StoreUnavailable));
            }
            return;
        };
        let ids: Vec<_> = appends.iter().map(|append| append.accepted.message_id).collect();
        let _guard = guard_on_unwind(ids, |ids| self.inner.lanes.note_uncertain(room, ids.into_iter()));
        let is_one = appends.len() == 1;
        for (PendingAppend { mut accepted, answer, .. }, appended) in appends.into_iter().zip(appended) {
            accepted.emit.alone &= is_one;
            let published = self.inner.bus.publish(|| self.publish_appended(accepted, appended)).await;
            // Who asked may be gone.
            let _ = answer.send(published);
        }
    }

    /// Appends emits, and then publishes the messages that were refused before and are in the mailbox all the same: they are certain only now, as
    /// a transaction that was still committing held the room's row.
    async fn append_after_uncertain(
        &self,
        room: &RoomName,
        store: &Store,
        appends: &[PendingAppend],
    ) -> Result<Vec<Appended>, store::Error> {
        let note = || self.inner.lanes.note_uncertain(room, appends.iter().map(|append| append.accepted.message_id));
        let appended = store.append(appends.iter().map(PendingAppend::message).collect()).await;
        let appended = appended.inspect_err(|error| {
            if !matches!(error, store::Error::Unreachable) {
                note();
            }
        })?;
        self.publish_uncertain(room, store).await.inspect_err(|_| note())?;
        self.inner.lanes.forget_all_uncertain(room);
        Ok(appended)
    }

    /// Publishes the messages that were refused and are in the mailbox all the same, in order. They come before what was appended later: a device
    /// that has got that would not be given them any more. If they cannot be looked up, what was appended is refused and uncertain too. Returns
    /// the last one's number; 0: there is none.
    async fn publish_uncertain(&self, room: &RoomName, store: &Store) -> Result<u64, store::Error> {
        let Some(ids) = self.inner.lanes.uncertain(room) else {
            return Ok(0);
        };
        let messages = store.messages_by_id(room, &ids).await?;
        let begin = store.position(0).await?;
        let mut last = 0;
        for message in messages {
            let (id, position) = (message.id, Position { number: message.number, ..begin.clone() });
            last = position.number;
            self.inner.bus.publish(|| self.publish_late(room, position, message)).await;
            self.inner.lanes.forget_uncertain(room, &[id]);
        }
        Ok(last)
    }

    async fn publish_appended(&self, accepted: Accepted, appended: Appended) -> Published {
        match appended {
            Appended::New { position } => {
                let guard = self.hub().lock_room_for_emit(&accepted.room().clone()).await;
                let published = self.publish_locked(&guard, accepted, Some(&position)).await;
                guard.raise_log_head(position.number);
                let (receipt, acks) = published?;
                Ok((Receipt { stored: true, position: Some(position), ..receipt }, acks))
            }
            Appended::Known { position, id } => {
                let first = Receipt { stored: true, position: Some(position), duplicate: true, ..Receipt::new(id) };
                Ok((first, None))
            }
            Appended::KeyReused => Err(EmitError::KeyReused),
        }
    }

    async fn publish_late(&self, room: &RoomName, position: Position, message: LogEntry) {
        let guard = self.hub().lock_room_for_emit(room).await;
        let unproven = self.begin_unproven(&guard, position.number, true);
        let frame = Frame {
            entry: Some(EntryMeta::new(message.id, room, &position)),
            unproven: unproven.as_ref().map(UnprovenFanOut::message),
            ..Frame::new(message.event, message.payload)
        };
        let except = Exceptions { users: message.except_users, ..Exceptions::default() };
        let mut fan_out = guard.fan_out(frame, except, false);
        fan_out.run().await;
        if let Some(unproven) = unproven {
            unproven.done(&fan_out.finish().0);
        }
        guard.raise_log_head(position.number);
    }

    /// The position of the last message of a room's mailbox that was published here. It is read from the store if it is not known.
    pub(super) async fn log_head(&self, room: &RoomName, store: &Store) -> Result<u64, store::Error> {
        if room.is_everyone() {
            return Ok(0);
        }
        if let Some(head) = self.hub().log_head(room) {
            return Ok(head);
        }
        let (delivery, store, name) = (self.clone(), store.clone(), room.clone());
        // In the lane nothing that is committed is still to be published, but for what is uncertain.
        let read = self.in_lane(room, async move {
            if let Some(head) = delivery.hub().log_head(&name) {
                return Ok(head);
            }
            let head = store.mailbox(&name).await?.unwrap_or_default().last;
            let head = head.max(delivery.publish_uncertain(&name, &store).await?);
            delivery.hub().set_log_head(&name, head);
            Ok(head)
        });
        read.await.unwrap_or(Err(store::Error::Closed))
    }
}

/// The position of the last message of a locked room's mailbox that was published here. `None`: it is not known.
pub(super) fn published_head(guard: &RoomGuard<'_>) -> Option<u64> {
    // Nothing is stored for everyone.
    if guard.room().is_everyone() { Some(0) } else { guard.log_head() }
}
