use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A device's TCP stream, whose [`StreamHandle`] counts what was written and can cut it from anywhere.
pub struct DeviceStream {
    inner: TcpStream,
    state: Arc<State>,
}

/// Watches and cuts a [`DeviceStream`].
#[derive(Clone)]
pub struct StreamHandle(Arc<State>);

struct State {
    written: AtomicU64,
    /// How much may still be read.
    readable: AtomicU64,
    condition: AtomicU8,
    // Reader and writer are different tasks: a cut has to wake both, above all a writer that waits for a device that
    // has stopped reading.
    reader: AtomicWaker,
    writer: AtomicWaker,
    at_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

const OPEN: u8 = 0;
/// What the kernel holds is still sent.
const CUT: u8 = 1;
/// What the kernel holds is thrown away (RST), so that a stalled device costs nothing more.
const ABORTED: u8 = 2;
const CLOSED: u8 = 3;

impl DeviceStream {
    /// Wraps an accepted stream.
    pub fn new(inner: TcpStream) -> Self {
        let state = State {
            written: AtomicU64::new(0),
            readable: AtomicU64::new(u64::MAX),
            condition: AtomicU8::new(OPEN),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            at_end: Mutex::default(),
        };
        Self { inner, state: Arc::new(state) }
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

impl State {
    fn end(&self, how: u8) {
        self.condition.fetch_max(how, Ordering::AcqRel);
        self.reader.wake();
        self.writer.wake();
    }

    fn check(&self) -> io::Result<()> {
        match self.condition.load(Ordering::Acquire) {
            OPEN => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the server")),
        }
    }

    fn has_ended(&self) {
        let act = self.at_end.lock().take();
        if let Some(act) = act {
            act();
        }
    }

    fn count(&self, written: usize) {
        self.written.fetch_add(written as u64, Ordering::AcqRel);
    }
}

impl AsyncRead for DeviceStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.reader.register(cx.waker());
        self.state.check()?;
        let readable = self.state.readable.load(Ordering::Acquire);
        if readable == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "more came than may be read")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        // Set meanwhile, it counts from the next read on.
        let left = readable.saturating_sub((buffer.filled().len() - before) as u64);
        if readable != u64::MAX {
            let _ = self.state.readable.compare_exchange(readable, left, Ordering::AcqRel, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DeviceStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.state.writer.register(cx.waker());
        self.state.check()?;
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.state.count(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.state.writer.register(cx.waker());
        self.state.check()?;
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
        self.state.count(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        if self.state.condition.swap(CLOSED, Ordering::AcqRel) == ABORTED {
            // The stream closes all the same if this fails, only later.
            let _ = SockRef::from(&self.inner).set_linger(Some(Duration::ZERO));
        }
        self.state.has_ended();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (DeviceStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (DeviceStream::new(listener.accept().await.unwrap().0), peer)
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
}
