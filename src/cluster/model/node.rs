//! A process: it runs the bus as the server does, and can stand still or end at any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    checks::Log,
    memory::Memory,
    wire::{Dialer, Shared},
};
use crate::cluster::{Answer, Cluster, Config, Counts, EmitFrame, Frame, Kept, Node, Received, Shards};
use crate::message::RoomName;

pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) const DEADLINE: Duration = Duration::from_millis(500);
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
pub(super) const LEASE: Duration = Duration::from_secs(5);
pub(super) const LINGER: Duration = Duration::from_secs(2);

pub(super) fn config(node: usize) -> Config {
    Config {
        redis: Vec::new(),
        prefix: "p".to_owned(),
        node: format!("node{node}"),
        deadline: DEADLINE,
        heartbeat: HEARTBEAT,
        lease: LEASE,
        linger: LINGER,
        waiting: 64 << 20,
    }
}

/// Executes frames: as delivery, in memory.
pub(super) struct Local {
    /// The connections in each room.
    pub(super) rooms: Mutex<BTreeMap<RoomName, BTreeSet<usize>>>,
    pub(super) process: u64,
    pub(super) began: Instant,
    pub(super) is_serving: AtomicBool,
    /// Since when it runs without having stood still.
    pub(super) runs_since: Mutex<Instant>,
    log: Shared<Log>,
}

impl Node for Local {
    fn receive(&self, received: Received) {
        let Frame::Emit(frame) = received.frame else { panic!("an emit") };
        let EmitFrame { id, emit, .. } = *frame;
        let room = emit.audience.room();
        let connections = self.rooms.lock().get(room).cloned().unwrap_or_default();
        let matched = connections.len() as u64;
        self.log.lock().executed(self.process, room, id, &connections);
        let counts = Counts { matched, enqueued: matched, ..Counts::default() };
        received.responder.answer(Answer::Counts(counts));
    }

    fn missed_change(&self, _: &RoomName, _: u64) {}

    fn missed_message(&self, _: &RoomName, _: Kept) {}

    fn given_up(&self, _: &RoomName) {}

    fn is_occupied(&self, room: &RoomName) -> bool {
        self.rooms.lock().contains_key(room)
    }

    fn recovered(&self, _: usize, _: bool) {}
}

pub(super) struct Process {
    pub(super) cluster: Cluster,
    pub(super) local: Arc<Local>,
    tasks: mpsc::UnboundedSender<Task>,
    is_paused: watch::Sender<bool>,
    runner: AbortHandle,
}

impl Process {
    pub(super) fn start(memory: &Memory, node: usize, process: u64, log: &Shared<Log>) -> Self {
        let (tasks, new) = mpsc::unbounded_channel();
        let (is_paused, paused) = watch::channel(false);
        #[expect(clippy::disallowed_methods, reason = "a process that a test kills")]
        let runner = tokio::spawn(run(new, paused)).abort_handle();
        let config = config(node);
        let dialer = Dialer { memory: memory.clone(), node, tasks: tasks.clone() };
        let cluster = Cluster::over(&config, Shards::in_memory(&config, dialer));
        let local = Arc::new(Local {
            rooms: Mutex::default(),
            process,
            began: Instant::now(),
            is_serving: AtomicBool::new(false),
            runs_since: Instant::now().into(),
            log: log.clone(),
        });
        let started = Self { cluster, local, tasks, is_paused, runner };
        started.run(started.starting(memory.clone(), node, log.clone()));
        started
    }

    fn starting(&self, memory: Memory, number: usize, log: Shared<Log>) -> impl Future<Output = ()> + use<> {
        let (cluster, local, tasks) = (self.cluster.clone(), self.local.clone(), self.tasks.clone());
        async move {
            let node: Arc<dyn Node> = local.clone();
            let vital = |name: &'static str, task: Task| {
                let log = log.clone();
                let task: Task = Box::pin(async move {
                    task.await;
                    log.lock().violation(format!("{name} has ended"));
                });
                tasks.send(task).unwrap();
            };
            match cluster.start_on(&node, &vital).await {
                Ok(()) => {
                    let is_counted = cluster.shards()[0].is_counted();
                    memory.state.lock().serves(number, is_counted);
                    local.is_serving.store(true, Ordering::Relaxed);
                }
                Err(error) => log.lock().violation(format!("a node has not started: {error}")),
            }
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        self.local.is_serving.load(Ordering::Relaxed)
    }

    /// Runs something as a part of the process.
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.send(Box::pin(task)).unwrap();
    }

    pub(super) fn pause(&self) {
        self.is_paused.send_replace(true);
    }

    pub(super) fn resume(&self) {
        if self.is_paused.send_replace(false) {
            *self.local.runs_since.lock() = Instant::now();
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        *self.is_paused.borrow()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.runner.abort();
    }
}

async fn run(mut new: mpsc::UnboundedReceiver<Task>, mut is_paused: watch::Receiver<bool>) {
    let mut tasks = FuturesUnordered::new();
    loop {
        if is_paused.wait_for(|is_paused| !is_paused).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            _ = is_paused.changed() => {}
            Some(task) = new.recv() => tasks.push(task),
            Some(()) = tasks.next() => {}
        }
    }
}
