use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::Future,
    pin::Pin,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    accepted::{Accepted, EmitError, Published},
    direct_append::DirectAppend,
};
use crate::message::{MessageId, RoomName};
use crate::store::{self, NewMessage};

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
    tasks: usize,
}

/// A room's work. A task runs as long as there is a lane.
#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    bytes: usize,
}

pub(super) type HeadAnswer = oneshot::Sender<Result<u64, store::Error>>;

pub(super) enum Job {
    Append(Box<PendingAppend>),
    /// To read where the room stands, for all who ask.
    ReadHead(Vec<HeadAnswer>),
    Task(Pin<Box<dyn Future<Output = ()> + Send>>),
}

pub(super) enum Batch {
    Appends(Vec<PendingAppend>),
    ReadHead(Vec<HeadAnswer>),
    Task(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// An emit that is to be stored, and where its result goes.
pub(super) struct PendingAppend {
    pub(super) accepted: Accepted,
    pub(super) idempotency: Option<store::IdempotencyKey>,
    pub(super) direct: Option<Box<DirectAppend>>,
    pub(super) answer: oneshot::Sender<AppendDone>,
}

/// What became of an emit that was to be stored.
pub(super) enum AppendDone {
    /// It is published, or refused.
    Published(Published),
    /// It is stored, and its frame is on its way to the nodes, whose answers are to be awaited.
    Sent(BoxFuture<'static, Published>),
}

/// Rooms of which uncertain messages are remembered, and messages of each. A database that stops answering leaves one transaction of them.
const MAX_UNCERTAIN_ROOMS: usize = 10_000;
const MAX_UNCERTAIN: usize = 1_000;
/// Emits of one room that are written at one time, and their bytes.
const MAX_BATCH: usize = 128;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Bytes that wait in the lane of one room, and in all lanes. The store's writer holds a part of them.
const MAX_LANE_BYTES: usize = 16 << 20;
const MAX_BYTES: usize = 64 << 20;
/// Deletions and counts that wait in all lanes.
const MAX_TASKS: usize = 4_096;

impl LogLanes {
    /// Puts work behind that of its room. True if no task takes care of the lane yet.
    pub(super) fn push(&self, room: &RoomName, job: Job) -> Result<bool, EmitError> {
        let (mut lanes, bytes) = (self.lanes.lock(), job.bytes());
        let lane_bytes = lanes.rooms.get(room).map_or(0, |lane| lane.bytes);
        let is_full = match job {
            // One that is larger than the bound comes alone.
            Job::Append(_) => {
                (lane_bytes > 0 && lane_bytes + bytes > MAX_LANE_BYTES) || lanes.bytes + bytes > MAX_BYTES
            }
            // Each connection asks once, and all of a room share one.
            Job::ReadHead(_) => false,
            Job::Task(_) => lanes.tasks == MAX_TASKS,
        };
        if is_full {
            return Err(EmitError::StoreBusy);
        }
        lanes.bytes += bytes;
        lanes.tasks += usize::from(matches!(job, Job::Task(_)));
        let (lane, is_first) = match lanes.rooms.entry(room.clone()) {
            Entry::Occupied(lane) => (lane.into_mut(), false),
            Entry::Vacant(lane) => (lane.insert(Lane::default()), true),
        };
        lane.bytes += bytes;
        match (lane.jobs.back_mut(), job) {
            (Some(Job::ReadHead(waiting)), Job::ReadHead(more)) => {
                if waiting.len() == waiting.capacity() {
                    waiting.retain(|answer| !answer.is_closed());
                }
                waiting.extend(more);
            }
            (_, job) => lane.jobs.push_back(job),
        }
        Ok(is_first)
    }

    /// Takes the first work: a task, or a batch of appends. `None`: there is none, and the lane is gone.
    pub(super) fn take(&self, room: &RoomName) -> Option<Batch> {
        let mut lanes = self.lanes.lock();
        let lanes = &mut *lanes;
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
        match jobs.pop_front() {
            Some(Job::Task(task)) => {
                lanes.tasks -= 1;
                Some(Batch::Task(task))
            }
            Some(Job::ReadHead(answers)) => Some(Batch::ReadHead(answers)),
            Some(Job::Append(_)) | None => {
                lanes.rooms.remove(room);
                None
            }
        }
    }

    /// Gives the bytes of work back that is done.
    pub(super) fn release(&self, room: &RoomName, bytes: usize) {
        let mut lanes = self.lanes.lock();
        lanes.bytes = lanes.bytes.saturating_sub(bytes);
        if let Some(lane) = lanes.rooms.get_mut(room) {
            lane.bytes = lane.bytes.saturating_sub(bytes);
        }
    }

    /// Takes a lane away whose task has panicked: what waits in it is refused, and the next emit begins another.
    pub(super) fn abandon(&self, room: &RoomName) {
        let mut lanes = self.lanes.lock();
        let lane = lanes.rooms.remove(room);
        lanes.bytes -= lane.as_ref().map_or(0, |lane| lane.bytes);
        let tasks = lane.iter().flat_map(|lane| &lane.jobs).filter(|job| matches!(job, Job::Task(_))).count();
        lanes.tasks -= tasks;
        // The answers that wait are dropped without the lock.
        drop(lanes);
    }

    /// Remembers messages that were refused as the database did not answer: it may have them all the same.
    pub(super) fn note_uncertain(&self, room: &RoomName, ids: impl Iterator<Item = MessageId>) {
        let mut uncertain = self.uncertain.lock();
        let is_full = uncertain.len() >= MAX_UNCERTAIN_ROOMS && !uncertain.contains_key(room);
        let known = if is_full { None } else { Some(uncertain.entry(room.clone()).or_default()) };
        match known.filter(|known| known.len() < MAX_UNCERTAIN) {
            Some(known) => known.extend(ids),
            None => {
                tracing::error!(room.name = %room, "too many emits were refused that may have been stored: forgot some");
            }
        }
    }

    /// The messages of a room that may be in its mailbox though they were refused.
    pub(super) fn uncertain(&self, room: &RoomName) -> Option<Vec<MessageId>> {
        self.uncertain.lock().get(room).cloned()
    }

    /// Forgets one that was published.
    pub(super) fn settle_uncertain(&self, room: &RoomName, published: MessageId) {
        if let Entry::Occupied(mut known) = self.uncertain.lock().entry(room.clone()) {
            known.get_mut().retain(|id| *id != published);
            if known.get().is_empty() {
                known.remove();
            }
        }
    }

    /// Forgets these: those of them that were not published were not stored.
    pub(super) fn forget_uncertain(&self, room: &RoomName, ids: &[MessageId]) {
        if ids.is_empty() {
            return;
        }
        if let Entry::Occupied(mut known) = self.uncertain.lock().entry(room.clone()) {
            known.get_mut().retain(|id| !ids.contains(id));
            if known.get().is_empty() {
                known.remove();
            }
        }
    }
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.bytes(),
            Self::ReadHead(_) | Self::Task(_) => 0,
        }
    }
}

impl PendingAppend {
    /// What it takes up while it waits.
    pub(super) fn bytes(&self) -> usize {
        let direct = self.direct.as_ref().map_or(0, |direct| direct.bytes());
        size_of::<Self>() + self.accepted.emit.bytes() + direct
    }

    pub(super) fn message(&self) -> NewMessage {
        let (accepted, emit) = (&self.accepted, &self.accepted.emit);
        NewMessage {
            room: accepted.room().clone(),
            id: accepted.message_id,
            event: emit.event.clone(),
            payload: accepted.payload(),
            except_users: emit.except.users.clone(),
            ttl: emit.ttl,
            idempotency: self.idempotency.clone(),
            direct: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use tokio::time::Instant;

    use super::*;
    use crate::delivery::tests::example;
    use crate::message::{Audience, Emit, Exceptions, Payload, UserId};

    const MIB: usize = 1 << 20;

    fn room(number: usize) -> RoomName {
        RoomName::new(&format!("r:{number}")).unwrap()
    }

    fn append(room: &RoomName, emit: Emit) -> Job {
        let emit = Emit { audience: Audience::of_room(room.clone()), store: true, ..emit };
        let (message_id, time) = (MessageId::at(Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        let accepted = Accepted {
            caller: Arc::from("test"),
            emit,
            message_id,
            number: 1,
            time,
            received: Instant::now(),
            change: 0,
            once: false,
            kept: None,
        };
        Job::Append(Box::new(PendingAppend { accepted, idempotency: None, direct: None, answer: oneshot::channel().0 }))
    }

    fn large(room: &RoomName) -> Job {
        append(room, Emit { payload: Payload::json(&format!("\"{}\"", "x".repeat(4 * MIB))).unwrap(), ..example("1") })
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_for_each_room_and_for_all() {
        let lanes = LogLanes::default();
        for number in 0..5 {
            for _ in 0..3 {
                let before = lanes.lanes.lock().bytes;
                let full = lanes.push(&room(number), large(&room(number))).is_err();
                assert_eq!(full, before + 4 * MIB > MAX_BYTES, "with {before} bytes");
            }
        }
        assert!(matches!(lanes.push(&room(0), large(&room(0))), Err(EmitError::StoreBusy)));
        while let Some(Batch::Appends(appends)) = lanes.take(&room(0)) {
            lanes.release(&room(0), appends.iter().map(PendingAppend::bytes).sum());
        }
        assert!(lanes.push(&room(0), large(&room(0))).is_ok(), "there is room again");
    }

    #[test]
    fn names_that_are_left_out_count() {
        let users: Vec<_> = (0..1_000).map(|number| UserId::new(&format!("{number:0>250}")).unwrap()).collect();
        let lanes = LogLanes::default();
        let crowded = || {
            append(
                &room(1),
                Emit { except: Exceptions { users: users.clone(), ..Exceptions::default() }, ..example("1") },
            )
        };
        let count = (0..1_000).take_while(|_| lanes.push(&room(1), crowded()).is_ok()).count();
        assert!(count > 10 && count < 80, "{count} emits of 250 kB each");
    }

    #[test]
    fn tasks_and_questions_take_no_room_from_emits() {
        let lanes = LogLanes::default();
        let task = || Job::Task(Box::pin(async {}));
        let tasks = (0..10_000).take_while(|_| lanes.push(&room(1), task()).is_ok()).count();
        assert_eq!(tasks, MAX_TASKS);
        let mut kept = Vec::new();
        for _ in 0..10_000 {
            let (answer, answered) = oneshot::channel();
            assert!(lanes.push(&room(2), Job::ReadHead(vec![answer])).is_ok());
            kept.push(answered);
            kept.truncate(10);
        }
        assert_eq!(lanes.lanes.lock().rooms[&room(2)].jobs.len(), 1, "they share one read");
        let Some(Batch::ReadHead(answers)) = lanes.take(&room(2)) else { panic!("there is a read") };
        assert!(answers.len() < 100, "{} of those that are gone are kept", answers.len());
        assert!(lanes.push(&room(1), large(&room(1))).is_ok());
        lanes.abandon(&room(1));
        assert!(lanes.push(&room(1), task()).is_ok());
    }

    #[test]
    fn what_is_uncertain_is_known_until_it_is_published_or_was_not_stored() {
        let (lanes, ids) =
            (LogLanes::default(), [1, 2].map(|second| MessageId::at(Timestamp::from_second(second).unwrap())));
        lanes.note_uncertain(&room(1), ids.into_iter());
        lanes.settle_uncertain(&room(1), ids[0]);
        assert_eq!(lanes.uncertain(&room(1)), Some(ids[1..].to_vec()));
        lanes.forget_uncertain(&room(1), &ids[..1]);
        assert_eq!(lanes.uncertain(&room(1)), Some(ids[1..].to_vec()), "it was noted since");
        lanes.forget_uncertain(&room(1), &ids);
        assert_eq!(lanes.uncertain(&room(1)), None);
    }
}
