//! A `redis-server` of a test's own.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::StreamExt;
use tempfile::TempDir;

use crate::cluster::{Config, Shards};

/// Some running engines, which end when this is dropped.
pub(super) struct RedisServer {
    servers: Vec<Running>,
}

struct Running {
    child: Child,
    port: u16,
    _directory: TempDir,
}

/// Ports that are tried: another process may take a free one first.
const ATTEMPTS: usize = 20;

impl RedisServer {
    pub(super) fn start() -> Self {
        Self::start_shards(1)
    }

    pub(super) fn start_shards(count: usize) -> Self {
        let start = |_| (0..ATTEMPTS).find_map(|_| Running::start()).expect("redis-server starts");
        Self { servers: (0..count).map(start).collect() }
    }

    /// Stops the first engine from running: nothing is answered.
    pub(super) fn pause(&self) {
        self.servers[0].signal("-STOP");
    }

    /// Lets it run on.
    pub(super) fn resume(&self) {
        self.servers[0].signal("-CONT");
    }

    pub(super) async fn subscribe(&self, channel: &str) -> Subscriber {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.servers[0].port)).unwrap();
        let mut subscriber = client.get_async_pubsub().await.unwrap();
        subscriber.subscribe(channel).await.unwrap();
        Subscriber(subscriber)
    }

    /// The engines, connected.
    pub(super) async fn connect(&self) -> Shards {
        // A busy machine is slow.
        self.connect_with(Duration::from_secs(10)).await
    }

    /// The same, where each command has this deadline.
    pub(super) async fn connect_with(&self, deadline: Duration) -> Shards {
        let urls: Vec<_> = self.servers.iter().map(|server| format!("redis://127.0.0.1:{}", server.port)).collect();
        let config = Config {
            redis: urls.into_iter().map(Into::into).collect(),
            prefix: "p".to_owned(),
            node: "a".to_owned(),
            deadline,
            heartbeat: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            linger: Duration::from_secs(5),
            waiting: 1 << 20,
        };
        Shards::connected(&config).await.expect("it is there")
    }
}

/// What is published on a channel of the first engine.
pub(super) struct Subscriber(redis::aio::PubSub);

impl Subscriber {
    pub(super) async fn recv(&mut self) -> Option<Vec<u8>> {
        Some(self.0.on_message().next().await?.get_payload().expect("bytes"))
    }
}

impl Running {
    /// `None`: the port is taken.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--port", &port.to_string(), "--dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is installed");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let is_ready = lines.map_while(Result::ok).any(|line| line.contains("Ready to accept connections"));
        let running = Self { child, port, _directory: directory };
        is_ready.then_some(running)
    }
}

impl Running {
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
