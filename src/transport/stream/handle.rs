use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    AnswerFate, WriteMode,
    shared::{ABORTED, CLOSED, CUT, OPEN, Shared},
};
use crate::{
    ledger::{Bounds, Ledger, Outgoing, Rejected, Unproven},
    sync::atomic::Ordering,
};

/// Writes into a [`Stream`](super::Stream), watches it and ends it, from anywhere.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Queues frames, in order and with nothing between them. They are whole and go out as they are, and are not counted in the
    /// ledger. False: the stream has ended.
    pub fn enqueue(&self, frames: &[Bytes], mode: WriteMode) -> bool {
        self.0.enqueue(mode, |queue| queue.enqueue(frames)).is_ok()
    }

    /// The same, and counts them. Returns the number of the last one.
    pub fn send(&self, frames: &[Bytes], mode: WriteMode) -> Result<u64, Rejected> {
        let mut number = 0;
        self.0.enqueue(mode, |queue| {
            queue.enqueue(frames)?;
            number = queue.ledger.count(frames.len());
            Ok(())
        })?;
        Ok(number)
    }

    /// Queues a packet, if the ledger accepts it.
    pub fn deliver(&self, outgoing: &Outgoing<'_>, mode: WriteMode) -> Result<(), Rejected> {
        self.0.enqueue(mode, |queue| queue.deliver(outgoing))
    }

    /// Queues a ping, unless one waits for its pong. `frame` makes it of the ping's id.
    pub fn ping(&self, frame: impl FnOnce(u64) -> Bytes) -> Result<(), Rejected> {
        self.0.enqueue(WriteMode::Inline, |queue| queue.ping(frame))
    }

    /// Continues the ledger of a queue whose frames these are: they come before all others. For a stream that has sent nothing.
    pub fn adopt(&self, ledger: Ledger, frames: &[Bytes]) {
        // A stream that has ended loses the frames, and its session with it.
        let _ = self.0.enqueue(WriteMode::Inline, |queue| {
            queue.ledger = ledger;
            queue.enqueue(frames)?;
            let (end, _) = queue.offsets();
            queue.ledger.ping_queued(end);
            Ok(())
        });
    }

    /// Requests proof of what a user of this generation has queued until now.
    pub fn want_proof(&self, generation: u32, unproven: &Arc<dyn Unproven>) -> Result<(), Rejected> {
        self.0.queue.lock().want_proof(generation, unproven)
    }

    /// Looks at the ledger.
    pub fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.0.queue.lock().ledger)
    }

    /// Whether so little waits that the device can be given what it has missed.
    pub fn has_room(&self, bounds: Bounds) -> bool {
        let queue = self.0.queue.lock();
        queue.ledger.has_room(queue.waiting(), bounds)
    }

    /// Waits until there is room, as [`Handle::has_room`] defines it, or the queue has ended: it looks and registers under the queue's lock, so
    /// that no wakeup is lost. For one task at a time: if another polls, the earlier one is woken. Cancel safe.
    pub fn poll_room(&self, cx: &mut Context<'_>, bounds: Bounds) -> Poll<()> {
        self.0.queue.lock().poll_room(cx, bounds)
    }

    /// Notes how much has left for the peer, for a deadline that begins now. Returns whether a peer that has said nothing since this was
    /// called last may be slow and is not gone: bytes have left for it, and its ping had not left by then, or what it sends was not read.
    pub fn note_progress(&self) -> bool {
        let is_unread = self.0.is_unread.load(Ordering::Relaxed);
        let was_unread = self.0.was_unread.swap(is_unread, Ordering::Relaxed);
        self.0.queue.lock().note_progress(was_unread)
    }

    /// Notes whether the owner does not read what the peer sends until that takes more.
    pub(crate) fn set_unread(&self, is_unread: bool) {
        self.0.is_unread.store(is_unread, Ordering::Relaxed);
        if is_unread {
            self.0.was_unread.store(true, Ordering::Relaxed);
        }
    }

    /// Reads what a delivery is about to touch: see [`Handle::deliver`].
    pub fn touch(&self) {
        self.0.touch();
    }

    /// Bytes that were queued and that the kernel has not taken.
    pub fn backlog(&self) -> usize {
        self.0.queue.lock().waiting()
    }

    /// Bytes that were ever queued, and how many of them the kernel has taken.
    pub fn offsets(&self) -> (u64, u64) {
        self.0.queue.lock().offsets()
    }

    /// Whether the kernel had no room at the last attempt.
    pub fn is_blocked(&self) -> bool {
        self.0.queue.lock().is_blocked
    }

    /// Whether the kernel had no room at the last attempt, and more than this many bytes wait. While nobody has tried to write them, bytes
    /// that wait say nothing about the peer, and no wakeup follows when a flusher has written them.
    pub(crate) fn is_blocked_beyond(&self, bytes: usize) -> bool {
        let queue = self.0.queue.lock();
        queue.is_blocked && queue.waiting() > bytes
    }

    /// Drops the frames of which the kernel has nothing yet.
    pub fn drop_unwritten(&self) {
        self.0.queue.lock().drop_unwritten();
    }

    /// Ends the stream. Its owner writes what is queued as far as the peer takes it in a moment.
    pub fn cut(&self) {
        self.0.end(CUT);
    }

    /// Ends the stream and throws away what was not sent (RST).
    pub fn abort(&self) {
        self.0.end(ABORTED);
    }

    /// Whether the stream was not cut, aborted or closed.
    pub fn is_open(&self) -> bool {
        self.0.condition() == OPEN
    }

    /// The HTTP server has read the head of a request.
    pub(crate) fn head_has_arrived(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports to `fate` when the kernel has all that was handed to the HTTP server so far.
    pub(crate) fn await_flush(&self, fate: Arc<dyn AnswerFate>) {
        if self.0.condition() == CLOSED {
            fate.lost();
            return;
        }
        self.0.answers.lock().push(fate);
    }
}
