use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    AckSink, Connection, Frame, QueueError,
    ack::{Asking, Lifelines},
};
use crate::message::{ConnectionId, RoomName, UserId};

/// A connection in the hub.
pub struct Member {
    id: ConnectionId,
    user: UserId,
    connection: Arc<dyn Connection>,
    waiting_bytes: usize,
    // Held while a room is entered or left, so that neither can outlive the connection, and while a frame is enqueued, so
    // that what waits comes before what is live.
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    rooms: Vec<RoomName>,
    lifelines: Lifelines,
}

enum Phase {
    CatchingUp { waiting: Vec<Waiting>, bytes: usize },
    Live,
    Gone,
}

struct Waiting {
    frame: Arc<Frame>,
    ack: Option<AckSink>,
}

/// What became of a frame at one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Enqueued,
    Dropped(QueueError),
    /// The connection is gone, or has left the room: it does not count as matched.
    Gone,
    /// The connection does not listen for the event: it does not count as matched.
    NotListening,
    /// The connection is gone, and the hub does not know yet.
    Ended,
}

impl Member {
    pub(super) fn new(user: UserId, connection: Arc<dyn Connection>, waiting_bytes: usize) -> Self {
        let phase = Phase::CatchingUp { waiting: Vec::new(), bytes: 0 };
        let state = Mutex::new(State { phase, rooms: Vec::new(), lifelines: Lifelines::default() });
        Self { id: connection.id(), user, connection, waiting_bytes, state }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// What the edge knows of it.
    pub fn connection(&self) -> &dyn Connection {
        &*self.connection
    }

    /// The rooms that it is in, in the order in which it joined.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.state.lock().rooms.clone()
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.state.lock().rooms.contains(room)
    }

    /// Whether it has not gone live yet.
    pub fn is_catching_up(&self) -> bool {
        matches!(self.state.lock().phase, Phase::CatchingUp { .. })
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Gone)
    }

    /// Lets frames through from now on: first `greeting`, then what has waited. False if the connection is gone, or its queue
    /// does not take them.
    pub fn go_live(&self, greeting: Option<&Frame>) -> bool {
        let mut state = self.state.lock();
        let Phase::CatchingUp { waiting, .. } = &mut state.phase else {
            return false;
        };
        let waiting = std::mem::take(waiting);
        let mut frames = waiting.into_iter();
        let taken = greeting.is_none_or(|frame| !is_fatal(self.enqueue(frame, None), frame))
            && frames.all(|Waiting { frame, ack }| !is_fatal(self.enqueue(&frame, ack), &frame));
        if taken {
            state.phase = Phase::Live;
        }
        taken
    }

    /// Sends a frame that is for this connection alone.
    pub fn send(&self, frame: Frame) -> bool {
        self.deliver(&Arc::new(frame), None, None) == Delivery::Enqueued
    }

    /// `room`: it is for those alone who are in there. `asking`: the device is asked for an acknowledgement.
    pub(super) fn deliver(&self, frame: &Arc<Frame>, room: Option<&RoomName>, asking: Option<Asking>) -> Delivery {
        if !self.connection.listens_to(&frame.event) {
            return Delivery::NotListening;
        }
        let mut state = self.state.lock();
        if room.is_some_and(|room| !state.rooms.contains(room)) {
            return Delivery::Gone;
        }
        let State { phase, lifelines, .. } = &mut *state;
        let ack = asking.map(|asking| lifelines.tie(asking));
        match phase {
            Phase::Live => match self.enqueue(frame, ack) {
                Ok(()) => Delivery::Enqueued,
                Err(QueueError::Ended) => Delivery::Ended,
                Err(error @ (QueueError::Full | QueueError::Unsupported)) => Delivery::Dropped(error),
            },
            Phase::CatchingUp { bytes, .. } if !frame.on_join && *bytes > self.waiting_bytes => {
                Delivery::Dropped(QueueError::Full)
            }
            Phase::CatchingUp { waiting, bytes } => {
                *bytes += if frame.on_join { 0 } else { frame.size() };
                waiting.push(Waiting { frame: frame.clone(), ack });
                Delivery::Enqueued
            }
            Phase::Gone => Delivery::Gone,
        }
    }

    fn enqueue(&self, frame: &Frame, ack: Option<AckSink>) -> Result<(), QueueError> {
        match ack {
            None => self.connection.enqueue(frame),
            Some(ack) => self.connection.enqueue_ack(frame, ack),
        }
    }

    /// Runs `add` with a room and notes it if that succeeds, unless it is noted already or the connection is gone.
    pub(super) fn enter(&self, room: &RoomName, add: impl FnOnce(&RoomName) -> bool) -> bool {
        let mut state = self.state.lock();
        let enters = !matches!(state.phase, Phase::Gone) && !state.rooms.contains(room) && add(room);
        if enters {
            state.rooms.push(room.clone());
        }
        enters
    }

    /// Forgets a room and runs `remove` with it, if it was noted.
    pub(super) fn exit(&self, room: &RoomName, remove: impl FnOnce(&RoomName)) -> bool {
        let mut state = self.state.lock();
        let Some(place) = state.rooms.iter().position(|known| known == room) else {
            return false;
        };
        let room = state.rooms.swap_remove(place);
        remove(&room);
        true
    }

    /// Ends it for good and gives the rooms that it was in, the first time.
    pub(super) fn end(&self) -> Option<Vec<RoomName>> {
        let mut state = self.state.lock();
        // Before what waits: that it is lost is to be seen as the end that it is.
        state.lifelines = Lifelines::default();
        match std::mem::replace(&mut state.phase, Phase::Gone) {
            Phase::Gone => None,
            Phase::CatchingUp { .. } | Phase::Live => Some(std::mem::take(&mut state.rooms)),
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
