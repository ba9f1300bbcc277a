//! A TCP proxy in front of a PostgreSQL, a Redis or a node, which adds latency or lets it hang.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A proxy for one database. Its connections end with its value.
pub struct SlowProxy {
    own: SocketAddr,
    url: String,
    link: Arc<Link>,
    _accepting: JoinSet<()>,
}

/// The state that all connections of a proxy share.
struct Link {
    /// Where new connections lead.
    server: Mutex<SocketAddr>,
    /// The delay of each direction.
    delay: Mutex<Duration>,
    /// Up to so much more, by chance.
    jitter: Mutex<Duration>,
    hanging: watch::Sender<Hanging>,
    /// How often something was held back.
    held: watch::Sender<usize>,
    traps: Mutex<Vec<Trap>>,
    transactions: Mutex<Transactions>,
}

/// A transaction that a client of a PostgreSQL has ended.
pub struct Transaction {
    /// How often the client waited for an answer.
    pub round_trips: usize,
    sent: Vec<u8>,
    is_answered: bool,
}

/// The transactions of all connections.
#[derive(Default)]
struct Transactions {
    begun: HashMap<usize, Transaction>,
    ended: Vec<Transaction>,
    /// How often a client waited for an answer, in a transaction or not.
    round_trips: usize,
    /// The connections whose clients wait for one.
    waiting: HashSet<usize>,
}

/// The connections of which nothing is forwarded.
#[derive(Clone, Copy)]
enum Hanging {
    None,
    One(usize),
    All,
    /// Both directions of this one end.
    Cut(usize),
}

/// What follows when the texts of a trap were sent.
enum Then {
    GoOn,
    /// What has the last text is held back.
    HangAt(Hanging),
    /// What has the last text is still forwarded.
    HangAfter(Hanging),
}

/// Texts that are expected in this order in what one connection sends to the database.
struct Trap {
    texts: VecDeque<String>,
    /// The connection that has sent the first text.
    connection: Option<usize>,
    /// What follows then, of the connection with this number.
    then: fn(usize) -> Then,
    sprung: oneshot::Sender<()>,
}

impl SlowProxy {
    /// Listens in front of the database with this URL, `postgres://USER@ADDRESS/NAME`. `delay` is added to each direction, so that a round
    /// trip takes twice as long.
    pub async fn start(database: &str, delay: Duration) -> Self {
        Self::start_at(LOOPBACK, database, delay).await
    }

    /// The same, at this address of the machine.
    pub async fn start_at(own: IpAddr, database: &str, delay: Duration) -> Self {
        let (user, rest) = database.split_once('@').expect("the URL names a user");
        let (address, name) = rest.split_once('/').expect("the URL names a database");
        let server: SocketAddr = address.parse().expect("the URL has an IP address and a port");
        let (own, link, accepting) = Self::listen(own, server, delay).await;
        Self { own, url: format!("{user}@{own}/{name}"), link, _accepting: accepting }
    }

    /// Listens in front of a Redis.
    pub async fn start_before_redis(server: SocketAddr, delay: Duration) -> Self {
        let (own, link, accepting) = Self::listen(LOOPBACK, server, delay).await;
        Self { own, url: format!("redis://{own}"), link, _accepting: accepting }
    }

    /// Listens in front of what devices connect to.
    pub async fn start_before_node(clients: SocketAddr, delay: Duration) -> Self {
        let (own, link, accepting) = Self::listen(LOOPBACK, clients, delay).await;
        Self { own, url: format!("http://{own}"), link, _accepting: accepting }
    }

    async fn listen(own: IpAddr, server: SocketAddr, delay: Duration) -> (SocketAddr, Arc<Link>, JoinSet<()>) {
        let listener = TcpListener::bind((own, 0)).await.expect("a port is free");
        let own = listener.local_addr().expect("the listener has an address");
        let hanging = watch::Sender::new(Hanging::None);
        let link = Arc::new(Link {
            server: Mutex::new(server),
            delay: Mutex::new(delay),
            jitter: Mutex::default(),
            hanging,
            held: watch::Sender::default(),
            traps: Mutex::default(),
            transactions: Mutex::default(),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, link.clone()));
        (own, link, accepting)
    }

    /// The URL of what is behind the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.own
    }

    /// Has new connections lead to another server.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.link.server.lock() = server;
    }

    /// Adds up to so much to the delay of what is read from now on, by chance. What one connection sends stays in its order.
    pub fn set_jitter(&self, jitter: Duration) {
        *self.link.jitter.lock() = jitter;
    }

    /// Changes the delay of what is read from now on.
    pub fn set_delay(&self, delay: Duration) {
        *self.link.delay.lock() = delay;
    }

    /// Accepts connections and bytes from now on, and forwards nothing, as if packets were lost in both directions.
    pub fn hang(&self) {
        self.link.hanging.send_replace(Hanging::All);
    }

    /// Waits until something is held back, since it hangs.
    pub async fn holds(&self) {
        self.link.held.subscribe().wait_for(|held| *held > 0).await.expect("the proxy is there");
    }

    /// Forwards everything that has arrived meanwhile, in its order, and goes on.
    pub fn go_on(&self) {
        self.link.hanging.send_replace(Hanging::None);
    }

    /// Hangs as soon as one connection has sent these texts in this order: what has the last one is not forwarded. The future waits for that.
    /// A text is found only within one packet of the protocol.
    pub fn hang_at(&self, texts: &[&str]) -> impl Future<Output = ()> + use<> {
        self.set_trap(texts, |_| Then::HangAt(Hanging::All))
    }

    /// The same for that connection alone: the others go on.
    pub fn hang_connection_at(&self, texts: &[&str]) -> impl Future<Output = ()> + use<> {
        self.set_trap(texts, |connection| Then::HangAt(Hanging::One(connection)))
    }

    /// Hangs as soon as one connection has sent these texts in this order: what has the last one is forwarded, and the answer is not.
    pub fn hang_after(&self, texts: &[&str]) -> impl Future<Output = ()> + use<> {
        self.set_trap(texts, |_| Then::HangAfter(Hanging::All))
    }

    /// Ends one connection as soon as it has sent these texts in this order: what has the last one is forwarded, and the answer is not.
    pub fn cut_after(&self, texts: &[&str]) -> impl Future<Output = ()> + use<> {
        self.set_trap(texts, |connection| Then::HangAfter(Hanging::Cut(connection)))
    }

    /// Waits until one connection has sent these texts in this order, from now on.
    pub fn sees(&self, texts: &[&str]) -> impl Future<Output = ()> + use<> {
        self.set_trap(texts, |_| Then::GoOn)
    }

    /// The transactions that were ended since the last call, in their order.
    pub fn take_transactions(&self) -> Vec<Transaction> {
        std::mem::take(&mut self.link.transactions.lock().ended)
    }

    /// How often clients waited for an answer since the last call, on all connections.
    pub fn take_round_trips(&self) -> usize {
        std::mem::take(&mut self.link.transactions.lock().round_trips)
    }

    fn set_trap(&self, texts: &[&str], then: fn(usize) -> Then) -> impl Future<Output = ()> + use<> {
        let (sprung, waiting) = oneshot::channel();
        let texts = texts.iter().map(ToString::to_string).collect();
        self.link.traps.lock().push(Trap { texts, connection: None, then, sprung });
        async { waiting.await.expect("the proxy is there") }
    }
}

impl Transaction {
    /// Whether the client has sent this text in it.
    pub fn has(&self, text: &str) -> bool {
        contains(&self.sent, text)
    }
}

impl Transactions {
    fn sent(&mut self, connection: usize, bytes: &[u8]) {
        self.round_trips += usize::from(self.waiting.insert(connection));
        if contains(bytes, "BEGIN") {
            let begun = Transaction { round_trips: 0, sent: Vec::new(), is_answered: true };
            self.begun.insert(connection, begun);
        }
        let Some(transaction) = self.begun.get_mut(&connection) else { return };
        transaction.round_trips += usize::from(std::mem::take(&mut transaction.is_answered));
        transaction.sent.extend_from_slice(bytes);
        if contains(bytes, "COMMIT") || contains(bytes, "ROLLBACK\0") {
            self.ended.extend(self.begun.remove(&connection));
        }
    }

    fn answered(&mut self, connection: usize) {
        self.waiting.remove(&connection);
        if let Some(transaction) = self.begun.get_mut(&connection) {
            transaction.is_answered = true;
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

impl Link {
    fn delay(&self) -> Duration {
        // A random seed.
        let chance = u32::from(RandomState::new().build_hasher().finish().to_le_bytes()[0]);
        *self.delay.lock() + *self.jitter.lock() * chance / u32::from(u8::MAX)
    }

    /// Looks for the texts of all traps in what a connection sends to the database. Returns whether the bytes are forwarded though the proxy
    /// hangs.
    fn inspect(&self, connection: usize, bytes: &[u8]) -> bool {
        let mut passes = false;
        let mut traps = self.traps.lock();
        for trap in traps.extract_if(.., |trap| trap.follow(connection, bytes)) {
            match (trap.then)(connection) {
                Then::GoOn => {}
                Then::HangAt(hanging) => drop(self.hanging.send_replace(hanging)),
                Then::HangAfter(hanging) => {
                    passes = true;
                    self.hanging.send_replace(hanging);
                }
            }
            // The test may not wait for it.
            let _ = trap.sprung.send(());
        }
        passes
    }

    /// Waits until a connection is forwarded. False: it was cut.
    async fn not_hanging(&self, connection: usize) -> bool {
        let goes_on = |hanging: &Hanging| match hanging {
            Hanging::None | Hanging::Cut(_) => true,
            Hanging::One(hanging) => *hanging != connection,
            Hanging::All => false,
        };
        if !goes_on(&self.hanging.borrow()) {
            self.held.send_modify(|held| *held += 1);
        }
        // It ends only with this link.
        let hanging = self.hanging.subscribe().wait_for(goes_on).await.map(|hanging| *hanging);
        !matches!(hanging, Ok(Hanging::Cut(cut)) if cut == connection)
    }
}

impl Trap {
    /// True once the last text was sent.
    fn follow(&mut self, connection: usize, mut bytes: &[u8]) -> bool {
        if self.connection.is_some_and(|own| own != connection) {
            return false;
        }
        while let Some(text) = self.texts.front() {
            let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) else {
                return false;
            };
            bytes = &bytes[at + text.len()..];
            self.connection = Some(connection);
            self.texts.pop_front();
        }
        true
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    let mut connections = JoinSet::new();
    for connection in 0.. {
        let (client, _) = listener.accept().await.expect("the proxy accepts");
        connections.spawn(forward(client, link.clone(), connection));
        while connections.try_join_next().is_some() {}
    }
}

/// Forwards both directions of a connection until both have ended.
async fn forward(client: TcpStream, link: Arc<Link>, connection: usize) {
    let server = *link.server.lock();
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a TCP stream has the option");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        carry(from_client, to_server, &link, connection, |bytes| {
            link.transactions.lock().sent(connection, bytes);
            link.inspect(connection, bytes)
        }),
        carry(from_server, to_client, &link, connection, |_| {
            link.transactions.lock().answered(connection);
            false
        }),
    );
}

/// Forwards one direction. Chunks are delayed independently of each other: the delay is latency, and limits no throughput.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: &Link,
    connection: usize,
    inspect: impl Fn(&[u8]) -> bool,
) {
    const CHUNK: usize = 64 * 1024;
    let (arrived, mut due) = mpsc::unbounded_channel::<(Instant, bool, Bytes)>();
    let reading = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            // A reset is forwarded as an end.
            let end = !matches!(from.read_buf(&mut chunk).await, Ok(1..));
            let passes = inspect(&chunk);
            if arrived.send((Instant::now() + link.delay(), passes, chunk.freeze())).is_err() || end {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, passes, chunk)) = due.recv().await {
            sleep_until(at).await;
            if !passes && !link.not_hanging(connection).await {
                break;
            }
            // An empty chunk is the end.
            if chunk.is_empty() || to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        // The peer may be gone.
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
