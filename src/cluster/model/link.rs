//! The bus over the engine in memory, for the model tests of what uses it.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

use super::{
    memory::Memory,
    node::config,
    oracle::NODES,
    wire::{Dialer, Faults},
};
use crate::cluster::{Cluster, Kept, KeptMessage, Shards};
use crate::message::{Position, RoomName};

/// The engine in memory, and the links of three nodes to it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Link(Memory);

impl Link {
    pub(crate) fn new() -> Self {
        Self(Memory::new())
    }

    /// The bus of a node, which has not joined yet.
    pub(crate) fn cluster(&self, node: usize) -> Cluster {
        let (tasks, mut new) = mpsc::unbounded_channel();
        #[expect(clippy::disallowed_methods, reason = "the engine is none of the server's tasks")]
        tokio::spawn(async move {
            while let Some(task) = new.recv().await {
                tokio::spawn(task);
            }
        });
        let config = config(node);
        let dialer = Dialer { memory: self.0.clone(), node, tasks };
        Cluster::over(&config, Shards::in_memory(&config, dialer))
    }

    /// Notes that a node takes connections from now on.
    pub(crate) fn serves(&self, node: usize, cluster: &Cluster) {
        let is_counted = cluster.shards()[0].is_counted();
        self.0.state.lock().serves(node, is_counted);
    }

    /// Whether receipts of a process that began then must count a node, and had to at the time of the emit.
    pub(crate) fn must_count(&self, node: usize, began: Instant, then: Instant) -> bool {
        self.0.state.lock().must_count(node, began, then)
    }

    pub(crate) fn delay(&self, node: usize, latency: Duration) {
        self.change(|faults| faults.latency[node] = latency);
    }

    /// Delays what comes to a node by so much more: frames, or answers to commands.
    pub(crate) fn delay_only(&self, node: usize, of_frames: bool, latency: Duration) {
        self.change(|faults| faults.extra[node][usize::from(of_frames)] = latency);
    }

    pub(crate) fn cut(&self, node: usize, is_cut: bool) {
        self.change(|faults| faults.is_cut[node] = is_cut);
    }

    pub(crate) fn lose_subscription(&self, node: usize) {
        self.0.state.lock().lose_subscriptions(node);
    }

    pub(crate) fn crash(&self, keeps_data: bool) {
        self.0.freeze(false);
        self.0.state.lock().crash(keeps_data);
    }

    pub(crate) fn start(&self) {
        self.0.state.lock().start();
    }

    pub(crate) fn freeze(&self, is_frozen: bool) {
        self.0.freeze(is_frozen);
    }

    /// How many sequences of histories have begun.
    pub(crate) fn sequences(&self) -> u64 {
        self.0.state.lock().histories.count()
    }

    /// Counts the sequences up to the one of a position.
    pub(crate) fn order(&self, position: &Position) -> u64 {
        let kept = Kept::of(position).expect("a place in a history");
        self.0.state.lock().histories.order(kept.sequence).expect("a sequence of the engine")
    }

    /// The messages of a room in the sequence of now.
    pub(crate) fn history(&self, room: &RoomName) -> Vec<KeptMessage> {
        let (state, room) = (self.0.state.lock(), format!("p:h:{{{room}}}"));
        state.histories.messages(state.starts, room.as_bytes())
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.0.state.lock().start();
        self.0.freeze(false);
        self.0.state.lock().drops = [0; NODES];
        self.change(|faults| *faults = Faults::default());
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.0.faults.send_modify(change);
    }
}
