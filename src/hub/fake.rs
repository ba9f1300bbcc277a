//! A connection for tests. What it does with frames is up to the test.

use std::{
    net::{IpAddr, Ipv4Addr},
    task::{Context, Poll},
};

use jiff::Timestamp;

use super::{Connection, Frame, QueueError, WriteMode};
use crate::message::{CloseReason, ConnectionId, EventName, Transport};

/// What a test's connection does. By default it accepts and forgets everything.
pub(crate) trait Behaviour: Send + Sync + 'static {
    fn listens_to(&self, _event: &EventName) -> bool {
        true
    }

    fn resumes(&self) -> bool {
        false
    }

    fn has_room(&self) -> bool {
        true
    }

    fn backlog(&self) -> u64 {
        0
    }

    fn enqueue(&self, _frame: &Frame, _mode: WriteMode) -> Result<(), QueueError> {
        Ok(())
    }

    fn close(&self, _reason: &CloseReason) {}
}

/// A connection that behaves so.
pub(crate) struct FakeConnection<B> {
    id: ConnectionId,
    behaviour: B,
}

impl<B> FakeConnection<B> {
    pub(crate) fn new(behaviour: B) -> Self {
        Self { id: ConnectionId::random(), behaviour }
    }
}

impl<B> std::ops::Deref for FakeConnection<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.behaviour
    }
}

impl<B: Behaviour> Connection for FakeConnection<B> {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn transport(&self) -> Transport {
        Transport::SocketIoWebSocket
    }

    fn address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn user_agent(&self) -> &'static str {
        ""
    }

    fn connected_at(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn listens_to(&self, event: &EventName) -> bool {
        self.behaviour.listens_to(event)
    }

    fn resumes(&self) -> bool {
        self.behaviour.resumes()
    }

    fn has_room(&self) -> bool {
        self.behaviour.has_room()
    }

    /// A test that gives it room gives it at once.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn backlog(&self) -> u64 {
        self.behaviour.backlog()
    }

    fn enqueue(&self, frame: &Frame, mode: WriteMode) -> Result<(), QueueError> {
        self.behaviour.enqueue(frame, mode)
    }

    fn close(&self, reason: &CloseReason) {
        self.behaviour.close(reason);
    }
}
