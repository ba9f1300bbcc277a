use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::{
    AckSink, Connection, Frame, PlainFrames, QueueError, Reason, WriteMode,
    ack::{AckTicket, Lifelines},
    catching_up::{CatchingUp, Fate, Waiting},
    reasons::JoinedRooms,
};
use crate::message::{ConnectionId, RoomName, UserId};

/// A connection in the hub.
pub struct Member {
    id: ConnectionId,
    user: UserId,
    pub(super) connection: Arc<dyn Connection>,
    /// Mirrors the phase `Live`, so that frames go to the connection without the lock. It is changed under the lock: set after the frames
    /// that waited were enqueued, and cleared when the connection ends.
    pub(super) is_live: AtomicBool,
    max_waiting_bytes: usize,
    // Held while a room is entered or left, so that neither can outlive the connection, and while a frame is enqueued, so
    // that what waits comes before what is live.
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) rooms: JoinedRooms,
    lifelines: Lifelines,
}

pub(super) enum Phase {
    CatchingUp(Box<CatchingUp>),
    Live,
    Gone,
}

/// What became of a frame at one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryOutcome {
    Enqueued,
    /// The connection has not come so far yet: it will be replayed.
    Replayed,
    Dropped(QueueError),
    /// The connection is gone, or has left the room: it does not count as matched.
    Gone,
    /// The connection does not listen for the event: it does not count as matched.
    NotListening,
    /// The connection is gone, and the hub does not know yet.
    Ended,
}

/// Whom a frame is for.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// One connection, independent of its rooms.
    Connection,
    /// The connections of a room, none of which has left it since they were listed.
    Room(&'a RoomName),
    /// The connections of a room that are still in it.
    Members(&'a RoomName),
}

impl DeliveryOutcome {
    fn of(answer: Result<(), QueueError>) -> Self {
        match answer {
            Ok(()) => Self::Enqueued,
            Err(QueueError::Ended) => Self::Ended,
            Err(error @ (QueueError::Full | QueueError::Unsupported)) => Self::Dropped(error),
        }
    }
}

impl<'a> Target<'a> {
    fn room(self) -> Option<&'a RoomName> {
        match self {
            Self::Connection => None,
            Self::Room(room) | Self::Members(room) => Some(room),
        }
    }
}

impl Member {
    pub(super) fn new(user: UserId, connection: Arc<dyn Connection>, max_waiting_bytes: usize) -> Self {
        let phase = Phase::CatchingUp(Box::default());
        let state = Mutex::new(State { phase, rooms: JoinedRooms::new(), lifelines: Lifelines::default() });
        Self { id: connection.id(), user, connection, is_live: AtomicBool::new(false), max_waiting_bytes, state }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Reads what a delivery is about to touch of it.
    pub(super) fn touch(&self) {
        std::hint::black_box(self.is_live.load(Ordering::Relaxed));
    }

    /// What the edge knows of it.
    pub fn connection(&self) -> &dyn Connection {
        &*self.connection
    }

    /// The rooms that it is in, in no particular order.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.state.lock().rooms.names()
    }

    /// Notes one more reason to be in a room. False if it is not there.
    pub fn add_reason(&self, room: &RoomName, reason: Reason) -> bool {
        self.state.lock().rooms.add_reason(room, reason)
    }

    /// The rooms that it is in for this reason, among others.
    pub fn rooms_with(&self, reason: Reason) -> Vec<RoomName> {
        self.state.lock().rooms.with_reason(reason)
    }

    /// The number of rooms that it is in for this reason alone.
    pub fn count_rooms_only(&self, reason: Reason) -> usize {
        self.state.lock().rooms.count_only(reason)
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.state.lock().rooms.contains(room)
    }

    /// Whether its transport takes nothing yet.
    pub fn is_awaiting_transport(&self) -> bool {
        matches!(&self.state.lock().phase, Phase::CatchingUp(missing) if !missing.is_open)
    }

    /// Resolves when it has ended.
    pub fn gone(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.lock();
        let end = (!matches!(state.phase, Phase::Gone)).then(|| state.lifelines.extend());
        async move {
            if let Some(end) = end {
                // An error is all that it can be.
                let _ = end.await;
            }
        }
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Gone)
    }

    /// Lets frames through from now on: first `greeting`, then what has waited. What is live in rooms that are being replayed waits on.
    /// False if the connection is gone, or its queue does not take them.
    pub fn go_live(&self, greeting: Option<&Frame>) -> bool {
        let mut state = self.state.lock();
        let Phase::CatchingUp(missing) = &mut state.phase else {
            return false;
        };
        let mut waiting = missing.open().into_iter();
        let taken = greeting.is_none_or(|frame| !is_fatal(self.enqueue(frame, WriteMode::Batched, None), frame))
            && waiting.all(|waiting| self.give(waiting).is_ok());
        state.settle(&self.is_live);
        taken
    }

    /// An error is one with which the connection cannot go on.
    pub(super) fn give(&self, Waiting { frame, ack, .. }: Waiting) -> Result<(), QueueError> {
        // More of them follow at once.
        let answer = self.enqueue(&frame, WriteMode::Batched, ack);
        if is_fatal(answer, &frame) { answer } else { Ok(()) }
    }

    /// Sends a frame that is for this connection alone.
    pub fn send(&self, frame: Frame) -> bool {
        let mode = frame.mode;
        self.deliver(&Arc::new(frame), Target::Connection, mode, None) == DeliveryOutcome::Enqueued
    }

    /// `ticket`: the device is asked for an acknowledgement.
    pub(super) fn deliver(
        &self,
        frame: &Arc<Frame>,
        target: Target<'_>,
        mode: WriteMode,
        ticket: Option<AckTicket>,
    ) -> DeliveryOutcome {
        if !self.connection.listens_to(&frame.event) {
            return DeliveryOutcome::NotListening;
        }
        let may_skip_lock = ticket.is_none() && !matches!(target, Target::Members(_));
        if may_skip_lock && self.is_live.load(Ordering::Acquire) {
            return DeliveryOutcome::of(self.connection.enqueue(frame, mode));
        }
        let mut state = self.state.lock();
        if let Target::Members(room) = target
            && !state.rooms.contains(room)
        {
            return DeliveryOutcome::Gone;
        }
        let State { phase, lifelines, .. } = &mut *state;
        let ack = ticket.map(|ticket| lifelines.tie(ticket));
        let fate = match phase {
            Phase::Live => Fate::Send(ack),
            Phase::CatchingUp(missing) => missing.take(frame, target.room(), ack, self.max_waiting_bytes),
            Phase::Gone => return DeliveryOutcome::Gone,
        };
        match fate {
            Fate::Send(ack) => DeliveryOutcome::of(self.enqueue(frame, mode, ack)),
            Fate::Waits => DeliveryOutcome::Enqueued,
            Fate::Replayed => DeliveryOutcome::Replayed,
            Fate::Full => DeliveryOutcome::Dropped(QueueError::Full),
        }
    }

    pub(super) fn enqueue(&self, frame: &Frame, mode: WriteMode, ack: Option<AckSink>) -> Result<(), QueueError> {
        match ack {
            None => self.connection.enqueue(frame, mode),
            Some(ack) => self.connection.enqueue_ack(frame, ack),
        }
    }

    /// Runs `add` with a room and notes it by the name that this returns, unless the connection is there already, and has one more reason
    /// now, or is gone. `replay`: what was kept there is replayed first, if the connection has not gone live yet.
    pub(super) fn enter(
        &self,
        room: &RoomName,
        reason: Reason,
        replay: Option<PlainFrames>,
        add: impl FnOnce(&RoomName) -> Option<RoomName>,
    ) -> bool {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Gone) || state.rooms.add_reason(room, reason) {
            return false;
        }
        let Some(name) = add(room) else {
            return false;
        };
        state.rooms.insert(name, reason);
        if let (Some(plain_frames), Phase::CatchingUp(missing)) = (replay, &mut state.phase) {
            missing.begin_replay(room, plain_frames);
        }
        true
    }

    /// Takes a reason away. If it was the room's last one, forgets the room and runs `remove` with it.
    pub(super) fn exit(&self, room: &RoomName, reason: Reason, remove: impl FnOnce(&RoomName)) -> bool {
        let mut state = self.state.lock();
        let Some(room) = state.rooms.remove_reason(room, reason) else {
            return false;
        };
        if let Phase::CatchingUp(missing) = &mut state.phase {
            missing.leave(&room);
            state.settle(&self.is_live);
        }
        remove(&room);
        true
    }

    /// Ends it for good and gives the rooms that it was in, the first time.
    pub(super) fn end(&self) -> Option<Vec<RoomName>> {
        let mut state = self.state.lock();
        self.is_live.store(false, Ordering::Release);
        // Before what waits: that it is lost is to be seen as the end that it is.
        state.lifelines = Lifelines::default();
        match std::mem::replace(&mut state.phase, Phase::Gone) {
            Phase::Gone => None,
            Phase::CatchingUp(_) | Phase::Live => Some(std::mem::replace(&mut state.rooms, JoinedRooms::new()).names()),
        }
    }
}

impl State {
    /// Goes live once nothing is missing.
    pub(super) fn settle(&mut self, is_live: &AtomicBool) {
        if matches!(&self.phase, Phase::CatchingUp(missing) if missing.is_done()) {
            self.phase = Phase::Live;
            is_live.store(true, Ordering::Release);
        }
    }
}

/// Whether a queue's answer means that the connection cannot go on.
pub(super) fn is_fatal(answer: Result<(), QueueError>, frame: &Frame) -> bool {
    match answer {
        Ok(()) | Err(QueueError::Unsupported) => false,
        Err(QueueError::Full) => !frame.volatile,
        Err(QueueError::Ended) => true,
    }
}
