//! The work on rooms' mailboxes: of one room one thing at a time, in the order in which it came, and without the room lock while the store
//! works. What is appended is published in the order of positions, as no other task of the room publishes stored messages.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::Future,
    pin::Pin,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Delivery, IdempotencyKey,
    proof::UnprovenFanOut,
    publish::{Accepted, EmitError, Published, Publishing, settled},
};
use crate::hub::{EntryMeta, Frame, RoomGuard};
use crate::message::{Exceptions, LogEntry, MessageId, Position, Receipt, RoomName};
use crate::state::Claim;
use crate::store::{self, Appended, NewMessage, Store};

/// Rooms with work, and emits that were refused though the database may have kept them.
#[derive(Default)]
pub(super) struct LogLanes {
    lanes: Mutex<Lanes>,
    uncertain: Mutex<HashMap<RoomName, Vec<MessageId>>>,
}

#[derive(Default)]
struct Lanes {
    rooms: HashMap<RoomName, Lane>,
    bytes: usize,
}

/// A room's work. A task runs as long as there is a lane.
#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    bytes: usize,
}

enum Job {
    Append(Box<PendingAppend>),
    Task(Pin<Box<dyn Future<Output = ()> + Send>>),
}

enum Batch {
    Appends(Vec<PendingAppend>),
    Task(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// An emit that is to be stored, and where its result goes.
struct PendingAppend {
    accepted: Accepted,
    idempotency: Option<store::IdempotencyKey>,
    answer: oneshot::Sender<Published>,
}

/// Rooms of which uncertain messages are remembered, and messages of each.
const MAX_UNCERTAIN: usize = 1_000;
/// Emits of one room that are written at one time, and their bytes.
const MAX_BATCH: usize = 128;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Bytes that wait in the lane of one room, and in all lanes. The store's writer holds a part of them.
const MAX_LANE_BYTES: usize = 16 << 20;
const MAX_BYTES: usize = 64 << 20;

impl LogLanes {
    /// Puts work behind that of its room. True if no task takes care of the lane yet.
    fn push(&self, room: &RoomName, job: Job) -> Result<bool, EmitError> {
        let (mut lanes, bytes) = (self.lanes.lock(), job.bytes());
        let lane_bytes = lanes.rooms.get(room).map_or(0, |lane| lane.bytes);
        // One that is larger than the bound comes alone.
        if bytes > 0 && ((lane_bytes > 0 && lane_bytes + bytes > MAX_LANE_BYTES) || lanes.bytes + bytes > MAX_BYTES) {
            return Err(EmitError::StoreBusy);
        }
        lanes.bytes += bytes;
        let (lane, is_first) = match lanes.rooms.entry(room.clone()) {
            Entry::Occupied(lane) => (lane.into_mut(), false),
            Entry::Vacant(lane) => (lane.insert(Lane::default()), true),
        };
        lane.bytes += bytes;
        lane.jobs.push_back(job);
        Ok(is_first)
    }

    /// Takes the first work: a task, or as many appends as are good to write at one time. `None`: there is none, and the lane is gone.
    fn take(&self, room: &RoomName) -> Option<Batch> {
        let mut lanes = self.lanes.lock();
        let jobs = &mut lanes.rooms.get_mut(room)?.jobs;
        let (mut appends, mut bytes) = (Vec::new(), 0);
        while let Some(Job::Append(append)) = jobs.front() {
            bytes += append.bytes();
            if !appends.is_empty() && (bytes > MAX_BATCH_BYTES || appends.len() == MAX_BATCH) {
                break;
            }
            if let Some(Job::Append(append)) = jobs.pop_front() {
                appends.push(*append);
            }
        }
        if !appends.is_empty() {
            return Some(Batch::Appends(appends));
        }
        if let Some(Job::Task(task)) = jobs.pop_front() {
            return Some(Batch::Task(task));
        }
        lanes.rooms.remove(room);
        None
    }

    /// Gives the bytes of work back that is done.
    fn release(&self, room: &RoomName, bytes: usize) {
        let mut lanes = self.lanes.lock();
        lanes.bytes = lanes.bytes.saturating_sub(bytes);
        if let Some(lane) = lanes.rooms.get_mut(room) {
            lane.bytes = lane.bytes.saturating_sub(bytes);
        }
    }

    fn note_uncertain(&self, room: &RoomName, ids: impl Iterator<Item = MessageId>) {
        let mut uncertain = self.uncertain.lock();
        if uncertain.len() < MAX_UNCERTAIN || uncertain.contains_key(room) {
            let known = uncertain.entry(room.clone()).or_default();
            known.extend(ids);
            known.truncate(MAX_UNCERTAIN);
        }
    }
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.bytes(),
            Self::Task(_) => 0,
        }
    }
}

impl PendingAppend {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.accepted.emit.payload.len()
    }

    fn message(&self) -> NewMessage {
        let (accepted, emit) = (&self.accepted, &self.accepted.emit);
        NewMessage {
            room: accepted.room().clone(),
            id: accepted.message_id,
            event: emit.event.clone(),
            payload: accepted.payload(),
            except_users: emit.except.users.clone(),
            ttl: emit.ttl,
            idempotency: self.idempotency.clone(),
        }
    }
}

/// Takes a lane away whose task has panicked: what waits in it is refused, and the next emit begins another.
struct LaneGuard<'a> {
    lanes: &'a LogLanes,
    room: &'a RoomName,
}

impl Drop for LaneGuard<'_> {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lanes.lock();
        let lane = lanes.rooms.remove(self.room);
        lanes.bytes -= lane.as_ref().map_or(0, |lane| lane.bytes);
        // The answers that wait are dropped without the lock.
        drop(lanes);
    }
}

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
        let (answer, answered) = oneshot::channel();
        let room = accepted.room().clone();
        let (key, claim) = claimed.unzip();
        let idempotency = key.as_ref().map(IdempotencyKey::stored);
        let append = Box::new(PendingAppend { accepted, idempotency, answer });
        if let Err(refused) = self.enter_lane(&room, Job::Append(append)) {
            return Publishing::Done(Err(refused));
        }
        Publishing::InLane(Box::pin(async move {
            let published = answered.await.unwrap_or(Err(EmitError::StoreUnavailable));
            settled(published, claim)
        }))
    }

    /// Runs work on a room's mailbox when all that came before it is done. `None`: it was given up.
    pub(super) async fn in_lane<T: Send + 'static>(
        &self,
        room: &RoomName,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let task = async move {
            // Who asked may be gone.
            let _ = answer.send(work.await);
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
        let guard = LaneGuard { lanes: &self.inner.lanes, room };
        while let Some(batch) = self.inner.lanes.take(room) {
            match batch {
                Batch::Task(task) => task.await,
                Batch::Appends(appends) => {
                    let bytes = appends.iter().map(PendingAppend::bytes).sum();
                    self.append_all(room, appends).await;
                    self.inner.lanes.release(room, bytes);
                }
            }
        }
        // The lane is gone, and there may be another already.
        std::mem::forget(guard);
    }

    /// Writes emits at one time, and publishes them in the order of their positions.
    async fn append_all(&self, room: &RoomName, appends: Vec<PendingAppend>) {
        let Some(store) = self.store() else {
            return;
        };
        let messages = appends.iter().map(PendingAppend::message).collect();
        let Ok(appended) = store.append(messages).await else {
            self.inner.lanes.note_uncertain(room, appends.iter().map(|append| append.accepted.message_id));
            for PendingAppend { answer, .. } in appends {
                // Who asked may be gone.
                let _ = answer.send(Err(EmitError::StoreUnavailable));
            }
            return;
        };
        let uncertain = self.take_uncertain(room, store).await;
        let guard = self.hub().lock_room_for_emit(room).await;
        for (position, message) in uncertain {
            self.publish_late(&guard, position, message).await;
        }
        let is_one = appends.len() == 1;
        for (PendingAppend { mut accepted, answer, .. }, appended) in appends.into_iter().zip(appended) {
            accepted.emit.alone &= is_one;
            let _ = answer.send(self.publish_appended(&guard, accepted, appended).await);
        }
    }

    async fn publish_appended(&self, guard: &RoomGuard<'_>, accepted: Accepted, appended: Appended) -> Published {
        match appended {
            Appended::New { position } => {
                let published = self.publish_locked(guard, accepted, Some(&position)).await;
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

    /// The messages that were refused and are in the mailbox all the same, in order. They come before what is appended later: a device that
    /// has got that would not be given them any more.
    async fn take_uncertain(&self, room: &RoomName, store: &Store) -> Vec<(Position, LogEntry)> {
        let Some(ids) = self.inner.lanes.uncertain.lock().remove(room) else {
            return Vec::new();
        };
        let (Ok(messages), Ok(begin)) = (store.messages_by_id(room, &ids).await, store.position(0).await) else {
            self.inner.lanes.note_uncertain(room, ids.into_iter());
            return Vec::new();
        };
        let position = |message: &LogEntry| Position { number: message.number, ..begin.clone() };
        messages.into_iter().map(|message| (position(&message), message)).collect()
    }

    async fn publish_late(&self, guard: &RoomGuard<'_>, position: Position, message: LogEntry) {
        let unproven = self.begin_unproven(guard, position.number, true);
        let frame = Frame {
            entry: Some(EntryMeta::new(message.id, guard.room(), &position)),
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
        // In the lane nothing that is committed is still to be published.
        let read = self.in_lane(room, async move {
            if let Some(head) = delivery.hub().log_head(&name) {
                return Ok(head);
            }
            let head = store.mailbox(&name).await?.unwrap_or_default().last;
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
