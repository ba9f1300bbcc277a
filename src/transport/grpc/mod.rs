use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{
    Stream, StreamExt,
    stream::{FuturesUnordered, unfold},
    task::AtomicWaker,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use crate::{
    Accepted, Acceptor, FIRST_BYTE_WITHIN, Place, PlaceHandle,
    accept::report_silent,
    pace::{Pace, Turns},
};

/// What a client that speaks HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The preface, and the head of the SETTINGS frame that has to follow it at once.
const BEGINNING: usize = PREFACE.len() + 9;
/// A connection that speaks HTTP/1 has this long to show a key. Its first request has one.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// A connection of a gRPC listener that has begun to speak HTTP. It holds its place in the listener's share.
///
/// Until [`PlaceHandle::known`] is called, on the first call with a valid key, it may be closed in favour of a new connection, is read
/// in turn with others, and not at all while it does not take what is written.
pub struct GrpcStream {
    stream: TcpStream,
    beginning: Beginning,
    cut: Arc<Cut>,
    place: Place,
    is_known: bool,
    pace: Pace,
    /// The end of a connection that is not known by then.
    known_by: Option<Pin<Box<Sleep>>>,
}

/// The first bytes, which were read before anyone asked for them.
struct Beginning {
    bytes: [u8; BEGINNING],
    /// `bytes[start..end]` remain to be read.
    start: usize,
    end: usize,
}

/// Makes a stream fail from outside, and wakes its task for that.
#[derive(Default)]
struct Cut {
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Acceptor {
    /// Returns the connections that have sent the whole preface of HTTP/2 and begun with its settings, or sent bytes that are not the
    /// preface's beginning, within [`FIRST_BYTE_WITHIN`]; others are closed. Of those that do not speak HTTP/2, those are closed later
    /// that are not known within 10 s. Those that take their time do not hold up others. The stream has no end and no
    /// errors.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<GrpcStream>> {
        let turns = Turns::default();
        // The share bounds how many are starting.
        unfold((self, FuturesUnordered::new(), turns), async |(mut acceptor, mut starting, turns)| {
            loop {
                tokio::select! {
                    accepted = acceptor.accept() => starting.push(start(accepted, turns.clone())),
                    Some(started) = starting.next() => {
                        if let Some(stream) = started {
                            return Some((Ok(stream), (acceptor, starting, turns)));
                        }
                    }
                }
            }
        })
    }
}

/// Waits until the connection has begun. Returns `None` if it does not in time, or ends.
async fn start(accepted: Accepted, turns: Turns) -> Option<GrpcStream> {
    let Accepted { stream, place, .. } = accepted;
    let cut = Arc::new(Cut::default());
    let handle = CutHandle(Arc::clone(&cut));
    place.on_displaced(move || handle.0.cut());
    let beginning = Beginning { bytes: [0; BEGINNING], start: 0, end: 0 };
    let mut stream =
        GrpcStream { stream, beginning, cut, place, is_known: false, pace: Pace::new(turns), known_by: None };
    let begun = tokio::time::timeout(FIRST_BYTE_WITHIN, stream.read_beginning()).await;
    if begun.is_err() {
        report_silent(&stream.place);
    }
    if !matches!(begun, Ok(Ok(true))) {
        return None;
    }
    if !stream.speaks_http2() {
        stream.known_by = Some(Box::pin(sleep(KNOWN_WITHIN)));
    }
    Some(stream)
}

impl GrpcStream {
    /// Returns the TCP stream, for its addresses and options. Reading from it loses bytes.
    pub fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    /// Returns a handle that marks the connection as known.
    pub fn place(&self) -> PlaceHandle {
        self.place.handle()
    }

    /// Whether what was read is the preface of HTTP/2, or its beginning.
    fn speaks_http2(&self) -> bool {
        let read = &self.beginning.bytes[..self.beginning.end];
        read.starts_with(PREFACE) || PREFACE.starts_with(read)
    }

    /// Reads until the beginning is complete or cannot become complete. Returns `false` if the stream ends before.
    async fn read_beginning(&mut self) -> io::Result<bool> {
        while self.beginning.end < BEGINNING {
            let mut bytes = [0; BEGINNING];
            let mut buffer = ReadBuf::new(&mut bytes[self.beginning.end..]);
            // So few bytes need no turn.
            poll_fn(|cx| self.poll_unless_cut(cx, |stream, _, cx| stream.poll_read(cx, &mut buffer))).await?;
            let read = buffer.filled();
            if read.is_empty() {
                return Ok(false);
            }
            let end = self.beginning.end + read.len();
            self.beginning.bytes[self.beginning.end..end].copy_from_slice(read);
            self.beginning.end = end;
            if !self.speaks_http2() {
                break;
            }
        }
        Ok(true)
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_known() {
            return self.poll_unless_cut(cx, |stream, _, cx| stream.poll_read(cx, buffer));
        }
        self.poll_unless_cut(cx, |stream, pace, cx| {
            ready!(stream.poll_read_ready(cx))?;
            let most = ready!(pace.poll(cx)).min(buffer.remaining());
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
            ready!(stream.poll_read(cx, &mut part))?;
            let read = part.filled().len();
            pace.count(read);
            buffer.advance(read);
            Poll::Ready(Ok(()))
        })
    }

    fn is_known(&mut self) -> bool {
        self.is_known = self.is_known || self.place.is_known();
        self.is_known
    }

    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.poll_unless_cut(cx, |stream, pace, cx| {
            let written = write(stream, cx);
            pace.written(written.is_ready());
            written
        })
    }

    /// Polls the TCP stream. It fails as soon as the stream is cut, also one that always has something to read.
    fn poll_unless_cut<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut TcpStream>, &mut Pace, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if !self.cut.is_cut() && !self.is_overdue(cx) {
            if let ready @ Poll::Ready(_) = poll(Pin::new(&mut self.stream), &mut self.pace, cx) {
                return ready;
            }
            self.cut.waker.register(cx.waker());
            // The cut may have come before the waker was there.
            if !self.cut.is_cut() {
                return Poll::Pending;
            }
        }
        // What is in the send buffer is discarded. It fails if the peer has gone, which does not matter.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

impl GrpcStream {
    /// Whether the time is up in which the connection had to become known.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        !self.is_known() && self.known_by.as_mut().is_some_and(|known_by| known_by.as_mut().poll(cx).is_ready())
    }
}

impl AsyncRead for GrpcStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Beginning { bytes, start, end } = &mut self.beginning;
        if start < end {
            let read = buffer.remaining().min(*end - *start);
            buffer.put_slice(&bytes[*start..*start + read]);
            *start += read;
            return Poll::Ready(Ok(()));
        }
        self.poll_stream(cx, buffer)
    }
}

impl AsyncWrite for GrpcStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a share ends a stream with. The share drops it when the stream becomes known, and the stream is woken to read on at once.
struct CutHandle(Arc<Cut>);

impl Drop for CutHandle {
    fn drop(&mut self) {
        self.0.waker.wake();
    }
}

impl Cut {
    fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
