//! The work on rooms' mailboxes: of one room one thing at a time, in the order in which it came, and without the room lock while the store
//! works. What is appended is published in the order of positions, as no other task of the room publishes stored messages.

use std::future::Future;

use scopeguard::guard_on_unwind;
use tokio::sync::oneshot;

use super::{
    Delivery, IdempotencyKey,
    accepted::{Accepted, EmitError, Place, Published, Publishing, settled},
    direct,
    direct_append::DirectAppend,
    execute::InLog,
    late::{Late, repeated},
    log_lanes::{AppendDone, Batch, HeadAnswer, Job, PendingAppend},
};
use crate::hub::RoomGuard;
use crate::message::{Position, Receipt, RoomName};
use crate::state::Claim;
use crate::store::{self, Appended, Incarnation, Store};

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
        let (key, claim) = claimed.unzip();
        let publishing = self.append_keyed(accepted, key.as_ref());
        let Publishing::Pending(place, publishing) = publishing else {
            return publishing;
        };
        Publishing::Pending(place, Box::pin(async move { settled(publishing.await, claim) }))
    }

    /// The same, without a claim in memory.
    pub(super) fn append_keyed(&self, accepted: Accepted, key: Option<&IdempotencyKey>) -> Publishing {
        self.append_with(accepted, key.map(IdempotencyKey::stored), None)
    }

    /// The same, perhaps of a direct message.
    pub(super) fn append_with(
        &self,
        accepted: Accepted,
        idempotency: Option<store::IdempotencyKey>,
        direct: Option<Box<DirectAppend>>,
    ) -> Publishing {
        let (answer, answered) = oneshot::channel();
        let room = accepted.room().clone();
        let append = Box::new(PendingAppend { accepted, idempotency, direct, answer });
        if let Err(refused) = self.enter_lane(&room, Job::Append(append)) {
            return Publishing::Done(Err(refused));
        }
        let publishing = async move {
            match answered.await {
                Ok(AppendDone::Published(published)) => published,
                Ok(AppendDone::Sent(finishing)) => finishing.await,
                Err(_) => Err(EmitError::StoreUnavailable),
            }
        };
        Publishing::Pending(Place::Lane, Box::pin(publishing))
    }

    /// Runs work on a room's mailbox after all earlier work on it. Returns `None` if too many tasks wait, or if earlier work panicked. If the
    /// caller drops the future, work that has not begun is skipped.
    pub(super) async fn in_lane<T: Send + 'static>(
        &self,
        room: &RoomName,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let task = async move {
            if !answer.is_closed() {
                // The caller may be gone by then.
                let _ = answer.send(work.await);
            }
        };
        self.enter_lane(room, Job::Task(Box::pin(task))).ok()?;
        answered.await.ok()
    }

    pub(super) fn enter_lane(&self, room: &RoomName, job: Job) -> Result<(), EmitError> {
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
                Batch::Task(task) => task.await,
                Batch::ReadHead(answers) => self.answer_head(room, answers).await,
                Batch::Appends(appends) => {
                    let bytes = appends.iter().map(PendingAppend::bytes).sum();
                    self.append_all(room, appends).await;
                    self.inner.lanes.release(room, bytes);
                }
            }
        }
    }

    /// Writes emits at one time, and publishes them in the order of their positions.
    async fn append_all(&self, room: &RoomName, mut appends: Vec<PendingAppend>) {
        let Some(store) = self.store() else {
            return;
        };
        if let Some(nodes) = self.others() {
            return self.append_all_across(nodes, room, store, appends).await;
        }
        let uncertain = self.inner.lanes.uncertain(room).unwrap_or_default();
        let (appended, copies, late) = match self.append_and_look_up_late(room, store, &mut appends).await {
            Ok(done) => done,
            Err(error) if direct::may_be_of_another_room(&error, &appends) => {
                for append in appends {
                    Box::pin(self.append_all(room, vec![append])).await;
                }
                return;
            }
            Err(error) => return refuse(appends, &error),
        };
        // Read after the answer: the store begins another one before it answers an append to a database that has lost messages.
        let incarnation = store.incarnation();
        let ids: Vec<_> = appends.iter().map(|append| append.accepted.message_id).collect();
        let _guard = guard_on_unwind(ids, |ids| self.inner.lanes.note_uncertain(room, ids.into_iter()));
        let is_one = appends.len() == 1;
        let mut appends: Vec<_> = appends.into_iter().zip(appended).map(Some).collect();
        self.publish_late(room, late, &mut appends).await;
        for (PendingAppend { mut accepted, answer, .. }, appended) in appends.into_iter().flatten() {
            accepted.emit.alone &= is_one;
            let published = self.publish_appended(room, accepted, appended, incarnation).await;
            // The caller may be gone.
            let _ = answer.send(AppendDone::Published(published));
        }
        self.publish_copies(copies, incarnation);
        // Not those that another lane has noted meanwhile.
        self.inner.lanes.forget_uncertain(room, &uncertain);
    }

    /// Appends emits, and then looks up the messages before them that are not published: those that were refused before and are in the mailbox
    /// all the same. They are certain only now, as a transaction that was still committing held the room's row. If they cannot be looked up, what
    /// was appended is uncertain too: a device that has got that would not be given the earlier ones any more.
    async fn append_and_look_up_late(
        &self,
        room: &RoomName,
        store: &Store,
        appends: &mut [PendingAppend],
    ) -> Result<(Vec<Appended>, Vec<(Accepted, Appended)>, Vec<Late>), store::Error> {
        let ids: Vec<_> = appends.iter().map(|append| append.accepted.message_id).collect();
        let note = || self.inner.lanes.note_uncertain(room, ids.iter().copied());
        let appended = store.append(direct::messages(appends)).await;
        let appended = appended.inspect_err(|error| {
            if !error.has_kept_nothing() {
                note();
                for (append, direct) in appends.iter().filter_map(|append| Some((append, append.direct.as_ref()?))) {
                    self.inner.lanes.note_uncertain(&direct.room(), [append.accepted.message_id].into_iter());
                }
            }
            if error.is_damage() {
                self.inner.faulty_logs.note_unwritten(room, error);
            }
        })?;
        let (appended, copies) = direct::split(appends, appended);
        self.note_copies(&copies);
        let late = self.look_up_late(room, store, &appended).await.inspect_err(|_| note())?;
        Ok((appended, copies, late))
    }

    async fn publish_appended(
        &self,
        room: &RoomName,
        accepted: Accepted,
        appended: Appended,
        incarnation: Incarnation,
    ) -> Published {
        match appended {
            Appended::New { position, direct } => {
                let guard = self.hub().lock_room_for_emit(room).await;
                let published = self.publish_locked(&guard, accepted, Some(InLog::new(&position, incarnation))).await;
                guard.raise_log_head(position.number);
                let (receipt, acks) = published?;
                Ok((Receipt { stored: true, position: Some(position), direct, ..receipt }, acks))
            }
            Appended::Known { position, id } => Ok((repeated(position, id), None)),
            Appended::KeyReused => Err(EmitError::KeyReused),
            Appended::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// The position of the last message of a room's mailbox that was published here. It is read from the store if it is not known.
    pub(super) async fn log_head(&self, room: &RoomName) -> Result<u64, store::Error> {
        if room.is_everyone() {
            return Ok(0);
        }
        if let Some(head) = self.hub().log_head(room) {
            return Ok(head);
        }
        let (answer, answered) = oneshot::channel();
        // One read answers all who ask at one time.
        self.enter_lane(room, Job::ReadHead(vec![answer])).map_err(|_| store::Error::Closed)?;
        answered.await.unwrap_or(Err(store::Error::Closed))
    }

    async fn answer_head(&self, room: &RoomName, mut answers: Vec<HeadAnswer>) {
        answers.retain(|answer| !answer.is_closed());
        if answers.is_empty() {
            return;
        }
        let head = self.read_head(room).await;
        for answer in answers {
            // The caller may be gone.
            let _ = answer.send(head.clone());
        }
    }

    /// In the lane nothing that is committed is still to be published, but for what is uncertain.
    pub(super) async fn read_head(&self, room: &RoomName) -> Result<u64, store::Error> {
        if let Some(head) = self.hub().log_head(room) {
            return Ok(head);
        }
        let store = self.store().ok_or(store::Error::Closed)?;
        let epoch = store.epoch();
        let last = store.mailbox(room).await?.unwrap_or_default().last;
        let head = if self.is_alone() {
            let late = self.look_up_uncertain(room, store).await?;
            let head = late.last().map_or(last, |late| last.max(late.position.number));
            self.publish_late(room, late, &mut []).await;
            head
        } else {
            self.head_across(room, store, last).await?
        };
        self.hub().set_log_head(room, head);
        if store.epoch() != epoch {
            // It is that of a database that has lost something since.
            self.hub().forget_log_head(room);
            return Err(store::Error::Unreachable);
        }
        if !self.is_alone() {
            let epoch = epoch.unwrap_or_default();
            self.settle_head(room, &Position::new(epoch, head)).await;
        }
        Ok(head)
    }
}

/// Answers emits that were not stored.
pub(super) fn refuse(appends: Vec<PendingAppend>, error: &store::Error) {
    for PendingAppend { answer, .. } in appends {
        // The caller may be gone.
        let _ = answer.send(AppendDone::Published(Err(error.into())));
    }
}

/// The position of the last message of a locked room's mailbox that was published here. `None`: it is not known.
pub(super) fn published_head(guard: &RoomGuard<'_>) -> Option<u64> {
    // Nothing is stored for everyone.
    if guard.room().is_everyone() { Some(0) } else { guard.log_head() }
}
