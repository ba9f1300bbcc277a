use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use engineioxide::{ProtocolVersion, session::Session};
use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeTuple};
use serde_json::value::RawValue;
use socketioxide::{SendError, SocketError, TransportType, extract::AckSender};
use transport::{Bounds, Handle, Outgoing, WriteMode};

use super::{ack, device::Device, encoding::with_frames};
use crate::hub::{AckSink, Connection, Frame, QueueError};
use crate::message::{CloseReason, ConnectionId, Payload, Transport};

/// A device with an accepted token, as the hub knows it: the device, and the session that carries it.
pub(super) struct SocketConnection {
    // What an event passes on its way, side by side.
    /// The WebSocket of the session, once there is one: an event goes to its queue without the session's lock.
    stream: OnceLock<Handle>,
    bounds: Bounds,
    /// Of the session's ledger: it accepts no packet of an earlier connection.
    generation: u32,
    protocol: ProtocolVersion,
    /// The device tells the positions that it has seen when it comes back.
    resumes: bool,
    session: Arc<Session>,
    device: Arc<Device>,
    id: ConnectionId,
    connected_at: Timestamp,
}

impl SocketConnection {
    pub(super) fn new(device: Arc<Device>, session: Arc<Session>, resumes: bool) -> Arc<Self> {
        Arc::new(Self {
            stream: OnceLock::new(),
            bounds: device.edge.bounds(),
            generation: session.reopen(),
            protocol: session.protocol(),
            resumes,
            id: ConnectionId::random(),
            connected_at: device.edge.deps.clock.now(),
            session,
            device,
        })
    }

    /// The generation of its packets in the session's ledger.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The WebSocket of the session, if it has one by now.
    fn stream(&self) -> Option<&Handle> {
        if self.stream.get().is_none()
            && let Some(stream) = self.session.websocket()
        {
            // A session changes its transport once.
            let _ = self.stream.set(stream.clone());
        }
        self.stream.get()
    }

    fn meta<'a>(&self, frame: &'a Frame) -> Option<&'a RawValue> {
        frame.entry.as_ref().filter(|_| self.resumes).map(|entry| &*entry.meta)
    }

    fn outgoing<'a>(&self, frame: &'a Frame, frames: &'a [bytes::Bytes]) -> Outgoing<'a> {
        let (is_exempt, unproven, bounds) = (frame.on_join, frame.unproven.as_ref(), self.bounds);
        Outgoing { frames, generation: self.generation, is_exempt, is_last: false, unproven, bounds }
    }
}

impl Device {
    /// Answers an event of the device, unless too much waits for it already: then the next emit finds it slow.
    pub(super) fn acknowledge(&self, session: &Session, ack: AckSender, answer: &impl Serialize) {
        if session.backlog() <= self.edge.bounds().queue_bytes {
            // An error says that the device is gone.
            let _ = ack.send(&[answer]);
        }
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
        self.device.address
    }

    fn user_agent(&self) -> &str {
        &self.device.user_agent
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
        self.session.has_room(self.bounds)
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.session.poll_room(cx, self.bounds)
    }

    fn backlog(&self) -> u64 {
        self.session.backlog() as u64
    }

    fn enqueue(&self, frame: &Frame, mode: WriteMode) -> Result<(), QueueError> {
        with_frames(frame, self.protocol, self.meta(frame), |frames| {
            let outgoing = self.outgoing(frame, frames);
            match self.stream() {
                Some(stream) if outgoing.unproven.is_none() => stream.deliver(&outgoing, mode)?,
                Some(_) | None => self.session.deliver(&outgoing, mode)?,
            }
            Ok(())
        })
    }

    fn touch(&self) {
        if let Some(stream) = self.stream.get() {
            stream.touch();
        }
    }

    fn enqueue_ack(&self, frame: &Frame, ack: AckSink) -> Result<(), QueueError> {
        let meta = self.meta(frame);
        self.session.check(&self.outgoing(frame, &[]), frame.size())?;
        let socket = self.device.socket(self.id).ok_or(QueueError::Ended)?;
        let reply = socket.timeout(ack::NEVER).emit_with_ack(frame.event.as_str(), &Arguments(frame, meta));
        let reply = reply.map_err(|error| queue_error(&error))?;
        if let Some(unproven) = &frame.unproven {
            self.session.want_proof(self.generation, unproven)?;
        }
        ack.expect(ack::outcome(reply));
        Ok(())
    }

    fn close(&self, reason: &CloseReason) {
        if let Some(socket) = self.device.close(self.id, reason) {
            self.device.tell_of_close(&self.session, self.generation, &socket, reason);
        }
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
