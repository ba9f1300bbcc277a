use std::{io, net::SocketAddr, time::Duration};

use futures_util::Stream;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

/// After this long without an acknowledgement of what was sent, the peer counts as gone (`TCP_USER_TIMEOUT`). It also
/// ends a peer that keeps its window closed.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts TCP connections, and goes on accepting whatever happens.
pub struct Acceptor {
    listener: TcpListener,
    pause: Duration,
}

impl Acceptor {
    /// Listens at the address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, pause: FIRST_PAUSE })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. When none can be had, for want of file descriptors above all, it waits and tries again.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.pause = FIRST_PAUSE;
                    match set_options(&stream) {
                        Ok(()) => return (stream, peer),
                        Err(error) => tracing::debug!(%error, "a connection ended while it was accepted"),
                    }
                }
                Err(error) if is_peers_doing(&error) => {}
                Err(error) => {
                    let pause_ms = u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(%error, pause_ms, "cannot accept connections: waiting before the next attempt");
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The connections as a stream, without end.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<TcpStream>> {
        futures_util::stream::unfold(self, async |mut acceptor| {
            let (stream, _) = acceptor.accept().await;
            Some((Ok(stream), acceptor))
        })
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn is_peers_doing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
