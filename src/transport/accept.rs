use std::{io, net::SocketAddr, time::Duration};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    Place, Proxies, Share,
    address::counted_address,
    place::{Granted, NoPlace},
    throttle::Throttle,
};

/// How long after it was accepted a connection may take to send its first byte; on gRPC listeners, the preface of HTTP/2.
pub const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(5);

/// After this long without an acknowledgement of what was sent, or with a closed receive window, the peer counts as gone
/// (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts a listener's TCP connections within limits. It never stops: what cannot be accepted is closed, counted in
/// `transport_connections_refused_total` and logged.
pub struct Acceptor {
    listener: TcpListener,
    config: AcceptorConfig,
    pause: Duration,
    /// A throttle for each [`Reason`].
    warnings: [Throttle; 3],
    system_warning: Throttle,
}

/// The limits of an [`Acceptor`].
pub struct AcceptorConfig {
    /// The listener's name in metrics and logs.
    pub listener: &'static str,
    /// How many connections there may be.
    pub share: Share,
    /// How many connections one peer's address may have. An IPv6 network of 64 bits counts as one address. The addresses of
    /// trusted proxies have no such limit.
    pub per_address: Option<usize>,
    /// The trusted proxies.
    pub proxies: Proxies,
}

/// A connection that was accepted.
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Its place in the listener's share, to be held until the connection has ended. See [`Place::on_displaced`].
    pub place: Place,
}

/// Why a connection was closed.
#[derive(Clone, Copy)]
enum Reason {
    Full,
    Displaced,
    Address,
}

impl Acceptor {
    /// Listens at the address. Port 0 chooses a free one.
    pub async fn bind(address: SocketAddr, config: AcceptorConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            listener,
            config,
            pause: FIRST_PAUSE,
            warnings: Default::default(),
            system_warning: Throttle::default(),
        })
    }

    /// Returns the address that it listens at.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the next connection that has a place. If the system refuses to accept, for want of file descriptors above all, it
    /// waits for up to 1 s and tries again. Cancel safe.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.pause = FIRST_PAUSE;
                    if let Some(accepted) = self.admit(stream, peer) {
                        return accepted;
                    }
                }
                Err(error) if is_peers_doing(&error) => {}
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    /// Gives the connection a place, or closes it.
    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
        let AcceptorConfig { listener, share, per_address, proxies } = &self.config;
        let limited = per_address.filter(|_| !proxies.trusts(peer.ip()));
        match share.take(listener, limited.map(|max| (counted_address(peer.ip()), max))) {
            Ok(Granted { place, displaced }) => {
                if let Some(abort) = displaced {
                    abort();
                    self.report(Reason::Displaced, peer);
                }
                if let Err(error) = set_options(&stream) {
                    tracing::debug!(%error, listener, "a connection ended while it was accepted");
                    return None;
                }
                Some(Accepted { stream, peer, place })
            }
            Err(refused) => {
                self.report(if refused == NoPlace::Full { Reason::Full } else { Reason::Address }, peer);
                // The reset frees the descriptor at once, without TIME_WAIT. It fails if the peer has gone, which is as good.
                let _ = stream.set_zero_linger();
                None
            }
        }
    }

    /// Makes room by closing the oldest connection that is not known, and waits.
    async fn wait_after(&mut self, error: &io::Error) {
        let listener = self.config.listener;
        if let Some(suppressed) = self.system_warning.permit() {
            let pause_ms = u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, listener, pause_ms, suppressed, "cannot accept connections: waiting before the next attempt");
        }
        if let Some(abort) = self.config.share.displace() {
            abort();
            count(listener, "displaced");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Counts a connection that was closed, and logs a warning at most once per 10 s and reason.
    fn report(&self, reason: Reason, peer: SocketAddr) {
        let (name, message) = match reason {
            Reason::Full => (
                "full",
                "closed a new connection: the listener has as many as its share of the file descriptors allows; \
                 raise the limit of open files",
            ),
            Reason::Displaced => (
                "displaced",
                "closed the oldest unauthenticated connection for a new one: the listener has as many as its share of the file \
                 descriptors allows; raise the limit of open files",
            ),
            Reason::Address => ("address", "closed a new connection: its address has as many as it may have"),
        };
        let listener = self.config.listener;
        count(listener, name);
        if let Some(suppressed) = self.warnings[reason as usize].permit() {
            let connections = self.config.share.taken();
            tracing::warn!(listener, reason = name, peer.address = %peer, connections, suppressed, "{message}");
        }
    }
}

impl Accepted {
    /// Waits for the connection's first byte: see [`has_begun`].
    pub async fn has_begun(&self) -> bool {
        has_begun(&self.stream, &self.place).await
    }
}

/// Waits for the first byte of a connection, which stays to be read. Returns `false` if none arrives within
/// [`FIRST_BYTE_WITHIN`], or if the connection ends before: the caller has to close it. Cancel safe.
pub async fn has_begun(stream: &TcpStream, place: &Place) -> bool {
    let peeked = tokio::time::timeout(FIRST_BYTE_WITHIN, stream.peek(&mut [0])).await;
    if peeked.is_err() {
        report_silent(place);
    }
    matches!(peeked, Ok(Ok(1..)))
}

/// Counts a connection that is closed because it did not begin in time.
pub(crate) fn report_silent(place: &Place) {
    let listener = place.listener();
    count(listener, "silent");
    tracing::debug!(listener, "closed a connection that sent nothing in time");
}

fn count(listener: &'static str, reason: &'static str) {
    metrics::counter!("transport_connections_refused_total", "listener" => listener, "reason" => reason).increment(1);
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

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{Arc, Mutex},
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;

    async fn acceptor(max: usize, per_address: Option<usize>, trusted: &[&str]) -> Acceptor {
        let proxies = Proxies::new(trusted.iter().map(|network| network.parse().unwrap()).collect());
        let config = AcceptorConfig { listener: "test", share: Share::new(max), per_address, proxies };
        Acceptor::bind((Ipv4Addr::LOCALHOST, 0).into(), config).await.unwrap()
    }

    async fn connect(acceptor: &Acceptor) -> TcpStream {
        TcpStream::connect(acceptor.local_addr().unwrap()).await.unwrap()
    }

    /// Accepts while the future runs, and returns what the future returns.
    async fn while_accepting<T>(acceptor: &mut Acceptor, future: impl Future<Output = T>) -> T {
        tokio::select! {
            _ = acceptor.accept() => panic!("a connection was accepted"),
            result = future => result,
        }
    }

    async fn is_reset(client: &mut TcpStream) -> bool {
        client.read(&mut [0]).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    #[tokio::test]
    async fn an_accepted_connection_holds_a_place_until_it_is_dropped() {
        let mut acceptor = acceptor(1, None, &[]).await;
        let client = connect(&acceptor).await;
        let accepted = acceptor.accept().await;
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        assert_eq!(acceptor.config.share.taken(), 1);
        drop(accepted);
        assert_eq!(acceptor.config.share.taken(), 0);
    }

    #[tokio::test]
    async fn a_connection_beyond_the_share_is_reset() {
        let mut acceptor = acceptor(1, None, &[]).await;
        let _first = connect(&acceptor).await;
        let _accepted = acceptor.accept().await;
        let mut second = connect(&acceptor).await;
        assert!(while_accepting(&mut acceptor, is_reset(&mut second)).await);
    }

    #[tokio::test]
    async fn an_older_connection_that_is_not_known_makes_room() {
        let mut acceptor = acceptor(1, None, &[]).await;
        let mut first = connect(&acceptor).await;
        let Accepted { stream, place, .. } = acceptor.accept().await;
        let held = Arc::new(Mutex::new(Some(stream)));
        let stream = Arc::clone(&held);
        place.on_displaced(move || drop(stream.lock().unwrap().take()));
        let _second = connect(&acceptor).await;
        let accepted = acceptor.accept().await;
        assert!(held.lock().unwrap().is_none());
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        drop((place, accepted));
        assert_eq!(acceptor.config.share.taken(), 0);
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_of_its_address_is_reset() {
        let mut acceptor = acceptor(10, Some(1), &[]).await;
        let _first = connect(&acceptor).await;
        let accepted = acceptor.accept().await;
        let mut second = connect(&acceptor).await;
        assert!(while_accepting(&mut acceptor, is_reset(&mut second)).await);
        drop(accepted);
        let _third = connect(&acceptor).await;
        acceptor.accept().await;
    }

    #[tokio::test]
    async fn a_trusted_proxy_has_no_limit_per_address() {
        let mut acceptor = acceptor(10, Some(1), &["127.0.0.0/8"]).await;
        let _clients = (connect(&acceptor).await, connect(&acceptor).await);
        let _accepted = (acceptor.accept().await, acceptor.accept().await);
        assert_eq!(acceptor.config.share.taken(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_has_5_s_to_begin() {
        let mut acceptor = acceptor(10, None, &[]).await;
        let _client = connect(&acceptor).await;
        let accepted = acceptor.accept().await;
        let start = Instant::now();
        assert!(!accepted.has_begun().await);
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn the_first_byte_stays_to_be_read() {
        let mut acceptor = acceptor(10, None, &[]).await;
        let mut client = connect(&acceptor).await;
        let mut accepted = acceptor.accept().await;
        client.write_all(b"GET").await.unwrap();
        assert!(accepted.has_begun().await);
        let mut begin = [0; 3];
        accepted.stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"GET");
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_its_first_byte_has_not_begun() {
        let mut acceptor = acceptor(10, None, &[]).await;
        drop(connect(&acceptor).await);
        assert!(!acceptor.accept().await.has_begun().await);
    }
}
