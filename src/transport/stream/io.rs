use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::sync::Mutex;

/// Both directions of a byte stream that is not a TCP socket.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// The bytes below a stream, as plain text. TLS is a further variant: offsets are always those of the plain text.
#[derive(Clone)]
pub(super) enum Io {
    Tcp(Arc<TcpStream>),
    /// A stream of any other kind, such as a pipe in memory.
    Other(Arc<Mutex<Pin<Box<dyn Duplex>>>>),
}

impl Io {
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_read(buffer.initialize_unfilled()) {
                    Ok(length) => {
                        buffer.advance(length);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
            Self::Other(other) => other.lock().as_mut().poll_read(cx, buffer),
        }
    }

    /// Writes what fits now. `WouldBlock`: nothing does; then call [`Io::poll_write`] from the task that owns the stream.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => match slices {
                [slice] => tcp.try_write(slice),
                slices => tcp.try_write_vectored(slices),
            },
            Self::Other(_) => match self.poll_write(&mut Context::from_waker(Waker::noop()), slices) {
                Poll::Ready(written) => written,
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            },
        }
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => loop {
                match self.try_write(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_write_ready(cx))?,
                    written => return Poll::Ready(written),
                }
            },
            Self::Other(other) => {
                let mut other = other.lock();
                let written = ready!(other.as_mut().poll_write_vectored(cx, slices))?;
                // Nothing above waits for a flush: it is asked for along with each write.
                let _ = other.as_mut().poll_flush(cx);
                Poll::Ready(Ok(written))
            }
        }
    }

    /// Ends the direction to the peer.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Poll::Ready(SockRef::from(&**tcp).shutdown(Shutdown::Write)),
            Self::Other(other) => other.lock().as_mut().poll_shutdown(cx),
        }
    }

    /// Makes the close that follows throw away what the kernel holds (RST).
    pub(super) fn discard(&self) {
        if let Self::Tcp(tcp) = self {
            // If this fails the stream closes all the same, only later.
            let _ = SockRef::from(&**tcp).set_linger(Some(Duration::ZERO));
        }
    }
}
