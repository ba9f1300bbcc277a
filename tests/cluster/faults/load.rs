//! Emits to users, a room and everyone from several callers, and devices that note what arrives.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bugle::proto::v1::Receipt;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::nodes::{Nodes, ROOM};
use crate::harness::{Backend, Device, PATIENCE, deadline, to_everyone, to_room, to_user};

/// How many callers each node has.
const CALLERS: usize = 2;
/// How often a caller emits: all of them a thousand times a second, unless they wait for answers.
const PERIOD: Duration = Duration::from_millis(6);
/// Longer than a test.
const LONG: Duration = Duration::from_mins(5);

/// Whom an emit is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    User(String),
    Room,
    Everyone,
}

impl Audience {
    /// All devices are in the room.
    fn has(&self, user: &str) -> bool {
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
    /// Its payload: later calls of the same caller have higher ones.
    pub number: usize,
    pub audience: Audience,
    pub answer: Result<Receipt, Code>,
    pub took: Duration,
}

impl Call {
    /// Whether it says that all nodes have counted.
    pub fn is_complete(&self) -> bool {
        self.answer.as_ref().is_ok_and(|receipt| !receipt.partial)
    }
}

/// Callers at work.
pub struct Load {
    callers: JoinSet<Vec<Call>>,
    /// How many answers each caller has.
    answers: Vec<watch::Receiver<usize>>,
    /// The node that each of them calls.
    nodes: Vec<usize>,
    stop: CancellationToken,
}

impl Load {
    /// Callers of each of these nodes, who emit to these users, the room and everyone in turn.
    pub async fn start(nodes: &Nodes, users: &[String]) -> Self {
        let stop = CancellationToken::new();
        let mut load = Self { callers: JoinSet::new(), answers: Vec::new(), nodes: Vec::new(), stop };
        let count = CALLERS * nodes.backends().len();
        for caller in 0..count {
            let node = caller % nodes.backends().len();
            let (answered, answers) = watch::channel(0);
            load.answers.push(answers);
            load.nodes.push(node);
            let (backend, users, stop) = (nodes.backends()[node].clone(), users.to_vec(), load.stop.clone());
            load.callers.spawn(async move {
                let mut calls = Vec::new();
                let mut ticks = interval(PERIOD);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !stop.is_cancelled() {
                    ticks.tick().await;
                    let round = calls.len();
                    let audience = match round % 3 {
                        0 => Audience::User(users[(round / 3 + caller) % users.len()].clone()),
                        1 => Audience::Room,
                        _ => Audience::Everyone,
                    };
                    calls.push(call(&backend, node, round * count + caller, audience).await);
                    answered.send_replace(calls.len());
                }
                calls
            });
        }
        load.answered(10, |_| true).await;
        load
    }

    /// Waits until each caller of these nodes has so many more answers, whatever they are: nobody is blocked.
    pub async fn answered(&mut self, more: usize, is_meant: impl Fn(usize) -> bool) {
        for (answers, node) in self.answers.iter_mut().zip(&self.nodes) {
            if is_meant(*node) {
                let wanted = *answers.borrow() + more;
                let enough = deadline("answers to a caller", answers.wait_for(|count| *count >= wanted));
                enough.await.expect("the caller is at work");
            }
        }
    }

    /// What was answered in all.
    pub async fn stop(self) -> Vec<Call> {
        self.stop.cancel();
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}

async fn call(backend: &Backend, node: usize, number: usize, audience: Audience) -> Call {
    let mut notify = backend.notify();
    let json = number.to_string();
    let begun = Instant::now();
    let answer = async {
        match &audience {
            Audience::User(user) => notify.emit_to_user(to_user(user, "e", &json)).await?.into_inner().receipt,
            Audience::Room => notify.emit_to_room(to_room(ROOM, "e", &json)).await?.into_inner().receipt,
            Audience::Everyone => notify.broadcast(to_everyone("e", &json)).await?.into_inner().receipt,
        }
        .ok_or_else(|| tonic::Status::internal("no receipt"))
    };
    let answer = answer.await.map_err(|status| status.code());
    Call { node, number, audience, answer, took: begun.elapsed() }
}

/// Devices that note what arrives until they hear the end.
pub struct Devices(JoinSet<Heard>);

/// What a device was sent.
#[derive(Debug)]
pub struct Heard {
    pub user: String,
    pub node: usize,
    numbers: Vec<usize>,
    /// Whether it heard the end: it was connected throughout.
    pub is_whole: bool,
}

impl Devices {
    /// A device for each of these users, at a node.
    pub async fn connect(nodes: &Nodes, users: &[(String, usize)]) -> Self {
        let mut devices = JoinSet::new();
        for (user, node) in users {
            let device = nodes.connect(*node, user).await;
            devices.spawn(hear(device, user.clone(), *node));
        }
        Self(devices)
    }

    /// What each of them has heard when it has heard the end, or its connection is lost.
    pub async fn heard(self) -> Vec<Heard> {
        deadline("the end at all devices", self.0.join_all()).await
    }
}

async fn hear(mut device: Device, user: String, node: usize) -> Heard {
    let mut numbers = Vec::new();
    while let Some(event) = device.try_next(LONG).await {
        match event.name.as_str() {
            "e" => numbers.push(event.json().parse().expect("a number")),
            "end" => return Heard { user, node, numbers, is_whole: true },
            _ => {}
        }
    }
    Heard { user, node, numbers, is_whole: false }
}

/// Checks that what a complete receipt tells did arrive at each of these devices, and nothing twice or out of order.
pub fn check(calls: &[Call], heard: &[Heard]) {
    let audiences: HashMap<_, _> = calls.iter().map(|call| (call.number, &call.audience)).collect();
    for device in heard {
        let numbers: HashSet<_> = device.numbers.iter().copied().collect();
        assert_eq!(numbers.len(), device.numbers.len(), "{}: an event came twice", device.user);
        check_order(device, &audiences);
        let missing: Vec<_> = calls
            .iter()
            .filter(|call| call.is_complete() && call.audience.has(&device.user) && !numbers.contains(&call.number))
            .collect();
        let complete = calls.iter().filter(|call| call.is_complete()).count();
        assert!(
            missing.is_empty(),
            "{} at node {}: {} of {complete} complete receipts are wrong, the first is {:?}",
            device.user,
            device.node,
            missing.len(),
            missing[0],
        );
    }
}

/// Checks that no caller of these nodes waited for long: not for the end of a fault, which may take as long as it likes.
pub fn check_waits(calls: &[Call], nodes: &[usize]) {
    let of_nodes = calls.iter().filter(|call| nodes.contains(&call.node));
    let slowest = of_nodes.max_by_key(|call| call.took).expect("there are calls");
    assert!(slowest.took < PATIENCE, "{slowest:?}");
}

/// Callers wait for each answer before they go on, so what one of them sends to one audience arrives in its order.
fn check_order(device: &Heard, audiences: &HashMap<usize, &Audience>) {
    let mut last = HashMap::new();
    for number in &device.numbers {
        let caller = number % (CALLERS * crate::NODES);
        let before = last.insert((caller, audiences.get(number)), *number);
        assert!(before.is_none_or(|before| before < *number), "{}: {number} came after {before:?}", device.user);
    }
}
