//! A device's byte stream. First the HTTP server owns it and writes responses; after an upgrade all that goes out passes its queue of
//! shared frames, which anybody with a [`Handle`] can fill.

mod io;
pub use io::Duplex;

mod queue;
pub use queue::{FRAME_COST, QueuedBytes};

mod flusher;
pub use flusher::{Flushers, Spawn, WriteMode};

mod shared;
pub use shared::AnswerFate;

mod handle;
pub use handle::Handle;

use std::{
    any::Any,
    io::{Error, IoSlice, Result},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use self::{
    io::Io,
    shared::{ABORTED, CUT, Shared},
};
use crate::sync::{Mutex, atomic::Ordering};

/// A stream, held by the task that reads it. The socket closes when it is dropped, whatever handles there are.
pub struct Stream {
    io: Io,
    shared: Arc<Shared>,
    /// What ends with the stream.
    held: Option<Box<dyn Any + Send + Sync>>,
    /// Is told how many bytes there are of a message that has not arrived whole.
    on_unfinished: Option<Box<dyn FnMut(usize) + Send + Sync>>,
    head: Head,
}

/// What the HTTP server has read since the last request: the head of the next one, and more.
#[derive(Default)]
struct Head {
    requests: u32,
    bytes: usize,
}

/// A request line and headers beyond this are answered 431. Large enough for a token that is refused for its length, and for the
/// positions of many rooms beside one.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Bytes of a head from which on it counts: the HTTP server has a buffer of this size anyway.
const HEAD_COUNTED_FROM: usize = 8 * 1024;

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
            on_unfinished: None,
            head: Head::default(),
        }
    }

    /// Keeps something until the stream is dropped.
    #[must_use]
    pub fn holding(mut self, held: impl Send + Sync + 'static) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// Has `on_unfinished` told how many bytes there are of a message that has not arrived whole, whenever that changes.
    #[must_use]
    pub(crate) fn counted(mut self, on_unfinished: impl FnMut(usize) + Send + Sync + 'static) -> Self {
        self.on_unfinished = Some(Box::new(on_unfinished));
        self
    }

    /// Tells how many bytes there are of a message that has not arrived whole.
    pub(crate) fn note_unfinished(&mut self, bytes: usize) {
        if let Some(note) = &mut self.on_unfinished {
            note(bytes);
        }
    }

    /// Ends the HTTP server's part: its task has ended, and would stay allocated for as long as a waker points at it.
    pub(crate) fn upgraded(mut self) -> Self {
        self.head = Head::default();
        self.note_unfinished(0);
        drop((self.shared.reader.take(), self.shared.writer.take()));
        self
    }

    /// Counts bytes that the HTTP server has read: as many as it keeps.
    fn count_head(&mut self, bytes: usize) {
        let requests = self.shared.requests.load(Ordering::Relaxed);
        let before = self.head.bytes;
        if self.head.requests != requests {
            self.head = Head { requests, bytes: 0 };
        }
        self.head.bytes = self.head.bytes.saturating_add(bytes).min(MAX_HEAD);
        let counted = if self.head.bytes > HEAD_COUNTED_FROM { self.head.bytes } else { 0 };
        if counted > 0 || before > HEAD_COUNTED_FROM {
            self.note_unfinished(counted);
        }
    }

    /// The stream's handle.
    pub fn handle(&self) -> Handle {
        Handle::new(self.shared.clone())
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
            // Its owner holds the stream, so the queue is open.
            let _ = self.shared.queue.lock().enqueue(&[frame]);
        }
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
#[cfg(feature = "model")]
mod model;

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests;
