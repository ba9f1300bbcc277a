use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

use super::io::Io;
use crate::ledger::{Bounds, Ledger, Outgoing, Rejected, Unproven};

/// Frames that go into the kernel with one call.
const MAX_SLICES: usize = 64;

/// What a frame costs in a queue besides its bytes, in bytes: counted in the total, so that many small ones are no way around its bound.
pub const FRAME_COST: usize = 64;

/// The bytes in all queues of a process, what their frames cost among them, and the bound at which its owner has to make room.
pub struct QueuedBytes {
    total: AtomicU64,
    bound: u64,
    exceeded: Notify,
}

impl QueuedBytes {
    /// Counts nothing yet. `bound` is in bytes.
    pub fn new(bound: u64) -> Arc<Self> {
        Arc::new(Self { total: AtomicU64::new(0), bound, exceeded: Notify::new() })
    }

    /// Bytes that are queued now.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// The bound, in bytes.
    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// Waits until more is queued than the bound allows. For one caller. Cancel safe.
    pub async fn exceeded(&self) {
        while self.total() <= self.bound {
            self.exceeded.notified().await;
        }
    }

    /// Counts bytes that were queued.
    pub fn add(&self, bytes: usize) {
        let before = self.total.fetch_add(bytes as u64, Ordering::Relaxed);
        if before <= self.bound && before.saturating_add(bytes as u64) > self.bound {
            self.exceeded.notify_one();
        }
    }

    /// Counts bytes that are queued no more.
    pub fn remove(&self, bytes: usize) {
        self.total.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

/// What waits to be written to one stream: shared frames, in order.
pub(super) struct Queue {
    /// None: the stream is closed.
    io: Option<Io>,
    /// The frame that goes out next; the kernel may have a part of it. Usually there is one at most, for which a queue would have
    /// to be allocated.
    first: Option<Bytes>,
    /// Those behind it; empty if there is no first.
    others: VecDeque<Bytes>,
    /// Bytes that wait.
    waiting: usize,
    /// Bytes that were ever queued.
    queued: u64,
    /// The kernel has a part of the first frame.
    is_partial: bool,
    /// The kernel had no room at the last attempt. Only the owner of the stream tries again.
    pub(super) is_blocked: bool,
    pub(super) ledger: Ledger,
    total: Arc<QueuedBytes>,
}

impl Queue {
    pub(super) fn new(io: Io, total: Arc<QueuedBytes>) -> Self {
        Self {
            io: Some(io),
            first: None,
            others: VecDeque::new(),
            waiting: 0,
            queued: 0,
            is_partial: false,
            is_blocked: false,
            ledger: Ledger::default(),
            total,
        }
    }

    /// Puts frames behind all that wait.
    pub(super) fn enqueue(&mut self, frames: &[Bytes]) -> Result<(), Rejected> {
        if self.io.is_none() {
            return Err(Rejected::Ended);
        }
        for frame in frames {
            self.push(frame.clone());
        }
        Ok(())
    }

    /// The same for a packet, if the ledger accepts it.
    pub(super) fn deliver(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Rejected> {
        if self.io.is_none() {
            return Err(Rejected::Ended);
        }
        self.ledger.enter(outgoing, self.waiting)?;
        self.enqueue(outgoing.frames)
    }

    /// Requests proof of what a user of this generation has queued until now.
    pub(super) fn want_proof(&mut self, generation: u32, unproven: &Arc<dyn Unproven>) -> Result<(), Rejected> {
        if self.io.is_none() {
            return Err(Rejected::Ended);
        }
        self.ledger.want_proof(generation, unproven)
    }

    /// Puts a ping behind all that wait, unless one waits for its pong already.
    pub(super) fn ping(&mut self, frame: impl FnOnce(u64) -> Bytes) -> Result<(), Rejected> {
        if self.ledger.has_ping() {
            return Ok(());
        }
        let ping = frame(self.ledger.ping());
        self.enqueue(&[ping])?;
        self.ledger.count(1);
        self.ledger.ping_queued(self.queued);
        Ok(())
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// See [`Handle::poll_room`](super::Handle::poll_room).
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, bounds: Bounds) -> Poll<()> {
        if self.io.is_none() || self.ledger.is_sealed() || self.ledger.has_room(self.waiting, bounds) {
            return Poll::Ready(());
        }
        self.ledger.await_room(cx.waker(), bounds);
        Poll::Pending
    }

    /// See [`Handle::note_progress`](super::Handle::note_progress).
    pub(super) fn note_progress(&mut self, was_unread: bool) -> bool {
        let (_, taken) = self.offsets();
        self.ledger.note_progress(taken, was_unread)
    }

    /// Bytes that were ever queued, and how many of them the kernel has taken.
    pub(super) fn offsets(&self) -> (u64, u64) {
        (self.queued, self.queued - self.waiting as u64)
    }

    fn push(&mut self, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        self.waiting += frame.len();
        self.queued += frame.len() as u64;
        self.total.add(frame.len() + FRAME_COST);
        if self.first.is_none() {
            self.first = Some(frame);
        } else {
            self.others.push_back(frame);
        }
    }

    /// Writes what the kernel takes now.
    pub(super) fn try_flush(&mut self) -> io::Result<usize> {
        self.write_all(|io, slices| match io.try_write(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            written => Poll::Ready(written),
        })
    }

    /// Writes what the kernel takes, and has the task woken when it takes more.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        self.write_all(|io, slices| io.poll_write(cx, slices))
    }

    fn write_all(
        &mut self,
        mut write: impl FnMut(&Io, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> io::Result<usize> {
        let mut written = 0;
        while let Some(first) = &self.first {
            let io = self.io.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let count = if self.others.is_empty() {
                write(io, &[IoSlice::new(first)])
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let frames = std::iter::once(first).chain(&self.others);
                slices.iter_mut().zip(frames).for_each(|(slice, frame)| *slice = IoSlice::new(frame));
                write(io, &slices[..(1 + self.others.len()).min(MAX_SLICES)])
            };
            match count {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    let count = count?;
                    written += count;
                    self.advance(count);
                }
                Poll::Pending => {
                    self.is_blocked = true;
                    return Ok(written);
                }
            }
        }
        self.is_blocked = false;
        Ok(written)
    }

    /// Forgets bytes that the kernel has taken.
    fn advance(&mut self, count: usize) {
        self.waiting -= count;
        let (mut left, mut frames) = (count, 0);
        while let Some(first) = &mut self.first {
            if left < first.len() {
                first.advance(left);
                self.is_partial |= left > 0;
                break;
            }
            left -= first.len();
            frames += 1;
            self.is_partial = false;
            self.first = self.others.pop_front();
        }
        if self.first.is_none() {
            self.others = VecDeque::new();
        }
        self.total.remove(count + frames * FRAME_COST);
        self.ledger.drained(self.waiting);
    }

    /// Drops the frames of which the kernel has nothing.
    pub(super) fn drop_unwritten(&mut self) {
        let others = std::mem::take(&mut self.others);
        let first = if self.is_partial { None } else { self.first.take() };
        let (mut frames, mut bytes) = (0, 0);
        for frame in first.iter().chain(&others) {
            frames += 1;
            bytes += frame.len();
        }
        self.waiting -= bytes;
        self.queued -= bytes as u64;
        self.total.remove(bytes + frames * FRAME_COST);
        self.ledger.drained(self.waiting);
    }

    /// Drops what waits and lets go of the stream.
    pub(super) fn close(&mut self) {
        self.io = None;
        let frames = usize::from(self.first.take().is_some()) + self.others.len();
        self.others = VecDeque::new();
        self.total.remove(self.waiting + frames * FRAME_COST);
        self.waiting = 0;
        self.ledger.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bound_is_exceeded_by_the_byte_past_it_and_not_by_the_last_one_within() {
        let queued = QueuedBytes::new(100);
        queued.add(100);
        let mut exceeded = Box::pin(queued.exceeded());
        assert!(futures_util::poll!(&mut exceeded).is_pending());
        queued.add(1);
        assert!(futures_util::poll!(&mut exceeded).is_ready());
        queued.remove(1);
        assert!(futures_util::poll!(Box::pin(queued.exceeded())).is_pending(), "the total is within the bound again");
        assert_eq!(queued.total(), 100);
    }
}
