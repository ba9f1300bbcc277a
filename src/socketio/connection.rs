use std::{net::IpAddr, sync::Arc};

use engineioxide::session::{SendError as EngineError, Session as EngineSession};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Serialize, Serializer, ser::SerializeTuple};
use serde_json::value::RawValue;
use socketioxide::{
    SendError, SocketError, TransportType,
    extract::{AckSender, SocketRef},
};
use transport::WriteMode;

use super::{Edge, ack, encoding::event_frames, session::Session};
use crate::hub::{AckSink, Connection, Frame, Haste, InFlight, QueueError};
use crate::message::{CloseReason, ConnectionId, Payload, Transport};

/// What a device has missed may take up this part of its queue: the rest is for live events.
const REPLAY_SHARE: usize = 4;

/// A Socket.IO connection, as the hub knows it.
pub(super) struct SocketConnection {
    id: ConnectionId,
    connected_at: Timestamp,
    edge: Arc<Edge>,
    kept: Arc<Session>,
    pub(super) session: Arc<EngineSession>,
    /// The device tells the positions that it has seen when it comes back.
    resumes: bool,
    outlet: Mutex<Outlet>,
}

/// The way out, from going live until the end. Socket and connection hold on to each other through it, so it is closed at the end
/// whatever happens.
#[derive(Default)]
struct Outlet {
    socket: Option<SocketRef>,
    /// Of the backlog, at most this many bytes were retained values, which do not count against `queue_bytes`.
    exempt: usize,
    /// Messages whose receipt is not proven, each with the number of its last packet in the session.
    in_flight: InFlight,
    /// The reason of a close that came before the way out was opened.
    closed: Option<CloseReason>,
}

impl SocketConnection {
    pub(super) fn new(edge: Arc<Edge>, kept: Arc<Session>, session: Arc<EngineSession>, resumes: bool) -> Arc<Self> {
        Arc::new(Self {
            id: ConnectionId::random(),
            connected_at: edge.parameters.clock.now(),
            edge,
            kept,
            session,
            resumes,
            outlet: Mutex::default(),
        })
    }

    /// Opens the way out. If the connection was closed before that, the reason: it is to be closed once more.
    pub(super) fn attach(&self, socket: SocketRef) -> Option<CloseReason> {
        let mut outlet = self.outlet.lock();
        outlet.socket = Some(socket);
        outlet.closed.take()
    }

    /// Closes it.
    pub(super) fn detach(&self) -> Option<SocketRef> {
        self.outlet.lock().socket.take()
    }

    /// The same, for this reason, which is kept if the way out has not opened yet.
    pub(super) fn detach_for(&self, reason: &CloseReason) -> Option<SocketRef> {
        let mut outlet = self.outlet.lock();
        let socket = outlet.socket.take();
        if socket.is_none() {
            outlet.closed = Some(reason.clone());
        }
        socket
    }

    /// The device has all packets of its session up to this one.
    pub(super) fn proven(&self, upto: u64) {
        self.outlet.lock().in_flight.prove(upto);
    }

    /// The session has ended: what is not proven never will be.
    pub(super) fn ended(&self) {
        let mut outlet = self.outlet.lock();
        outlet.socket = None;
        let in_flight = std::mem::take(&mut outlet.in_flight);
        drop(outlet);
        drop(in_flight);
    }

    /// Answers an event of the device, unless too much waits for it already: then the next emit finds it slow.
    pub(super) fn acknowledge(&self, ack: AckSender, answer: &serde_json::Value) {
        if self.session.backlog() <= self.edge.parameters.config.queue_bytes {
            // An error says that the device is gone.
            let _ = ack.send(&[answer]);
        }
    }

    /// Puts a frame into the device's queue, by `send`, which gives the number of its last packet.
    fn enqueue_by(
        &self,
        frame: &Frame,
        bytes: usize,
        send: impl FnOnce(&SocketRef) -> Result<u64, QueueError>,
    ) -> Result<(), QueueError> {
        let mut outlet = self.outlet.lock();
        let Outlet { socket, exempt, in_flight, .. } = &mut *outlet;
        let socket = socket.as_ref().ok_or(QueueError::Ended)?;
        let backlog = self.session.backlog();
        *exempt = (*exempt).min(backlog);
        let parameters = &self.edge.parameters;
        let is_exempt = frame.on_join && *exempt + bytes <= parameters.on_join_bytes;
        if !is_exempt && backlog > parameters.config.queue_bytes.saturating_add(*exempt) {
            return Err(QueueError::Full);
        }
        if frame.unproven.is_some() && in_flight.is_full() {
            return Err(QueueError::Full);
        }
        let number = send(socket)?;
        if is_exempt {
            *exempt += bytes;
        }
        if let Some(unproven) = &frame.unproven {
            in_flight.push(number, unproven);
        }
        Ok(())
    }

    fn meta<'a>(&self, frame: &'a Frame) -> Option<&'a RawValue> {
        frame.kept.as_ref().filter(|_| self.resumes).map(|kept| &*kept.meta)
    }
}

impl Connection for SocketConnection {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn transport(&self) -> Transport {
        match self.session.transport_type() {
            TransportType::Websocket => Transport::SocketIoWebSocket,
            TransportType::Polling => Transport::SocketIoPolling,
        }
    }

    fn address(&self) -> IpAddr {
        self.kept.address
    }

    fn user_agent(&self) -> &str {
        &self.kept.user_agent
    }

    fn connected_at(&self) -> Timestamp {
        self.connected_at
    }

    fn resumes(&self) -> bool {
        self.resumes
    }

    fn is_listening(&self) -> bool {
        self.session.is_listening()
    }

    fn has_room(&self) -> bool {
        let outlet = self.outlet.lock();
        let bytes = (self.edge.parameters.config.queue_bytes / REPLAY_SHARE).saturating_add(outlet.exempt);
        outlet.in_flight.has_room() && self.session.backlog() <= bytes
    }

    fn backlog(&self) -> u64 {
        self.session.backlog() as u64
    }

    fn enqueue(&self, frame: &Frame, haste: Haste) -> Result<(), QueueError> {
        let frames = event_frames(frame, self.session.protocol(), self.meta(frame));
        let mode = match haste {
            Haste::Now => WriteMode::Inline,
            Haste::Soon => WriteMode::Batched,
        };
        let bytes = frames.iter().map(bytes::Bytes::len).sum();
        self.enqueue_by(frame, bytes, |_| {
            self.session.send(&frames, mode, frame.unproven.is_some()).map_err(|error| match error {
                EngineError::Full => QueueError::Full,
                EngineError::Closed => QueueError::Ended,
            })
        })
    }

    fn enqueue_ack(&self, frame: &Frame, ack: AckSink) -> Result<(), QueueError> {
        let meta = self.meta(frame);
        self.enqueue_by(frame, frame.size(), |socket| {
            let asking = socket.timeout(ack::NEVER);
            let reply = asking.emit_with_ack(frame.event.as_str(), &Arguments(frame, meta));
            ack.expect(ack::outcome(reply.map_err(|error| queue_error(&error))?));
            Ok(if frame.unproven.is_some() { self.session.want_proof() } else { 0 })
        })
    }

    fn close(&self, reason: &CloseReason) {
        self.end(reason);
    }
}

fn queue_error(error: &SendError) -> QueueError {
    match error {
        SendError::Socket(SocketError::InternalChannelFull) => QueueError::Full,
        SendError::Socket(SocketError::Closed) => QueueError::Ended,
        // A checked payload always serialises; if ever not, the device loses that event and no more.
        SendError::Serialize(_) => QueueError::Unsupported,
    }
}

/// An event's arguments. A tuple is what the library spreads. Where a message stands is an argument of its own, and the payload then
/// always the first.
pub(super) struct Arguments<'a>(pub(super) &'a Frame, pub(super) Option<&'a RawValue>);

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(frame, meta) = self;
        let has_first = meta.is_some() || !matches!(frame.payload, Payload::None);
        let mut arguments = serializer.serialize_tuple(usize::from(has_first) + usize::from(meta.is_some()))?;
        match &frame.payload {
            Payload::None if meta.is_some() => arguments.serialize_element(&())?,
            Payload::None => {}
            Payload::Json(raw) => arguments.serialize_element(&**raw)?,
            Payload::Binary(bytes) => arguments.serialize_element(&Attachment(bytes))?,
        }
        if let Some(meta) = meta {
            arguments.serialize_element(meta)?;
        }
        arguments.end()
    }
}

struct Attachment<'a>(&'a [u8]);

impl Serialize for Attachment<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}
