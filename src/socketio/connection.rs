use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Serialize, Serializer, ser::SerializeTuple};
use serde_json::value::RawValue;
use socketioxide::{
    ProtocolVersion, SendError, SocketError, TransportType,
    extract::{AckSender, SocketRef},
};

use super::{Edge, ack, encoding::event_frame, session::Wire};
use crate::hub::{AckSink, Connection, Form, Frame, Haste, QueueError};
use crate::listener::{Backlog, By, Sent, StreamHandle, websocket_frame_size};
use crate::message::{CloseReason, ConnectionId, Payload, Transport};

/// What has been missed may take up so much of the queue: the rest is for what is live.
const REPLAY_SHARE: usize = 4;

/// A Socket.IO connection, as the hub knows it.
pub(super) struct SocketConnection {
    id: ConnectionId,
    connected_at: Timestamp,
    pub(super) wire: Arc<Wire>,
    pub(super) edge: Arc<Edge>,
    began_as: Transport,
    /// The device tells what it has seen when it comes back.
    resumes: bool,
    outlet: Mutex<Outlet>,
}

/// The way out, from going live until the end. Socket and connection hold on to each other through it, so it is closed at the
/// end whatever happens.
struct Outlet {
    socket: Option<SocketRef>,
    /// The stream, once it is known; none: the bytes go out with polls.
    stream: Option<StreamHandle>,
    backlog: Backlog,
    /// Packets that the library was given: CONNECT's answer is the first.
    packets: u64,
    /// It was closed before it opened.
    closed: Option<CloseReason>,
}

impl SocketConnection {
    pub(super) fn new(edge: Arc<Edge>, wire: Arc<Wire>, socket: &SocketRef, resumes: bool) -> Arc<Self> {
        let outlet = Outlet { socket: None, stream: None, backlog: Backlog::default(), packets: 1, closed: None };
        Arc::new(Self {
            id: ConnectionId::random(),
            connected_at: edge.parameters.clock.now(),
            wire,
            edge,
            began_as: transport_of(socket),
            resumes,
            outlet: Mutex::new(outlet),
        })
    }

    /// Opens the way out. If the connection was closed before that, the reason: it is to be closed once more.
    pub(super) fn attach(&self, socket: SocketRef) -> Option<CloseReason> {
        let mut outlet = self.outlet.lock();
        outlet.stream.clone_from(&self.wire.stream);
        let written = outlet.stream.as_ref().map_or_else(|| self.wire.polled(), StreamHandle::written);
        outlet.backlog = Backlog::new(written);
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

    /// Answers an event of the device, unless too much waits for it already: then the next emit finds it slow.
    pub(super) fn acknowledge(&self, ack: AckSender, answer: &serde_json::Value) {
        let mut outlet = self.outlet.lock();
        if outlet.socket.is_none() {
            // Not live yet, or gone.
            outlet.packets += u64::from(ack.send(&[answer]).is_ok());
            return;
        }
        if self.is_full(&mut outlet) {
            return;
        }
        // An error says that the device is gone.
        if ack.send(&[answer]).is_ok() {
            outlet.packets += 1;
            outlet.backlog.add("430[]".len() + answer.to_string().len());
        }
    }

    /// Puts a frame into the device's queue, by this.
    fn enqueue_by(
        &self,
        frame: &Frame,
        send: impl FnOnce(&mut Outlet, Option<&RawValue>) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        let mut outlet = self.outlet.lock();
        match &outlet.socket {
            None => return Err(QueueError::Ended),
            Some(socket) if matches!(frame.payload, Payload::Binary(_)) && throws_on_binary(socket) => {
                return Err(QueueError::Unsupported);
            }
            Some(_) => {}
        }
        // Looked at in any case: this is where what was written is taken note of.
        let is_full = self.is_full(&mut outlet);
        let meta = frame.kept.as_ref().filter(|_| self.resumes).map(|kept| &*kept.meta);
        let bytes = wire_size(frame, meta, outlet.stream.is_some());
        let is_exempt = frame.on_join && outlet.backlog.add_exempt(bytes, self.edge.parameters.on_join_bytes);
        if is_full && !is_exempt {
            return Err(QueueError::Full);
        }
        send(&mut outlet, meta)?;
        if !is_exempt {
            outlet.backlog.add(bytes);
        }
        Ok(())
    }

    /// Writes a frame into the stream itself, past the library's queue and task, once the library has written all that it was given.
    fn write_through(&self, outlet: &Outlet, frame: &Frame, haste: Haste, meta: Option<&RawValue>) -> Sent {
        let is_stream = self.began_as == Transport::SocketIoWebSocket;
        let polled = if is_stream { Some(0) } else { self.wire.polled_packets() };
        let (Some(stream), Some(polled)) = (&outlet.stream, polled) else {
            return Sent::TooEarly;
        };
        let Some(packets) = outlet.packets.checked_sub(polled) else {
            return Sent::TooEarly;
        };
        let payload = match &frame.payload {
            Payload::None => None,
            Payload::Json(raw) => Some(&**raw),
            Payload::Binary(_) => return Sent::TooEarly,
        };
        let form = if meta.is_some() { Form::EventAndPosition } else { Form::Event };
        let written = frame.written.get_or_write(form, || event_frame(frame.event.as_str(), payload, meta));
        let by = match haste {
            Haste::Now => By::Sender,
            Haste::Soon => By::Flusher,
        };
        stream.send_after(packets, written, by)
    }

    /// Whether too much waits for the device.
    fn is_full(&self, outlet: &mut Outlet) -> bool {
        if outlet.stream.is_none()
            && let Some(socket) = &outlet.socket
            && socket.transport_type() == TransportType::Websocket
        {
            outlet.stream = self.edge.upgrades.get(&socket.id).map(|stream| stream.clone());
            if let Some(stream) = &outlet.stream {
                outlet.backlog.move_to(self.wire.polled(), stream.written());
            }
        }
        self.waits_more_than(self.edge.parameters.config.queue_bytes, outlet)
    }

    fn waits_more_than(&self, bytes: usize, outlet: &mut Outlet) -> bool {
        let written = outlet.stream.as_ref().map_or_else(|| self.wire.polled(), StreamHandle::written);
        outlet.backlog.is_past(bytes, written)
    }
}

impl Connection for SocketConnection {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn transport(&self) -> Transport {
        self.outlet.lock().socket.as_ref().map_or(self.began_as, transport_of)
    }

    fn address(&self) -> IpAddr {
        self.wire.address
    }

    fn user_agent(&self) -> &str {
        &self.wire.user_agent
    }

    fn connected_at(&self) -> Timestamp {
        self.connected_at
    }

    fn resumes(&self) -> bool {
        self.resumes
    }

    fn has_room(&self) -> bool {
        !self.waits_more_than(self.edge.parameters.config.queue_bytes / REPLAY_SHARE, &mut self.outlet.lock())
    }

    fn enqueue(&self, frame: &Frame, haste: Haste) -> Result<(), QueueError> {
        self.enqueue_by(frame, |outlet, meta| match self.write_through(outlet, frame, haste, meta) {
            Sent::Yes => Ok(()),
            Sent::Ended => Err(QueueError::Ended),
            Sent::TooEarly => outlet.give(frame, |socket| socket.emit(frame.event.as_str(), &Arguments(frame, meta))),
        })
    }

    fn enqueue_ack(&self, frame: &Frame, ack: AckSink) -> Result<(), QueueError> {
        self.enqueue_by(frame, |outlet, meta| {
            outlet.give(frame, |socket| {
                let asking = socket.timeout(ack::NEVER);
                let reply = asking.emit_with_ack(frame.event.as_str(), &Arguments(frame, meta))?;
                ack.expect(ack::outcome(reply));
                Ok(())
            })
        })
    }

    fn close(&self, reason: &CloseReason) {
        self.end(reason);
    }
}

impl Outlet {
    /// Gives an event to the library.
    fn give(
        &mut self,
        frame: &Frame,
        emit: impl FnOnce(&SocketRef) -> Result<(), SendError>,
    ) -> Result<(), QueueError> {
        let socket = self.socket.as_ref().ok_or(QueueError::Ended)?;
        emit(socket).map_err(|error| queue_error(&error))?;
        // An attachment is a packet of its own.
        self.packets += 1 + u64::from(matches!(frame.payload, Payload::Binary(_)));
        Ok(())
    }
}

fn transport_of(socket: &SocketRef) -> Transport {
    match socket.transport_type() {
        TransportType::Websocket => Transport::SocketIoWebSocket,
        TransportType::Polling => Transport::SocketIoPolling,
    }
}

/// A 2.x client fails on a binary attachment that a poll brings.
fn throws_on_binary(socket: &SocketRef) -> bool {
    socket.protocol() == ProtocolVersion::V4 && socket.transport_type() == TransportType::Polling
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
struct Arguments<'a>(&'a Frame, Option<&'a RawValue>);

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

/// What a frame takes at least on the wire of a stream, or in the answer to a poll. Too much would count as waiting for ever;
/// too little is set right when nothing waits.
fn wire_size(frame: &Frame, meta: Option<&RawValue>, is_stream: bool) -> usize {
    // A poll that fetches one packet has nothing around it.
    let framed = if is_stream { websocket_frame_size } else { |length| length };
    let event = frame.event.as_str().len() + meta.map_or(0, |meta| meta.get().len() + ",".len());
    match &frame.payload {
        Payload::None => framed(event + r#"42[""]"#.len()),
        Payload::Json(raw) => framed(event + r#"42["",]"#.len() + raw.get().len()),
        Payload::Binary(bytes) => {
            framed(event + r#"451-["",{"_placeholder":true,"num":0}]"#.len()) + framed(bytes.len())
        }
    }
}
