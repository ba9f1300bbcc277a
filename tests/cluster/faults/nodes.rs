//! Three nodes, each a process, and the engine between them.

use std::{sync::Mutex, time::Duration};

use tokio::time::interval;
use tonic::Code;

use crate::{
    NODES,
    harness::{Backend, Device, ServerProcess, TestRedis, deadline, to_everyone, token},
};

/// A room of every device.
pub const ROOM: &str = "lobby";
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// All that a fault can hit.
pub struct Nodes {
    pub redis: TestRedis,
    processes: Vec<ServerProcess>,
    backends: Vec<Backend>,
}

impl Nodes {
    /// With or without an append-only file of the engine, and with these leases.
    pub async fn start(append_only: bool, lease: Duration) -> Self {
        let redis = Self::engine(append_only);
        let (mut processes, mut backends) = (Vec::new(), Vec::new());
        for number in 0..NODES {
            let name = format!("node-{number}");
            let (url, lease_ms) = (redis.url(), format!("{}ms", lease.as_millis()));
            let heartbeat = format!("{}ms", (lease.as_millis() / 5).min(1_000));
            let variables = [
                ("BUGLE_CLUSTER__REDIS", url.as_str()),
                ("BUGLE_CLUSTER__NODE", name.as_str()),
                ("BUGLE_CLUSTER__HEARTBEAT", heartbeat.as_str()),
                ("BUGLE_CLUSTER__LEASE", lease_ms.as_str()),
                ("BUGLE_STORE__URL", ""),
                ("BUGLE_AUTH__ROOMS", ROOM),
            ];
            let process = ServerProcess::start_after("", "", &variables);
            backends.push(process.backend().await);
            processes.push(process);
        }
        let nodes = Self { redis, processes, backends };
        for backend in &nodes.backends {
            deadline("all nodes to know each other", async { while backend.get_stats().await.nodes.len() < NODES {} })
                .await;
        }
        nodes
    }

    /// An engine that has run for as long as the test before this one: nodes wait until one without data is older than a lease.
    fn engine(append_only: bool) -> TestRedis {
        static NEXT: [Mutex<Option<TestRedis>>; 2] = [const { Mutex::new(None) }; 2];
        let next = &NEXT[usize::from(append_only)];
        let engine = next.lock().expect("no test failed here").take();
        let engine = engine.unwrap_or_else(|| TestRedis::start(append_only));
        *next.lock().expect("no test failed here") = Some(TestRedis::start(append_only));
        engine
    }

    /// A backend for each node.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// A device of this user at this node.
    pub async fn connect(&self, node: usize, user: &str) -> Device {
        let device = Device::builder(self.processes[node].clients).token(token(user));
        device.connect().await.expect("the device connects")
    }

    /// The process of a node.
    pub fn process(&mut self, node: usize) -> &mut ServerProcess {
        &mut self.processes[node]
    }

    /// Broadcasts through each of these nodes until a receipt is complete and so many connections got it.
    pub async fn complete_again(&self, nodes: &[usize], event: &str, matched: u64) {
        for node in nodes {
            let mut notify = self.backends[*node].notify();
            let mut last = None;
            let complete = async {
                let mut pauses = interval(PAUSE);
                loop {
                    pauses.tick().await;
                    let answer = notify.broadcast(to_everyone(event, "0")).await;
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
            let complete = tokio::time::timeout(3 * crate::harness::PATIENCE, complete).await;
            assert!(complete.is_ok(), "node {node} has no complete receipt for {matched}, but {last:?}");
        }
    }

    /// Asks each of these nodes for each of these users until it tells this count of connections.
    pub async fn presence_is(&self, nodes: &[usize], users: &[(String, usize)]) {
        for node in nodes {
            let mut presence = self.backends[*node].presence();
            for (user, count) in users {
                let request = bugle::proto::v1::GetUserRequest { user_id: user.clone() };
                deadline("the presence to be right", async {
                    let mut pauses = interval(PAUSE);
                    loop {
                        pauses.tick().await;
                        let answer = presence.get_user(request.clone()).await.map(tonic::Response::into_inner);
                        if answer.is_ok_and(|found| found.connections.len() == *count && found.online == (*count > 0)) {
                            return;
                        }
                    }
                })
                .await;
            }
        }
    }
}
