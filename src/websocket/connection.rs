use std::{collections::VecDeque, net::IpAddr, sync::Arc, task::Waker};

use futures_util::task::AtomicWaker;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::{
    Bytes, Message,
    protocol::frame::{
        Frame as WebSocketFrame,
        coding::{Data, OpCode},
    },
};

use super::{Endpoint, gate::Visitor};
use crate::hub::{Connection, Frame, Haste, QueueError};
use crate::listener::{Backlog, StreamHandle, websocket_frame_size};
use crate::message::{CloseCode, CloseReason, ConnectionId, EventName, Payload, Transport};

/// What an event without a payload is.
const NULL: &str = "null";
/// A queue that is empty keeps room for so many; what more a burst took is given back.
const KEPT_CAPACITY: usize = 8;

/// What has been missed may take up so much of the queue: the rest is for what is live.
const REPLAY_SHARE: usize = 4;

/// A plain WebSocket, as the hub knows it.
pub(super) struct PlainConnection {
    id: ConnectionId,
    connected_at: Timestamp,
    address: IpAddr,
    user_agent: Box<str>,
    stream: StreamHandle,
    endpoint: Arc<Endpoint>,
    outlet: Mutex<Outlet>,
    /// The socket's task.
    task: AtomicWaker,
}

struct Outlet {
    queue: VecDeque<Payload>,
    backlog: Backlog,
    condition: Condition,
}

enum Condition {
    Open,
    /// The hub has let go of it, for this reason.
    Closing(CloseReason),
    /// The socket is no more, or about to be.
    Ended,
}

impl PlainConnection {
    pub(super) fn new(visitor: &mut Visitor) -> Arc<Self> {
        let backlog = Backlog::new(visitor.stream.written());
        let outlet = Outlet { queue: VecDeque::new(), backlog, condition: Condition::Open };
        Arc::new(Self {
            id: ConnectionId::random(),
            connected_at: visitor.endpoint.parameters.clock.now(),
            address: visitor.address,
            user_agent: std::mem::take(&mut visitor.user_agent),
            stream: visitor.stream.clone(),
            endpoint: visitor.endpoint.clone(),
            outlet: Mutex::new(outlet),
            task: AtomicWaker::new(),
        })
    }

    /// Wakes this task whenever there is something to do. To be called before looking.
    pub(super) fn wakes(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Whether the hub has let go of it.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.outlet.lock().condition, Condition::Closing(_))
    }

    /// What goes out next.
    pub(super) fn next(&self) -> Option<Payload> {
        let mut outlet = self.outlet.lock();
        let next = outlet.queue.pop_front();
        if next.is_none() && outlet.queue.capacity() > KEPT_CAPACITY {
            outlet.queue = VecDeque::new();
        }
        next
    }

    /// Takes no more. Gives what has not gone out yet, and why the hub let go of it if it did.
    pub(super) fn end(&self) -> (VecDeque<Payload>, Option<CloseReason>) {
        let mut outlet = self.outlet.lock();
        let reason = match std::mem::replace(&mut outlet.condition, Condition::Ended) {
            Condition::Closing(reason) => Some(reason),
            Condition::Open | Condition::Ended => None,
        };
        (std::mem::take(&mut outlet.queue), reason)
    }

    fn is_full(&self, outlet: &mut Outlet) -> bool {
        outlet.backlog.is_past(self.endpoint.parameters.queue_bytes, self.stream.written())
    }
}

impl Connection for PlainConnection {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    fn user_agent(&self) -> &str {
        &self.user_agent
    }

    fn connected_at(&self) -> Timestamp {
        self.connected_at
    }

    fn listens_to(&self, event: &EventName) -> bool {
        self.endpoint.config.events.iter().any(|pattern| pattern.matches(event))
    }

    fn has_room(&self) -> bool {
        let bound = self.endpoint.parameters.queue_bytes / REPLAY_SHARE;
        !self.outlet.lock().backlog.is_past(bound, self.stream.written())
    }

    fn enqueue(&self, frame: &Frame, _: Haste) -> Result<(), QueueError> {
        let mut outlet = self.outlet.lock();
        if !matches!(outlet.condition, Condition::Open) {
            return Err(QueueError::Ended);
        }
        // Looked at in any case: this is where what was written is taken note of.
        let is_full = self.is_full(&mut outlet);
        let bytes = websocket_frame_size(length(&frame.payload));
        let is_exempt = frame.on_join && outlet.backlog.add_exempt(bytes, self.endpoint.parameters.on_join_bytes);
        if is_full && !is_exempt {
            return Err(QueueError::Full);
        }
        if !is_exempt {
            outlet.backlog.add(bytes);
        }
        outlet.queue.push_back(frame.payload.clone());
        drop(outlet);
        self.task.wake();
        Ok(())
    }

    fn close(&self, reason: &CloseReason) {
        let mut outlet = self.outlet.lock();
        if !matches!(outlet.condition, Condition::Open) {
            return;
        }
        outlet.condition = Condition::Closing(reason.clone());
        if reason.code == CloseCode::Unready {
            self.stream.abort();
        }
        if self.is_full(&mut outlet) {
            // What waits would be cut off before the device has it. So that there is room to tell it why, it goes at once.
            outlet.queue = VecDeque::new();
        }
        drop(outlet);
        self.task.wake();
    }
}

fn length(payload: &Payload) -> usize {
    match payload {
        Payload::None => NULL.len(),
        Payload::Json(_) | Payload::Binary(_) => payload.len(),
    }
}

/// A payload, alone in a frame. Its bytes are shared with all other connections that get it.
pub(super) fn message(payload: Payload) -> Message {
    let (bytes, kind) = match payload {
        Payload::None => (Bytes::from_static(NULL.as_bytes()), Data::Text),
        Payload::Json(raw) => (Bytes::from_owner(Text(raw)), Data::Text),
        Payload::Binary(bytes) => (bytes, Data::Binary),
    };
    Message::Frame(WebSocketFrame::message(bytes, OpCode::Data(kind), true))
}

struct Text(Arc<RawValue>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}
