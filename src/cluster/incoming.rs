//! What comes over the subscribing connection: frames, in the engine's order, and answers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{
    Received, Waiting, answer_codec,
    answering::Responder,
    codec,
    frame::Answer,
    head::{Head, MIN_VERSION, VERSION},
    shard::Shard,
};
use crate::message::RoomName;
use crate::proto::bus::v1;
use crate::telemetry;

/// A frame that is so many deadlines old when it comes is not executed: its sender has long been told that it may not have arrived.
const LATE_DEADLINES: u32 = 2;

/// What was received.
pub(super) struct Message {
    pub(super) channel: Vec<u8>,
    pub(super) frame: Vec<u8>,
    pub(super) waiting: WaitingBytes,
}

/// Bytes that were received and are not done with. They count until this is dropped.
pub(super) struct WaitingBytes {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl WaitingBytes {
    pub(super) fn new(total: &Arc<AtomicUsize>, bytes: usize) -> Self {
        total.fetch_add(bytes, Ordering::Relaxed);
        Self { total: total.clone(), bytes }
    }
}

impl Drop for WaitingBytes {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Shard {
    /// Handles what comes, in its order.
    pub(super) async fn receive_loop(self: Arc<Self>, mut messages: mpsc::UnboundedReceiver<Message>) {
        const BATCH: usize = 64;
        let mut batch = Vec::with_capacity(BATCH);
        while messages.recv_many(&mut batch, BATCH).await > 0 {
            for message in batch.drain(..) {
                self.receive(message);
            }
            // Frames may come faster than other tasks get a chance to run.
            tokio::task::yield_now().await;
        }
    }

    fn receive(self: &Arc<Self>, message: Message) {
        let Message { channel, frame, waiting } = message;
        let Some(kind) = self.kind_of(&channel) else { return };
        match kind {
            Kind::Answers => self.receive_answers(&frame),
            // That node waits until all know it.
            Kind::NewPeer => self.heartbeat_now.notify_one(),
            Kind::Frame(room) => self.receive_frame(room, frame, waiting),
        }
    }

    fn kind_of<'a>(&self, channel: &'a [u8]) -> Option<Kind<'a>> {
        let rest = channel.strip_prefix(self.config.prefix.as_bytes())?;
        match rest {
            [b':', b'n', b':', ..] => Some(Kind::Answers),
            [b':', b'r', b':', room @ ..] => Some(Kind::Frame(room)),
            b":all" => Some(Kind::Frame(b"")),
            b":peers" => Some(Kind::NewPeer),
            _ => None,
        }
    }

    fn receive_answers(&self, bytes: &[u8]) {
        let Ok(v1::Answers { answers }) = v1::Answers::decode(bytes) else {
            telemetry::bus_refused("answer");
            return;
        };
        for answer in answers {
            let (number, reply) = answer_codec::decode(answer);
            if !self.pending.answered(number, reply) {
                telemetry::bus_late();
            }
        }
    }

    fn receive_frame(self: &Arc<Self>, room: &[u8], bytes: Vec<u8>, waiting: WaitingBytes) {
        let bytes = Bytes::from(bytes);
        let Some((head, body)) = Head::split(&bytes) else {
            telemetry::bus_refused("malformed");
            return;
        };
        let responder = Responder::new(self.clone(), head.origin, head.number);
        let decoded =
            if (MIN_VERSION..=VERSION).contains(&head.version) { codec::decode(bytes.slice_ref(body)) } else { None };
        let Some((frame, sent_at_ms)) = decoded else {
            telemetry::bus_refused("version");
            self.miss(room, &head);
            // What is stored is to be read from the store.
            self.gaps.fetch_add(1, Ordering::Relaxed);
            responder.answer(Answer::Refused);
            return;
        };
        telemetry::bus_frame("received", frame.kind());
        let is_late = !frame.is_never_late() && self.clock.age(sent_at_ms) > self.config.deadline * LATE_DEADLINES;
        #[cfg(test)]
        let is_late = is_late && !is_broken(Rule::LateIsNotExecuted);
        if is_late {
            telemetry::bus_late();
            self.miss(room, &head);
            responder.answer(Answer::Late);
            return;
        }
        if let Some(node) = self.node() {
            let (retained, kept) = (head.retained, head.kept());
            node.receive(Received { frame, retained, kept, responder, waiting: Waiting(waiting) });
        }
    }

    /// Tells of a frame that is not executed, if it brings something that its room keeps.
    fn miss(&self, room: &[u8], head: &Head) {
        let room = str::from_utf8(room).ok().and_then(|room| RoomName::new(room).ok());
        let Some((node, room)) = self.node().zip(room) else { return };
        if head.retained != 0 {
            node.missed_change(&room, head.retained);
        }
        if let Some(kept) = head.kept() {
            node.missed_message(&room, kept);
        }
    }
}

enum Kind<'a> {
    Answers,
    NewPeer,
    /// A frame to a room; an empty name: to all nodes.
    Frame(&'a [u8]),
}
