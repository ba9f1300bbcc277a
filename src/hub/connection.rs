use std::{
    net::IpAddr,
    task::{Context, Poll},
};

use jiff::Timestamp;

use transport::{Rejected, WriteMode};

use super::{AckSink, Frame};
use crate::message::{CloseReason, ConnectionId, EventName, Transport};

/// One live connection of a device, as an edge implements it. The hub may call it with a lock held: nothing here may wait, or call
/// the hub.
pub trait Connection: Send + Sync + 'static {
    /// Its id: our own, never the transport's.
    fn id(&self) -> ConnectionId;

    /// How it is connected now.
    fn transport(&self) -> Transport;

    /// Where the device is.
    fn address(&self) -> IpAddr;

    /// The device's User-Agent; may be empty.
    fn user_agent(&self) -> &str;

    /// Since when.
    fn connected_at(&self) -> Timestamp;

    /// Whether the device is there for this event. If not, it is neither sent nor counted.
    fn listens_to(&self, _event: &EventName) -> bool {
        true
    }

    /// Whether the device tells, when it comes back, what it has seen: then it is told where each kept message stands.
    fn resumes(&self) -> bool {
        false
    }

    /// Whether the device hears soon what is sent now. One that has not polled for a while does not, and may never poll again.
    fn is_listening(&self) -> bool {
        true
    }

    /// Whether so little waits for the device that it can be given what it has missed.
    fn has_room(&self) -> bool;

    /// Waits until there is room, as `has_room` defines it, or the connection has ended. One task at a time waits; it is woken by the write
    /// queue. Cancel safe.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// The bytes that wait for the device in its write queue.
    fn backlog(&self) -> u64;

    /// Puts a frame into the device's queue.
    ///
    /// An emit that has found the connection live may call this after the hub has closed it, or has been told of its end: the implementor
    /// rejects such a frame with [`QueueError::Ended`], so that no receipt counts it. One that leaves a room while an emit is on its way there
    /// may still get that.
    ///
    /// If the frame was accepted and `frame.unproven` is `Some`, the implementor calls its `sent` before this returns, `proven` once the
    /// device has proven that it received the frame (the pong of a ping that was sent after it, or the next poll), and `lost` if the
    /// connection ends before. None of them is called for a frame that was rejected.
    fn enqueue(&self, frame: &Frame, mode: WriteMode) -> Result<(), QueueError>;

    /// Reads what `enqueue` is about to touch, so that it is in the processor's cache by then. For large rooms.
    fn touch(&self) {}

    /// The same as `enqueue` for a frame that asks the device for an acknowledgement, which goes to `ack`. `frame.unproven` is treated as in
    /// `enqueue`.
    fn enqueue_ack(&self, frame: &Frame, ack: AckSink) -> Result<(), QueueError> {
        self.enqueue(frame, WriteMode::Batched)?;
        ack.unsupported();
        Ok(())
    }

    /// Ends it: tells the device if the queue has room, and cuts the transport soon after.
    fn close(&self, reason: &CloseReason);
}

/// Why a queue did not take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// Too much waits for the device already.
    Full,
    /// The device cannot receive such a frame.
    Unsupported,
    /// The transport has ended.
    Ended,
}

impl From<Rejected> for QueueError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Full => Self::Full,
            Rejected::Ended => Self::Ended,
        }
    }
}
