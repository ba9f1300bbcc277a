//! A device's byte stream. First the HTTP server owns it and writes responses; after an upgrade all that goes out passes its queue of
//! shared frames, which anybody with a [`Handle`] can fill.

mod io;
pub use io::Duplex;

mod queue;
pub use queue::{FRAME_COST, QueuedBytes};

mod flusher;
pub use flusher::{Flushers, Spawn};

mod shared;

use std::{
    any::Any,
    io::{Error, IoSlice, Result},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use self::{
    io::Io,
    shared::{ABORTED, CLOSED, CUT, OPEN, Shared},
};
use crate::{Part, UnderWay, serve::MAX_HEAD};

/// A stream, held by the task that reads it. The socket closes when it is dropped, whatever handles there are.
pub struct Stream {
    io: Io,
    shared: Arc<Shared>,
    /// What ends with the stream.
    held: Option<Box<dyn Any + Send + Sync>>,
    /// Counts what is under way.
    under_way: Option<UnderWay>,
    head: Head,
}

/// What the HTTP server has read since the last request: the head of the next one, and more.
#[derive(Default)]
struct Head {
    requests: u32,
    bytes: usize,
    part: Option<Part>,
}

/// Bytes of a head from which on it counts: the HTTP server has a buffer of this size anyway.
const HEAD_COUNTED_FROM: usize = 8 * 1024;

/// Writes into a [`Stream`], watches it and ends it, from anywhere.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

/// Who writes queued frames into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The sender, at once: for one frame to few devices.
    Inline,
    /// A flusher, together with what else is queued by then.
    Batched,
}

/// Learns what became of an answer of the HTTP server. Exactly one of the two is called, once.
pub trait AnswerFate: Send + Sync {
    /// The kernel has taken the whole answer.
    fn taken(&self);

    /// The connection ended before that.
    fn lost(&self);
}

impl Stream {
    /// Wraps an accepted TCP stream.
    pub fn new(tcp: TcpStream, flushers: &Flushers) -> Self {
        Self::over(Io::Tcp(Arc::new(tcp)), flushers)
    }

    /// Wraps a stream of any other kind.
    pub fn other(stream: impl Duplex + 'static, flushers: &Flushers) -> Self {
        Self::over(Io::Other(Arc::new(Mutex::new(Box::pin(stream)))), flushers)
    }

    fn over(io: Io, flushers: &Flushers) -> Self {
        Self {
            shared: Arc::new(Shared::new(io.clone(), flushers)),
            io,
            held: None,
            under_way: None,
            head: Head::default(),
        }
    }

    /// Keeps something until the stream is dropped.
    #[must_use]
    pub fn holding(mut self, held: impl Send + Sync + 'static) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// Has `under_way` count what has arrived of a message.
    #[must_use]
    pub(crate) fn counted(mut self, under_way: UnderWay) -> Self {
        self.under_way = Some(under_way);
        self
    }

    /// Sets how many bytes there are of a message that has not arrived whole.
    pub(crate) fn hold(&self, part: &mut Option<Part>, bytes: usize) {
        if let Some(under_way) = &self.under_way {
            under_way.hold(part, bytes);
        }
    }

    /// The HTTP server is done with the stream.
    pub(crate) fn upgraded(mut self) -> Self {
        self.head = Head::default();
        self
    }

    /// Counts bytes that the HTTP server has read: as many as it keeps.
    fn count_head(&mut self, bytes: usize) {
        let requests = self.shared.requests.load(Ordering::Relaxed);
        if self.head.requests != requests {
            self.head = Head { requests, ..Head::default() };
        }
        self.head.bytes = self.head.bytes.saturating_add(bytes).min(MAX_HEAD);
        if let Some(under_way) = &self.under_way
            && self.head.bytes > HEAD_COUNTED_FROM
        {
            under_way.hold(&mut self.head.part, self.head.bytes);
        }
    }

    /// The stream's handle.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Writes what the kernel did not take at once, and has the task woken when there is more to do: frames, or an end.
    /// Ready: the stream was cut or aborted, or has failed.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<Error> {
        self.shared.reader.register(cx.waker());
        if let Err(error) = self.shared.check() {
            return Poll::Ready(error);
        }
        let mut queue = self.shared.queue.lock();
        if queue.is_blocked
            && let Err(error) = queue.flush(cx)
        {
            return Poll::Ready(error);
        }
        Poll::Pending
    }

    /// Writes all that is queued, though the stream was cut. Ready when nothing waits any more.
    pub(crate) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.shared.reader.register(cx.waker());
        if self.is_aborted() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        let mut queue = self.shared.queue.lock();
        queue.flush(cx)?;
        if queue.waiting() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads, whether the stream was cut or not.
    pub(crate) fn poll_read_on(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.io.poll_read(cx, buffer)
    }

    /// Whether the stream was aborted.
    pub(crate) fn is_aborted(&self) -> bool {
        self.shared.condition() > CUT
    }

    /// Ends the direction to the peer.
    pub(crate) fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.io.poll_shutdown(cx)
    }

    /// Queues a last frame though the stream was cut.
    pub(crate) fn push_last(&self, frame: Bytes) {
        if self.shared.condition() <= CUT {
            self.shared.queue.lock().push(frame);
        }
    }
}

impl Handle {
    /// Queues frames, in order and with nothing between them. They are whole and go out as they are. False: the stream has ended.
    pub fn enqueue(&self, frames: &[Bytes], mode: WriteMode) -> bool {
        self.0.enqueue(frames, mode)
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

    /// Whether this is a handle of the same stream.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.shared.reader.register(cx.waker());
        self.shared.check()?;
        let before = buffer.filled().len();
        let read = self.io.poll_read(cx, buffer);
        self.get_mut().count_head(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        self.shared.writer.register(cx.waker());
        self.shared.check()?;
        self.io.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The HTTP server flushes when it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        let answers = std::mem::take(&mut *self.shared.answers.lock());
        for answer in answers {
            answer.taken();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.io.poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        if self.shared.close() == ABORTED {
            self.io.discard();
        } else if !queue.is_blocked {
            let _ = queue.try_flush();
        }
        // Handles outlive the stream, and would keep the socket open.
        queue.close();
        drop(queue);
        let answers = std::mem::take(&mut *self.shared.answers.lock());
        for answer in answers {
            answer.lost();
        }
    }
}

#[cfg(test)]
mod tests;
