use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Cmd, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    BusError, Config, Node, Shards, Ticket,
    engine::ConnectError,
    frame::Frame,
    peers::NameTaken,
    publisher::subscribers,
    rooms::{Pin, Rooms},
    shard::Shard,
};
use crate::lifecycle::Lifecycle;
use crate::message::RoomName;

/// A start waits so many deadlines for the subscriptions. Then the node serves without them, and says that it is not ready.
const START_DEADLINES: u32 = 6;
/// Why a node cannot join the others.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An engine will not do.
    #[error("cluster.redis: {engine} cannot be used: {problem}")]
    Unfit {
        /// Its address, without the password.
        engine: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process has the name.
    #[error("cluster.node: another process has the name {0:?}: give each node its own")]
    NameTaken(String),
}

/// This node among others. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    config: Config,
    name: Arc<str>,
    engines: Shards,
    shards: Vec<Arc<Shard>>,
    done: CancellationToken,
}

/// What a node runs, by a name.
type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
pub(super) type Spawn<'a> = dyn Fn(&'static str, Task) + Sync + 'a;

/// Keeps rooms subscribed until connections are in them.
pub struct Subscribed {
    is_confirmed: bool,
    _pins: Vec<Pin>,
}

impl Default for Subscribed {
    /// Of a node that is alone.
    fn default() -> Self {
        Self { is_confirmed: true, _pins: Vec::new() }
    }
}

impl Subscribed {
    /// Whether what is published to the rooms comes to this node. If not, it does later.
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }
}

impl Cluster {
    /// A node that has not joined yet. `None`: there is no address, or one is wrong.
    pub fn new(config: &Config) -> Option<Self> {
        Some(Self::over(config, Shards::new(config)?))
    }

    /// The same, over these engines.
    pub(super) fn over(config: &Config, engines: Shards) -> Self {
        let shards = engines.all().iter().enumerate();
        let shards = shards.map(|(index, engine)| Shard::new(index, engine.clone(), config.clone())).collect();
        let name = config.node_name().into();
        Self(Arc::new(Inner { config: config.clone(), name, engines, shards, done: CancellationToken::new() }))
    }

    /// The name of this node.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// The engines, for what nodes share.
    pub fn engines(&self) -> &Shards {
        &self.0.engines
    }

    /// How long a call may wait for other nodes.
    pub fn deadline(&self) -> Duration {
        self.0.config.deadline
    }

    /// Joins the other nodes: takes this one's name, and its lease, and subscribes. `node` executes what comes. If an engine cannot be reached
    /// now, the node joins later.
    pub async fn start(&self, node: &Arc<dyn Node>, lifecycle: &Lifecycle) -> Result<(), StartError> {
        let spawn = |name, task| lifecycle.spawn_vital(name, task);
        tokio::select! {
            started = self.start_on(node, &spawn) => started,
            // It leaves soon.
            () = lifecycle.stopping() => Ok(()),
        }
    }

    /// The same. `spawn` runs each task until it ends.
    pub(super) async fn start_on(&self, node: &Arc<dyn Node>, spawn: &Spawn<'_>) -> Result<(), StartError> {
        let connects = self.0.shards.iter().map(async |shard| match shard.engine.connect(1).await {
            Ok(()) => Ok(()),
            Err(ConnectError::Unfit(problem)) => {
                Err(StartError::Unfit { engine: shard.engine.masked().to_owned(), problem })
            }
            Err(error @ ConnectError::Unreachable(_)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    cluster.redis = shard.engine.masked(),
                    "the engine is away: this node is alone until it is there"
                );
                Ok(())
            }
        });
        join_all(connects).await.into_iter().collect::<Result<(), _>>()?;
        self.take_name().await?;
        for shard in &self.0.shards {
            let _ = shard.node.set(node.clone());
            self.spawn(shard, spawn);
        }
        let wait = timeout(self.deadline() * START_DEADLINES, self.ready());
        let _ = wait.await;
        self.wait_to_be_counted().await;
        Ok(())
    }

    /// Waits until all peers know this node: else their receipts might leave out its connections. A peer that stands still is waited for until
    /// its lease is over, and peers that an engine may not know for as long as one lasts. Without an engine nobody is.
    async fn wait_to_be_counted(&self) {
        let Config { lease, heartbeat, .. } = self.0.config;
        let wait = self.0.shards.iter().map(async |shard| {
            let (mut pause, patience) = (heartbeat / 64, self.deadline() * START_DEADLINES);
            let mut reached = shard.engine.is_connected().then(Instant::now);
            while !shard.is_counted() && reached.is_some_and(|reached| reached.elapsed() < patience) {
                if shard.engine.is_connected() {
                    reached = Some(Instant::now());
                }
                shard.heartbeat_now.notify_one();
                sleep(pause).await;
                pause = (pause * 2).min(heartbeat / 4);
            }
        });
        let _ = timeout((lease + heartbeat) * 2, join_all(wait)).await;
    }

    fn spawn(&self, shard: &Arc<Shard>, spawn: &Spawn<'_>) {
        let (messages, received) = mpsc::unbounded_channel();
        let done = &self.0.done;
        let run = |name, task: Task| {
            let done = done.clone();
            let task = async move {
                tokio::select! {
                    () = done.cancelled() => {}
                    () = task => {}
                }
            };
            spawn(name, Box::pin(task));
        };
        run("bus connection", Box::pin(shard.engine.clone().keep_connected()));
        run("bus lease", Box::pin(shard.clone().heartbeat_loop()));
        run("bus subscriptions", Box::pin(shard.clone().subscribe_loop(messages)));
        run("bus receiver", Box::pin(shard.clone().receive_loop(received)));
        run("bus publisher", Box::pin(shard.clone().publish_loop()));
        run("bus answers", Box::pin(shard.clone().answer_loop()));
    }

    /// Waits for a process of the same name whose lease has not ended: this one may have been started in its place.
    async fn take_name(&self) -> Result<(), StartError> {
        let Some(shard) = self.0.shards.first() else { return Ok(()) };
        let deadline = Instant::now() + self.0.config.lease + self.0.config.heartbeat;
        loop {
            // Not when the answer comes: this process may stand still meanwhile.
            let asked = Instant::now();
            match shard.hold_name().await {
                // The heartbeat finds out later.
                Ok(Ok(())) | Err(_) => return Ok(()),
                Ok(Err(NameTaken)) if asked >= deadline => {
                    return Err(StartError::NameTaken(self.0.name.to_string()));
                }
                Ok(Err(NameTaken)) => sleep(self.0.config.heartbeat / 2).await,
            }
        }
    }

    /// Waits until all rooms of this node are subscribed.
    pub async fn ready(&self) {
        for shard in &self.0.shards {
            loop {
                let changed = shard.readiness.notified();
                if shard.is_ready() {
                    break;
                }
                changed.await;
            }
        }
    }

    /// For how long an engine could not be used: some room of this node is not subscribed, or its lease is not renewed. `None`: all is well.
    pub fn unready_for(&self) -> Option<Duration> {
        self.0.shards.iter().filter_map(|shard| shard.unready_for()).max()
    }

    /// Whether all nodes are known and hear what is published, as far as is known: a frame is not lost then.
    pub fn is_whole(&self) -> bool {
        self.0.shards.iter().all(|shard| shard.is_ready() && shard.is_whole.load(Ordering::Acquire))
    }

    /// How often that was not so, and how often this node has not understood a frame.
    pub fn gaps(&self) -> u64 {
        self.0.shards.iter().map(|shard| shard.gaps.load(Ordering::Relaxed)).sum()
    }

    /// How long a node that is not heard of counts as live.
    pub fn lease(&self) -> Duration {
        self.0.config.lease
    }

    /// Publishes a frame to the nodes that have its room; a frame without a room to all nodes. Frames of one room come to every node in one
    /// order, which is that of these calls for the frames of this node.
    pub fn publish(&self, frame: &Frame) -> Result<Ticket, BusError> {
        self.shard_for(frame).publish(frame)
    }

    /// The same by a function, which also changes what the room keeps. It is given the frame before and after the numbers that it
    /// puts in, and the channel.
    pub fn publish_by(
        &self,
        frame: &Frame,
        command: impl FnOnce(&[u8], &[u8], &str) -> Cmd,
    ) -> Result<Ticket, BusError> {
        self.shard_for(frame).publish_by(frame, command)
    }

    /// The same of an emit to this room that waits at the engine. The function is given what its frame begins with now.
    pub fn publish_waiting(&self, room: &RoomName, command: impl FnOnce(&[u8]) -> Cmd) -> Result<Ticket, BusError> {
        self.0.shards[self.0.engines.index_of(room)].publish_waiting(command)
    }

    #[cfg(test)]
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.0.shards
    }

    fn shard_for(&self, frame: &Frame) -> &Shard {
        let index = frame.room().map_or(0, |room| self.0.engines.index_of(&room));
        &self.0.shards[index]
    }

    /// Waits until what is published to these rooms comes to this node. If an engine is away or refuses commands, this waits until it cannot count
    /// this node as a ready one any more: then the rooms are subscribed later, and this node is not ready until then. After this node has left,
    /// this does not wait. The rooms stay subscribed as long as the returned value is kept, and later on while a connection is in them.
    pub async fn subscribe(&self, rooms: Vec<RoomName>) -> Subscribed {
        let (mut subscribed, confirmations) = self.want_each(rooms);
        for confirmed in confirmations {
            // An error: they cannot be subscribed now.
            subscribed.is_confirmed &= confirmed.await.is_ok();
        }
        subscribed
    }

    fn want_each(&self, rooms: Vec<RoomName>) -> (Subscribed, Vec<oneshot::Receiver<()>>) {
        let mut by_shard = vec![Vec::new(); self.0.shards.len()];
        for room in rooms {
            by_shard[self.0.engines.index_of(&room)].push(room);
        }
        let (mut pins, mut confirmations) = (Vec::new(), Vec::new());
        for (shard, rooms) in self.0.shards.iter().zip(by_shard) {
            if !rooms.is_empty() {
                let (pin, confirmed) = Rooms::want(shard, rooms);
                pins.push(pin);
                confirmations.extend(confirmed);
            }
        }
        (Subscribed { is_confirmed: true, _pins: pins }, confirmations)
    }

    /// Has what is published to these rooms come to this node once it can. They stay subscribed as long as the returned value is kept.
    pub fn want(&self, rooms: Vec<RoomName>) -> Subscribed {
        self.want_each(rooms).0
    }

    /// How many nodes are subscribed to a room.
    pub async fn nodes_in(&self, room: &RoomName) -> Result<u64, BusError> {
        let shard = &self.0.shards[self.0.engines.index_of(room)];
        let mut count = redis::cmd("PUBSUB");
        count.arg("NUMSUB").arg(shard.channel_of_room(room.as_str()));
        Ok(subscribers(&shard.engine.query::<Value>(&count).await?))
    }

    /// Leaves the other nodes: they wait for this one no longer. Nothing is published or received from then on.
    pub async fn leave(&self) {
        join_all(self.0.shards.iter().map(|shard| shard.leave())).await;
        self.0.done.cancel();
        self.0.shards.iter().for_each(|shard| shard.rooms.close_requests());
    }
}
