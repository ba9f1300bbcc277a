use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, tcp::OwnedReadHalf},
};

use super::{
    flusher::Flushers,
    shared::{ABORTED, CLOSED, CUT, State},
};

/// A device's TCP stream, whose [`StreamHandle`] counts what was written, writes frames of its own, and can cut it from anywhere.
pub struct DeviceStream {
    tcp: OwnedReadHalf,
    state: Arc<State>,
}

/// Watches, writes into and cuts a [`DeviceStream`].
#[derive(Clone)]
pub struct StreamHandle(Arc<State>);

/// Who writes a frame into a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Whoever sends it, at once.
    Sender,
    /// A task that writes for many, together with what else was sent.
    Flusher,
}

/// What became of a frame that was to go into a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It goes out: before all that the stream's owner writes from now on.
    Yes,
    /// The owner has not written all yet that is to come before it.
    TooEarly,
    /// The stream is no more.
    Ended,
}

impl DeviceStream {
    /// Wraps an accepted stream. What others send into it is written by one of these.
    pub fn new(tcp: TcpStream, flushers: &Flushers) -> Self {
        let (tcp, outbox) = tcp.into_split();
        Self { tcp, state: Arc::new(State::new(outbox, flushers)) }
    }

    /// The stream's handle.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle(self.state.clone())
    }
}

impl StreamHandle {
    /// Bytes that the kernel has taken so far.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Acquire)
    }

    /// The owner's next response agrees to an upgrade: what follows are frames, whose packets are counted.
    pub fn expect_upgrade(&self) {
        self.0.outbox.lock().owners.expect_upgrade();
    }

    /// Sends a whole frame, once the owner has written so many packets since the upgrade.
    pub fn send_after(&self, packets: u64, frame: &Bytes, by: By) -> Sent {
        let state = &self.0;
        if state.check().is_err() {
            return Sent::Ended;
        }
        let mut outbox = state.outbox.lock();
        if outbox.owners.count() != packets {
            return Sent::TooEarly;
        }
        if !outbox.put(frame.clone()) {
            return Sent::Ended;
        }
        match by {
            By::Sender => state.flush(&mut outbox),
            By::Flusher => {
                drop(outbox);
                state.note();
            }
        }
        Sent::Yes
    }

    /// Ends the stream; what the kernel has taken is still sent.
    pub fn cut(&self) {
        self.0.end(CUT);
    }

    /// Ends the stream and throws away what was not sent.
    pub fn abort(&self) {
        self.0.end(ABORTED);
    }

    /// Lets so many bytes be read from now on; then reading fails.
    pub fn limit_reading(&self, bytes: u64) {
        self.0.readable.store(bytes, Ordering::Release);
    }

    /// Whether all that may be read was.
    pub fn is_read_up(&self) -> bool {
        self.0.readable.load(Ordering::Acquire) == 0
    }

    /// Whether this is the same stream's.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the stream is no more.
    pub fn is_closed(&self) -> bool {
        self.0.condition.load(Ordering::Acquire) == CLOSED
    }

    /// Does this when the stream is no more, or now if that is so already. A stream has one thing to do at its end.
    pub fn at_end(&self, act: impl FnOnce() + Send + 'static) {
        *self.0.at_end.lock() = Some(Box::new(act));
        if self.is_closed() {
            self.0.has_ended();
        }
    }
}

impl DeviceStream {
    /// Writes what the kernel would not take from the outbox, as soon as it does.
    fn poll_outbox(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &*self.state;
        while state.is_held_up.load(Ordering::Acquire) {
            let mut outbox = state.outbox.lock();
            if !outbox.may_go_out() || state.write_out(&mut outbox)? {
                break;
            }
            drop(outbox);
            ready!(self.tcp.as_ref().poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all that others have sent, as the owner who takes leave of the stream does.
    fn poll_emptied(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &*self.state;
        state.writer.register(cx.waker());
        state.check()?;
        while !state.write_or_hold_up(&mut state.outbox.lock())? {
            ready!(self.tcp.as_ref().poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes as the owner does.
    fn poll_write_owners(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let state = &*self.state;
        state.writer.register(cx.waker());
        state.check()?;
        loop {
            let mut outbox = state.outbox.lock();
            if state.write_or_hold_up(&mut outbox)? {
                match outbox.write_owners(slices) {
                    Ok(written) => {
                        state.count(written);
                        state.write_or_hold_up(&mut outbox)?;
                        return Poll::Ready(Ok(written));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            drop(outbox);
            // Whoever reads may have left: then this task writes what others have sent, too.
            ready!(self.tcp.as_ref().poll_write_ready(cx))?;
        }
    }
}

impl AsyncRead for DeviceStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.reader.register(cx.waker());
        self.state.check()?;
        // Whoever owns a stream reads from it all the time, so this is where what waits has its turn.
        let _ = self.poll_outbox(cx)?;
        let readable = self.state.readable.load(Ordering::Acquire);
        if readable == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "more came than may be read")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer))?;
        // Set meanwhile, it counts from the next read on.
        let left = readable.saturating_sub((buffer.filled().len() - before) as u64);
        if readable != u64::MAX {
            let _ = self.state.readable.compare_exchange(readable, left, Ordering::AcqRel, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DeviceStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_owners(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_owners(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_emptied(cx))?;
        Poll::Ready(SockRef::from(self.tcp.as_ref()).shutdown(Shutdown::Write))
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        let mut outbox = self.state.outbox.lock();
        if self.state.condition.swap(CLOSED, Ordering::AcqRel) == ABORTED {
            // The stream closes all the same if this fails, only later.
            let _ = SockRef::from(self.tcp.as_ref()).set_linger(Some(Duration::ZERO));
        } else {
            // What was sent goes out, as far as the kernel has room.
            let _ = self.state.write_or_hold_up(&mut outbox);
        }
        // Handles outlive the stream, and would keep it open.
        outbox.close();
        drop(outbox);
        self.state.has_ended();
    }
}

#[cfg(test)]
mod tests;
