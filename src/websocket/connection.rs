use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use transport::{
    Handle, Proof, WriteMode,
    websocket::{Opcode, frame},
};

use super::{Endpoint, gate::Visitor};
use crate::hub::{Connection, Form, Frame, Haste, InFlight, QueueError};
use crate::message::{CloseCode, CloseReason, ConnectionId, EventName, Payload, Transport};

/// An event without a payload.
const NULL: &[u8] = b"null";

/// What a device has missed may take up this part of its queue: the rest is for live events.
const REPLAY_SHARE: usize = 4;

/// A plain WebSocket, as the hub knows it.
pub(super) struct PlainConnection {
    id: ConnectionId,
    connected_at: Timestamp,
    address: IpAddr,
    user_agent: Box<str>,
    stream: Handle,
    endpoint: Arc<Endpoint>,
    outlet: Mutex<Outlet>,
}

struct Outlet {
    condition: Condition,
    /// Of the backlog, at most this many bytes were retained values, which do not count against `queue_bytes`.
    exempt: usize,
    proof: Proof,
    /// Messages whose receipt is not proven, by their numbers in `proof`.
    in_flight: InFlight,
}

enum Condition {
    Open,
    /// The hub has closed it, for this reason.
    Closing(CloseReason),
    /// The socket has ended, or is about to.
    Ended,
}

impl PlainConnection {
    pub(super) fn new(visitor: &mut Visitor, stream: Handle) -> Arc<Self> {
        let outlet =
            Outlet { condition: Condition::Open, exempt: 0, proof: Proof::default(), in_flight: InFlight::default() };
        Arc::new(Self {
            id: ConnectionId::random(),
            connected_at: visitor.endpoint.parameters.clock.now(),
            address: visitor.address,
            user_agent: std::mem::take(&mut visitor.user_agent),
            stream,
            endpoint: visitor.endpoint.clone(),
            outlet: Mutex::new(outlet),
        })
    }

    /// Asks the device whether it is there, unless a ping is on its way already.
    pub(super) fn ping(&self) {
        let mut outlet = self.outlet.lock();
        if !outlet.proof.has_ping() {
            self.send_ping(&mut outlet.proof);
        }
    }

    fn send_ping(&self, proof: &mut Proof) {
        let id = proof.ping();
        self.stream.enqueue(&[frame(Opcode::Ping, &id.to_be_bytes())], WriteMode::Inline);
        proof.ping_queued(&self.stream);
    }

    /// Whether the last ping has not left for the device, though bytes before it do.
    pub(super) fn is_ping_on_its_way(&self) -> bool {
        self.outlet.lock().proof.is_ping_on_its_way(&self.stream)
    }

    /// Takes a pong of the device.
    pub(super) fn pong(&self, payload: &[u8]) {
        let Ok(id) = payload.try_into().map(u64::from_be_bytes) else {
            return;
        };
        let mut outlet = self.outlet.lock();
        // The pong of a heartbeat may prove nothing, and a message behind it still needs its ping.
        let upto = outlet.proof.pong(Some(id)).unwrap_or_default();
        outlet.in_flight.prove(upto);
        if outlet.proof.needs_ping() {
            self.send_ping(&mut outlet.proof);
        }
    }

    /// Accepts no more. Gives the reason if the hub has closed it.
    pub(super) fn end(&self) -> Option<CloseReason> {
        let mut outlet = self.outlet.lock();
        let condition = std::mem::replace(&mut outlet.condition, Condition::Ended);
        let in_flight = std::mem::take(&mut outlet.in_flight);
        drop(outlet);
        // What is not proven never will be.
        drop(in_flight);
        match condition {
            Condition::Closing(reason) => Some(reason),
            Condition::Open | Condition::Ended => None,
        }
    }

    /// Ends the stream and throws away what was not sent.
    pub(super) fn abort(&self) {
        self.stream.abort();
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
        let outlet = self.outlet.lock();
        let bytes = (self.endpoint.parameters.queue_bytes / REPLAY_SHARE).saturating_add(outlet.exempt);
        outlet.in_flight.has_room() && self.stream.backlog() <= bytes
    }

    fn backlog(&self) -> u64 {
        self.stream.backlog() as u64
    }

    fn enqueue(&self, frame: &Frame, haste: Haste) -> Result<(), QueueError> {
        let bytes = frame.written.get_or_write(Form::Payload, || payload_frame(&frame.payload));
        let parameters = &self.endpoint.parameters;
        let mut outlet = self.outlet.lock();
        if !matches!(outlet.condition, Condition::Open) {
            return Err(QueueError::Ended);
        }
        let backlog = self.stream.backlog();
        outlet.exempt = outlet.exempt.min(backlog);
        let is_exempt = frame.on_join && outlet.exempt + bytes.len() <= parameters.on_join_bytes;
        if !is_exempt && backlog > parameters.queue_bytes.saturating_add(outlet.exempt) {
            return Err(QueueError::Full);
        }
        if frame.unproven.is_some() && outlet.in_flight.is_full() {
            return Err(QueueError::Full);
        }
        let mode = match haste {
            Haste::Now => WriteMode::Inline,
            Haste::Soon => WriteMode::Batched,
        };
        if !self.stream.enqueue(std::slice::from_ref(bytes), mode) {
            return Err(QueueError::Ended);
        }
        outlet.exempt += if is_exempt { bytes.len() } else { 0 };
        let number = outlet.proof.queue(1);
        if let Some(unproven) = &frame.unproven {
            outlet.in_flight.push(number, unproven);
            outlet.proof.want();
            if outlet.proof.needs_ping() {
                self.send_ping(&mut outlet.proof);
            }
        }
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
            return;
        }
        if self.stream.backlog() > self.endpoint.parameters.queue_bytes {
            // The device would be cut off before it has all of it. So that there is room to tell it why, it goes at once.
            self.stream.drop_unwritten();
        }
        self.stream.cut();
    }
}

/// A payload, alone in a frame.
fn payload_frame(payload: &Payload) -> Bytes {
    match payload {
        Payload::None => frame(Opcode::Text, NULL),
        Payload::Json(raw) => frame(Opcode::Text, raw.get().as_bytes()),
        Payload::Binary(bytes) => frame(Opcode::Binary, bytes),
    }
}
