//! More than a thousand emits a second to users, a room and everyone, through all nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bugle::proto::v1::Receipt;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::nodes::{Nodes, ROOM, to_all};
use crate::harness::{Backend, to_room, to_user};

/// Emits a second, unless too many are without an answer.
pub const RATE: u32 = 1_150;
const TICK: Duration = Duration::from_millis(3);
/// What was not emitted for longer than this is not made up for.
const MAX_OWED: Duration = Duration::from_millis(100);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

/// Whom an emit is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    User(String),
    Room,
    Everyone,
}

impl Audience {
    /// Whether a device of this user belongs to it: all devices are in the room.
    pub fn has(&self, user: &str) -> bool {
        match self {
            Self::User(id) => id == user,
            Self::Room | Self::Everyone => true,
        }
    }
}

/// A call and its answer.
#[derive(Debug)]
pub struct Call {
    /// The node that was called.
    pub node: usize,
    /// Its payload, which no other call has.
    pub number: usize,
    pub audience: Audience,
    pub begun: Instant,
    pub answered: Instant,
    pub answer: Result<Receipt, Code>,
}

impl Call {
    /// Its receipt, if that says that all nodes have counted.
    pub fn complete(&self) -> Option<&Receipt> {
        self.answer.as_ref().ok().filter(|receipt| !receipt.partial)
    }

    pub fn is_partial(&self) -> bool {
        self.answer.as_ref().is_ok_and(|receipt| receipt.partial)
    }

    pub fn took(&self) -> Duration {
        self.answered - self.begun
    }
}

/// Emits under way. They are begun by the clock and not by the answers to others: a fault does not slow them down.
pub struct Load {
    pacer: JoinSet<Vec<Call>>,
    answers: watch::Sender<Answers>,
    targets: Arc<Vec<Target>>,
    stop: CancellationToken,
}

/// How many calls each node has answered that began after some time.
struct Answers {
    since: Instant,
    counts: Vec<usize>,
}

/// A node that is called.
struct Target {
    backend: Mutex<Backend>,
    is_called: AtomicBool,
    /// How many more calls may be without an answer.
    free: Arc<Semaphore>,
}

impl Load {
    /// Emits through all nodes to these users, the room and everyone in turn. At most so many calls of one node are without an answer.
    pub fn start(nodes: &Nodes, users: Vec<String>, in_flight: usize) -> Self {
        let targets = nodes.backends().iter().map(|backend| Target {
            backend: Mutex::new(backend.clone()),
            is_called: AtomicBool::new(true),
            free: Arc::new(Semaphore::new(in_flight)),
        });
        let targets = Arc::new(targets.collect::<Vec<_>>());
        let answers = watch::Sender::new(Answers { since: Instant::now(), counts: vec![0; targets.len()] });
        let stop = CancellationToken::new();
        let mut pacer = JoinSet::new();
        pacer.spawn(pace(targets.clone(), users, answers.clone(), stop.clone()));
        Self { pacer, answers, targets, stop }
    }

    /// No longer calls a node, which has ended.
    pub fn leave_out(&self, node: usize) {
        self.targets[node].is_called.store(false, Ordering::Relaxed);
    }

    /// Calls a node again, which is another process.
    pub fn call(&self, node: usize, nodes: &Nodes) {
        *self.targets[node].backend.lock() = nodes.backends()[node].clone();
        self.targets[node].is_called.store(true, Ordering::Relaxed);
    }

    /// Waits until these nodes have answered this number of calls that begin now, each of them its share: no node is blocked.
    pub async fn answered(&self, more: usize, nodes: &[usize]) {
        let mut answers = self.answers.subscribe();
        self.answers.send_modify(|answers| {
            answers.since = Instant::now();
            answers.counts.fill(0);
        });
        let are_answered = |answers: &Answers| nodes.iter().all(|node| answers.counts[*node] >= more / nodes.len());
        let enough = timeout(LONG, answers.wait_for(are_answered)).await;
        assert!(enough.is_ok(), "nodes {nodes:?} did not answer {more} calls within {LONG:?}");
    }

    /// What was answered in all.
    pub async fn stop(mut self) -> Vec<Call> {
        self.stop.cancel();
        let ended = timeout(LONG, self.pacer.join_next()).await.expect("all calls end");
        ended.expect("there is a pacer").expect("it does not panic")
    }
}

async fn pace(
    targets: Arc<Vec<Target>>,
    users: Vec<String>,
    answers: watch::Sender<Answers>,
    stop: CancellationToken,
) -> Vec<Call> {
    let period = Duration::from_secs(1) / RATE;
    let (mut calls, mut done) = (JoinSet::new(), Vec::new());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut owed, mut number) = (Instant::now(), Duration::ZERO, 0);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let now = Instant::now();
        owed = (owed + (now - last)).min(MAX_OWED);
        last = now;
        while owed >= period {
            owed -= period;
            let Some((node, permit)) = next(&targets, number) else { break };
            let audience = match number / targets.len() % 3 {
                0 => Audience::User(users[number % users.len()].clone()),
                1 => Audience::Room,
                _ => Audience::Everyone,
            };
            calls.spawn(call(targets[node].backend.lock().clone(), node, number, audience, permit));
            number += 1;
        }
        while let Some(call) = calls.try_join_next() {
            note(call, &answers, &mut done);
        }
    }
    while let Some(call) = calls.join_next().await {
        note(call, &answers, &mut done);
    }
    done
}

fn note(call: Result<Call, tokio::task::JoinError>, answers: &watch::Sender<Answers>, done: &mut Vec<Call>) {
    let call = call.expect("a call does not panic");
    answers.send_if_modified(|answers| {
        let counts = call.begun >= answers.since;
        answers.counts[call.node] += usize::from(counts);
        counts
    });
    done.push(call);
}

/// The next node in turn that may be called.
fn next(targets: &[Target], number: usize) -> Option<(usize, OwnedSemaphorePermit)> {
    (0..targets.len()).map(|more| (number + more) % targets.len()).find_map(|node| {
        let target = &targets[node];
        let permit = target.free.clone().try_acquire_owned().ok();
        permit.filter(|_| target.is_called.load(Ordering::Relaxed)).map(|permit| (node, permit))
    })
}

async fn call(backend: Backend, node: usize, number: usize, audience: Audience, _permit: OwnedSemaphorePermit) -> Call {
    let mut notify = backend.notify();
    let json = number.to_string();
    let begun = Instant::now();
    let answer = async {
        match &audience {
            Audience::User(user) => notify.emit_to_user(to_user(user, "e", &json)).await?.into_inner().receipt,
            Audience::Room => notify.emit_to_room(to_room(ROOM, "e", &json)).await?.into_inner().receipt,
            Audience::Everyone => notify.broadcast(to_all("e", &json)).await?.into_inner().receipt,
        }
        .ok_or_else(|| tonic::Status::internal("no receipt"))
    };
    let answer = answer.await.map_err(|status| status.code());
    Call { node, number, audience, begun, answered: Instant::now(), answer }
}
