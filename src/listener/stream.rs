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
    pub fn send_after(&self, packets: u64, frame: &Bytes) -> Sent {
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
        drop(outbox);
        state.note();
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

    /// Writes as the owner does.
    fn poll_write_owners(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let state = &*self.state;
        state.writer.register(cx.waker());
        state.check()?;
        loop {
            let mut outbox = state.outbox.lock();
            if !state.write_or_hold_up(&mut outbox)? {
                // Woken when that is out.
                return Poll::Pending;
            }
            match outbox.write_owners(slices) {
                Ok(written) => {
                    state.count(written);
                    state.write_or_hold_up(&mut outbox)?;
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            drop(outbox);
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

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.tcp.as_ref()).shutdown(Shutdown::Write))
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        if self.state.condition.swap(CLOSED, Ordering::AcqRel) == ABORTED {
            // The stream closes all the same if this fails, only later.
            let _ = SockRef::from(self.tcp.as_ref()).set_linger(Some(Duration::ZERO));
        }
        // Handles outlive the stream, and would keep it open.
        self.state.outbox.lock().close();
        self.state.has_ended();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::lifecycle::Lifecycle;

    async fn pair() -> (DeviceStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let flushers = Flushers::start(&Lifecycle::new(), &CancellationToken::new());
        (DeviceStream::new(listener.accept().await.unwrap().0, &flushers), peer)
    }

    #[tokio::test]
    async fn a_cut_wakes_a_writer_whose_peer_does_not_read_and_a_reader_whose_peer_is_silent() {
        let (stream, _peer) = pair().await;
        let handle = stream.handle();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let writing = async {
            let block = vec![0; 1 << 20];
            while writer.write_all(&block).await.is_ok() {}
        };
        let reading = async { reader.read_u8().await.unwrap_err() };
        let cutting = async {
            let mut before = 1;
            while handle.written() != before {
                before = handle.written();
                tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.unwrap_err();
            }
            handle.abort();
        };
        let all = async { tokio::join!(writing, reading, cutting) };
        tokio::time::timeout(Duration::from_secs(5), all).await.expect("the cut wakes both");
    }

    #[tokio::test]
    async fn no_more_is_read_than_may_be() {
        let (mut stream, mut peer) = pair().await;
        let handle = stream.handle();
        handle.limit_reading(5);
        peer.write_all(b"hello world").await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert!(handle.is_read_up());
        stream.read_u8().await.unwrap_err();
        handle.limit_reading(u64::MAX);
        assert_eq!(stream.read_u8().await.unwrap(), b' ');
    }

    #[tokio::test]
    async fn written_bytes_are_counted_and_closing_is_seen() {
        let (mut stream, mut peer) = pair().await;
        let handle = stream.handle();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(handle.written(), 5);
        assert!(!handle.is_closed());
        let ended = Arc::new(AtomicU8::new(0));
        let count = || {
            let ended = ended.clone();
            move || _ = ended.fetch_add(1, Ordering::SeqCst)
        };
        handle.at_end(count());
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        drop(stream);
        assert!(handle.is_closed());
        assert_eq!(ended.load(Ordering::SeqCst), 1);
        handle.at_end(count());
        assert_eq!(ended.load(Ordering::SeqCst), 2, "it is too late to wait");
        let mut text = String::new();
        peer.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    const ACCEPTED: &[u8] = b"\x81\x0240";

    /// A stream whose owner has agreed to an upgrade and to a CONNECT.
    async fn upgraded() -> (DeviceStream, TcpStream) {
        let (mut stream, mut peer) = pair().await;
        stream.handle().expect_upgrade();
        stream.write_all(&[RESPONSE, ACCEPTED].concat()).await.unwrap();
        let mut got = vec![0; RESPONSE.len() + ACCEPTED.len()];
        peer.read_exact(&mut got).await.unwrap();
        (stream, peer)
    }

    #[tokio::test]
    async fn a_frame_goes_out_once_the_owner_has_written_what_comes_before_it() {
        let (mut stream, mut peer) = upgraded().await;
        let (handle, frame) = (stream.handle(), Bytes::from_static(b"\x81\x0542[1]"));
        assert_eq!(handle.send_after(2, &frame), Sent::TooEarly);
        stream.write_all(b"\x81\x0543[2]").await.unwrap();
        assert_eq!(handle.send_after(2, &frame), Sent::Yes);
        let mut got = [0; 14];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"\x81\x0543[2]\x81\x0542[1]");
        assert_eq!(handle.written(), (RESPONSE.len() + ACCEPTED.len() + got.len()) as u64);
        drop(stream);
        assert_eq!(handle.send_after(2, &frame), Sent::Ended);
    }

    #[tokio::test]
    async fn a_frame_waits_for_the_end_of_the_one_that_the_owner_is_at() {
        let (mut stream, mut peer) = upgraded().await;
        let handle = stream.handle();
        stream.write_all(b"\x81\x042").await.unwrap();
        assert_eq!(handle.send_after(1, &Bytes::from_static(b"\x81\x0542[1]")), Sent::Yes);
        tokio::task::yield_now().await;
        stream.write_all(b"abc").await.unwrap();
        let (mut reader, _writer) = tokio::io::split(stream);
        let hearing = async {
            let mut got = [0; 13];
            peer.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"\x81\x042abc\x81\x0542[1]");
            drop(peer);
        };
        tokio::join!(hearing, async { reader.read_u8().await.unwrap_err() });
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_waits_and_the_owner_waits_behind_it() {
        let (stream, mut peer) = upgraded().await;
        let handle = stream.handle();
        let frame = |number: u8| [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &vec![number; 1 << 16]].concat();
        for number in 0..200 {
            assert_eq!(handle.send_after(1, &frame(number).into()), Sent::Yes);
        }
        let (mut reader, mut writer) = tokio::io::split(stream);
        let hearing = async {
            let mut got = vec![0; 200 * frame(0).len() + 3];
            peer.read_exact(&mut got).await.unwrap();
            let sent: Vec<_> = (0..200).flat_map(frame).chain([0x81, 1, b'2']).collect();
            assert!(got == sent, "in another order");
            drop(peer);
        };
        let reading = async { reader.read_u8().await.unwrap_err() };
        let writing = async { writer.write_all(&[0x81, 1, b'2']).await.unwrap() };
        let all = async { tokio::join!(hearing, reading, writing) };
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("all comes");
    }
}
