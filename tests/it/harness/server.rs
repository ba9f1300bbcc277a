use std::{net::SocketAddr, time::Duration};

use bugle::app::{Addresses, App, Error};
use bugle::auth::{ApiKeyConfig, KeyConfig, mint};
use bugle::clock::Clock;
use bugle::config::Config;
use bugle::lifecycle::Lifecycle;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Backend, Device, DeviceBuilder, TestRedis, any_of, deadline, new_database};
use crate::NODES;

/// The API key that may do everything.
pub const API_KEY: &str = "an-api-key-of-thirty-two-bytes-or-more";
/// What tokens are signed with.
pub const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";

/// A server of its own, on free ports, that stops with its value. It has [`NODES`] nodes: a device connects to any one.
pub struct TestServer {
    nodes: Vec<Node>,
    /// Moves the time of day that tokens are compared with; timers do not follow.
    pub clock: Clock,
}

struct Node {
    addresses: Addresses,
    lifecycle: Lifecycle,
    running: Option<JoinHandle<Result<(), Error>>>,
}

impl Node {
    async fn start(config: Config, clock: Clock) -> Result<Self, Error> {
        let app = App::new(config, clock, false)?;
        let lifecycle = app.lifecycle().clone();
        let listening = app.listen().await?;
        let addresses = listening.addresses();
        #[expect(clippy::disallowed_methods, reason = "what stops the server is not stopped by it")]
        let running = Some(tokio::spawn(listening.run()));
        Ok(Self { addresses, lifecycle, running })
    }

    async fn stopped(&mut self) -> Result<(), Error> {
        let running = self.running.take().expect("it is waited for once");
        deadline("a node to stop", running).await.expect("a node does not panic")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.lifecycle.stop_hard();
    }
}

impl TestServer {
    /// With the defaults, one key for tokens and one API key.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// With these changes to that.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        Box::pin(Self::serve(config, |_, _| ())).await.expect("the server starts")
    }

    /// With these changes to the configuration of each node, by its number.
    pub async fn start_each_with(change: impl Fn(usize, &mut Config)) -> Self {
        Box::pin(Self::serve(config(), change)).await.expect("the server starts")
    }

    /// Why a server of one node with these changes does not start.
    pub async fn refusal(change: impl FnOnce(&mut Config)) -> Error {
        let mut config = config();
        change(&mut config);
        match Box::pin(Node::start(config, Clock::movable())).await {
            Err(error) => error,
            Ok(_) => panic!("it starts"),
        }
    }

    async fn serve(config: Config, change: impl Fn(usize, &mut Config)) -> Result<Self, Error> {
        let clock = Clock::movable();
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let mut config = config.clone();
            config.cluster.node = node_name(number);
            change(number, &mut config);
            assert_eq!(config.faults(false), [], "the configuration is good");
            nodes.push(Node::start(config, clock.clone()).await?);
        }
        let server = Self { nodes, clock };
        deadline("all nodes to know each other", server.know_each_other()).await;
        Ok(server)
    }

    /// Returns when each node counts all of them.
    async fn know_each_other(&self) {
        for node in self.nodes.iter().filter(|_| NODES > 1) {
            let backend = Backend::connect(node.addresses.grpc, API_KEY).await;
            while backend.get_stats().await.nodes.len() < NODES {}
        }
    }

    fn any(&self) -> &Addresses {
        &any_of(&self.nodes).addresses
    }

    /// Where devices connect to one of the nodes.
    pub fn clients(&self) -> SocketAddr {
        self.any().clients
    }

    /// Where devices connect to one node.
    pub fn clients_of(&self, number: usize) -> SocketAddr {
        self.nodes[number].addresses.clients
    }

    /// Where backends call one of the nodes.
    pub fn grpc(&self) -> SocketAddr {
        self.any().grpc
    }

    /// Where operators ask.
    pub fn admin(&self) -> SocketAddr {
        self.any().admin
    }

    /// A backend that may do everything.
    pub async fn backend(&self) -> Backend {
        self.backend_with(API_KEY).await
    }

    /// A backend with this API key.
    pub async fn backend_with(&self, key: &str) -> Backend {
        Backend::connect_to(self.nodes.iter().map(|node| node.addresses.grpc).collect(), key).await
    }

    /// A backend of one node that may do everything.
    pub async fn backend_of(&self, number: usize) -> Backend {
        Backend::connect(self.nodes[number].addresses.grpc, API_KEY).await
    }

    /// A device of this user at one node, over WebSocket, yet to be connected.
    pub fn device_at(&self, number: usize, user: &str) -> DeviceBuilder {
        Device::builder(self.nodes[number].addresses.clients).token(token(user))
    }

    /// Where operators ask one node.
    pub fn admin_of(&self, number: usize) -> SocketAddr {
        self.nodes[number].addresses.admin
    }

    /// A device of this user, over WebSocket, yet to be connected.
    pub fn device(&self, user: &str) -> DeviceBuilder {
        Device::builder(self.clients()).token(token(user))
    }

    /// A connected device of this user.
    pub async fn connect(&self, user: &str) -> Device {
        self.device(user).connect().await.expect("the device connects")
    }

    /// Asks all nodes for a soft stop.
    pub fn stop(&self) {
        for node in &self.nodes {
            node.lifecycle.stop();
        }
    }

    /// What the nodes are called.
    pub fn node_names() -> Vec<String> {
        if NODES == 1 { vec!["solo".to_owned()] } else { (0..NODES).map(node_name).collect() }
    }

    /// Stops all nodes but the named one, and when they have stopped, asks that for a soft stop.
    pub async fn stop_ending_with(&mut self, node: &str) {
        let names = Self::node_names();
        let last = names.iter().position(|name| name == node).expect("it is one of ours");
        let others = self.nodes.iter_mut().enumerate().filter(|(number, _)| *number != last);
        for (_, other) in others {
            other.lifecycle.stop();
            other.stopped().await.expect("a node stops well");
        }
        self.nodes[last].lifecycle.stop();
    }

    /// Waits until all nodes have stopped.
    pub async fn stopped(&mut self) -> Result<(), Error> {
        for node in &mut self.nodes {
            node.stopped().await?;
        }
        Ok(())
    }
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// The defaults, on free ports, with one key for tokens and one API key. Several nodes share an engine and a database.
fn config() -> Config {
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut config = Config::defaults().expect("the defaults are good");
    (config.clients.listen, config.grpc.listen, config.admin.listen) = (free, free, free);
    config.auth.jwt.keys.push(token_key());
    config.grpc.api_keys.push(api_key(
        "test",
        API_KEY,
        &["emit", "presence", "rooms", "disconnect", "mailbox", "messages"],
    ));
    config.drain.deadline = Duration::from_secs(4);
    if NODES > 1 {
        config.cluster.redis = vec![TestRedis::shared().url().into()];
        config.cluster.prefix = format!("test-{}", uuid::Uuid::new_v4().simple());
    }
    config.store.url = SecretString::from(if NODES > 1 { new_database() } else { "sqlite::memory:".to_owned() });
    config
}

/// An entry of `grpc.api_keys`.
pub fn api_key(name: &str, key: &str, scopes: &[&str]) -> ApiKeyConfig {
    ApiKeyConfig {
        name: name.to_owned(),
        key: Some(SecretString::from(key)),
        key_sha256: None,
        scopes: scopes.iter().map(ToString::to_string).collect(),
    }
}

fn token_key() -> KeyConfig {
    KeyConfig {
        kid: None,
        algorithm: "HS256".to_owned(),
        secret: Some(SecretString::from(SECRET)),
        public_key_file: None,
    }
}

/// A token for this user that is good for an hour.
pub fn token(user: &str) -> String {
    token_with(&json!({ "sub": user }))
}

/// A token with these claims, and an `exp` in an hour unless they have one.
pub fn token_with(claims: &Value) -> String {
    let mut all = json!({ "exp": Clock::system().now().as_second() + 3600 });
    let all = all.as_object_mut().expect("claims are an object");
    all.extend(claims.as_object().expect("claims are an object").clone());
    mint(&token_key(), all).expect("the token is minted")
}
