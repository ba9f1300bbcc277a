//! Three nodes, each a process, and what is between them.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, time::Duration};

use bugle::proto::v1::{BroadcastRequest, EmitOptions};
use futures_util::future::join_all;
use serde_json::json;
use tokio::{task::block_in_place, time::interval};
use tonic::Code;

use super::{database, kept, network::Network, other_version, sentinel::Sentinel, wrong_clock::WrongClock};
use crate::{
    NODES,
    harness::{
        Backend, Device, DeviceBuilder, Launch, ServerProcess, SlowProxy, TestRedis, deadline, to_everyone, token_with,
    },
};

/// A room of every device but those of the kept load.
pub const ROOM: &str = "lobby:all";
/// All nodes.
pub const ALL: [usize; NODES] = [0, 1, 2];
/// The one that a fault hits, if it hits one.
pub const LAST: usize = NODES - 1;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// How long receipts may take to be complete again.
const LONG: Duration = Duration::from_secs(30);

/// What is special about the nodes and the engine.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The engine has an append-only file.
    pub append_only: bool,
    /// It has a replica, and a Sentinel that the nodes ask for the primary.
    pub has_replica: bool,
    pub link: Link,
    /// Between all nodes and the database is a proxy.
    pub store_proxy: bool,
    /// There is a build that speaks another version of the protocol between nodes, and it may be built now.
    pub other_version: Option<bool>,
    pub deadline: Duration,
    pub lease: Duration,
    pub heartbeat: Duration,
}

/// How the last node is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// As the others.
    Direct,
    /// To the engine by a proxy.
    Proxy,
    /// From a network namespace of its own.
    Namespace,
    /// As the others; its clock can be set.
    Clock,
}

/// All that a fault can hit. The order is that of the ends: namespaces live as long as what is in them.
pub struct Nodes {
    processes: Vec<ServerProcess>,
    backends: Vec<Backend>,
    pub redis: TestRedis,
    pub replica: Option<(TestRedis, Sentinel)>,
    pub proxy: Option<SlowProxy>,
    /// The database's URL.
    store: String,
    pub store_proxy: Option<SlowProxy>,
    /// Between the last node and the database, if it is in a network namespace.
    store_link: Option<SlowProxy>,
    pub network: Option<Network>,
    pub clock: Option<WrongClock>,
    /// The program of a node of another version.
    pub other_version: Option<PathBuf>,
    plan: Plan,
}

impl Nodes {
    /// Starts everything. The error is why this machine cannot.
    pub async fn start(plan: Plan) -> Result<Self, String> {
        let other_version = plan.other_version.map(|may_build| block_in_place(|| other_version::program(may_build)));
        let other_version = other_version.transpose()?;
        let network = if plan.link == Link::Namespace { Some(Network::new()?) } else { None };
        let clock = if plan.link == Link::Clock { Some(WrongClock::new()?) } else { None };
        let addresses: Vec<_> = network.iter().map(Network::engine).collect();
        let redis = block_in_place(|| TestRedis::start_at(plan.append_only, &addresses));
        let replica = if plan.has_replica { Some(replica_of(&redis).await) } else { None };
        let proxy = match plan.link {
            Link::Proxy => Some(SlowProxy::start_before_redis(redis.address(), Duration::ZERO).await),
            Link::Direct | Link::Namespace | Link::Clock => None,
        };
        let store = block_in_place(database::new);
        let store_proxy = if plan.store_proxy { Some(SlowProxy::start(&store, Duration::ZERO).await) } else { None };
        let store_link = match &network {
            Some(network) => Some(SlowProxy::start_at(network.engine(), &store, Duration::ZERO).await),
            None => None,
        };
        let (processes, backends) = (Vec::new(), Vec::new());
        let mut nodes = Self {
            processes,
            backends,
            redis,
            replica,
            proxy,
            store,
            store_proxy,
            store_link,
            network,
            clock,
            other_version,
            plan,
        };
        for number in 0..NODES {
            let process = nodes.launch(number, None).expect("the node starts");
            nodes.backends.push(process.backend().await);
            nodes.processes.push(process);
        }
        for backend in &nodes.backends {
            let known = async { while backend.get_stats().await.nodes.len() < NODES {} };
            deadline("all nodes to know each other", known).await;
        }
        Ok(nodes)
    }

    /// Starts a process with the name and the place of a node, of this build or another program. The error is what it logged before it ended.
    pub fn launch(&self, number: usize, program: Option<PathBuf>) -> Result<ServerProcess, String> {
        let mut variables = HashMap::from([
            ("BUGLE_CLUSTER__REDIS", self.engine_of(number)),
            ("BUGLE_CLUSTER__NODE", format!("node-{number}")),
            ("BUGLE_CLUSTER__HEARTBEAT", format!("{}ms", self.plan.heartbeat.as_millis())),
            ("BUGLE_CLUSTER__DEADLINE", format!("{}ms", self.plan.deadline.as_millis())),
            ("BUGLE_CLUSTER__LEASE", format!("{}ms", self.plan.lease.as_millis())),
            ("BUGLE_STORE__URL", self.store_of(number)),
            ("BUGLE_STORE__MAX_MESSAGES", "1000000".to_owned()),
            ("BUGLE_AUTH__ROOMS", [&["lobby:{claim.lobby}"], &kept::AUTH_ROOMS[..]].concat().join(",")),
            ("BUGLE_DRAIN__DEADLINE", "1s".to_owned()),
        ]);
        let mut runner = Vec::new();
        if number == LAST {
            variables.extend(self.network.iter().flat_map(Network::variables));
            variables.extend(self.clock.iter().flat_map(WrongClock::variables));
            runner.extend(self.network.iter().flat_map(Network::runner));
        }
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let program = program.or_else(|| std::env::var_os("BUGLE_BENCH_BINARY").map(PathBuf::from));
        let launch = Launch {
            program: program.as_deref(),
            runner: &runner,
            variables: &variables,
            config: kept::CONFIG,
            commands: "",
        };
        block_in_place(|| launch.start())
    }

    fn engine_of(&self, number: usize) -> String {
        if let Some((_, sentinel)) = &self.replica {
            return sentinel.url();
        }
        match (&self.proxy, &self.network) {
            (Some(proxy), _) if number == LAST => proxy.url().to_owned(),
            (_, Some(network)) if number == LAST => self.redis.url_at(network.engine()),
            _ => self.redis.url(),
        }
    }

    fn store_of(&self, number: usize) -> String {
        let link = self.store_link.as_ref().filter(|_| number == LAST);
        let through = link.or(self.store_proxy.as_ref());
        through.map_or_else(|| self.store.clone(), |proxy| proxy.url().to_owned())
    }

    /// A backend for each node.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// A device of this user at this node, yet to be connected.
    pub fn device(&self, node: usize, user: &str) -> DeviceBuilder {
        self.attempts(node).device(user)
    }

    /// Where devices connect to a node.
    pub fn attempts(&self, node: usize) -> Attempts {
        Attempts(self.processes[node].clients)
    }

    /// The process of a node.
    pub fn process(&mut self, node: usize) -> &mut ServerProcess {
        &mut self.processes[node]
    }

    /// Has another process in the place of a node.
    pub async fn replace(&mut self, node: usize, process: ServerProcess) {
        self.backends[node] = process.backend().await;
        self.processes[node] = process;
    }

    /// Broadcasts through each of these nodes until a receipt is complete and so many connections got it.
    pub async fn complete_again(&self, nodes: &[usize], event: &str, matched: u64) {
        join_all(nodes.iter().map(|node| self.complete_at(*node, event, matched))).await;
    }

    async fn complete_at(&self, node: usize, event: &str, matched: u64) {
        let mut notify = self.backends[node].notify();
        let mut last = None;
        let complete = async {
            let mut pauses = interval(PAUSE);
            loop {
                pauses.tick().await;
                let answer = notify.broadcast(to_all(event, "0")).await;
                let receipt = answer.map(|answer| answer.into_inner().receipt.expect("a receipt"));
                if receipt.as_ref().is_ok_and(|receipt| !receipt.partial && receipt.matched == matched) {
                    return;
                }
                if let Err(status) = &receipt {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                }
                last = Some(receipt);
            }
        };
        let complete = tokio::time::timeout(LONG, complete).await;
        assert!(complete.is_ok(), "node {node} has no complete receipt for {matched}, but {last:?}");
    }
}

/// Where devices connect.
#[derive(Clone, Copy)]
pub struct Attempts(SocketAddr);

impl Attempts {
    /// A device of this user, yet to be connected.
    pub fn device(self, user: &str) -> DeviceBuilder {
        self.with_token(token_with(&json!({ "sub": user, "lobby": "all" })))
    }

    /// A device with this token, yet to be connected.
    pub fn with_token(self, token: String) -> DeviceBuilder {
        Device::builder(self.0).token(token)
    }
}

/// JSON for everyone but the devices of the kept load, which come and go all the time.
pub fn to_all(event: &str, json: &str) -> BroadcastRequest {
    let options = Some(EmitOptions { except_rooms: vec![kept::KEEPERS.to_owned()], ..EmitOptions::default() });
    BroadcastRequest { options, ..to_everyone(event, json) }
}

async fn replica_of(primary: &TestRedis) -> (TestRedis, Sentinel) {
    let replica = block_in_place(|| TestRedis::start(false));
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.address().port().to_string()]);
    let sentinel = Sentinel::start(primary);
    sentinel.knows_the_replica().await;
    (replica, sentinel)
}
