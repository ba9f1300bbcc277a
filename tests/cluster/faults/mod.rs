//! What becomes of plain emits, devices and presence when the engine or a node fails under load: no complete receipt for what did not arrive, nobody
//! is blocked, and all is right again afterwards.

mod load;
mod nodes;

use std::time::Duration;

use load::{Call, Devices, Heard, Load, check, check_waits};
use nodes::Nodes;
use tokio::sync::{Mutex, MutexGuard};
use tonic::Code;

/// The default.
const LEASE: Duration = Duration::from_secs(5);
/// Longer than a fault lasts, on a slow machine, too.
const LONG_LEASE: Duration = Duration::from_secs(20);
const SHORT_LEASE: Duration = Duration::from_secs(1);
const ALL: [usize; 3] = [0, 1, 2];
/// Answers of each caller that a fault lasts.
const SOME: usize = 3;
/// Answers of each caller before and after it.
const MANY: usize = 30;

/// A user with two devices at different nodes, and one with a device there alone, for each node.
fn users() -> Vec<(String, usize)> {
    let spread =
        ALL.iter().flat_map(|node| [(format!("spread-{node}"), *node), (format!("spread-{node}"), (node + 1) % 3)]);
    spread.chain(ALL.iter().map(|node| (format!("alone-{node}"), *node))).collect()
}

/// How many connections each user has at these nodes.
fn connections(nodes: &[usize]) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for (user, node) in users() {
        let count = usize::from(nodes.contains(&node));
        match counts.iter_mut().find(|(other, _)| *other == user) {
            Some((_, sum)) => *sum += count,
            None => counts.push((user, count)),
        }
    }
    counts
}

fn devices_at(nodes: &[usize]) -> u64 {
    users().iter().filter(|(_, node)| nodes.contains(node)).count().try_into().expect("there are few")
}

/// Nodes, devices and callers before a fault.
struct Scene {
    /// One scene at a time: each has four processes under load.
    _turn: MutexGuard<'static, ()>,
    nodes: Nodes,
    devices: Devices,
    load: Load,
}

impl Scene {
    async fn begin(append_only: bool, lease: Duration) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let nodes = Nodes::start(append_only, lease).await;
        let devices = Devices::connect(&nodes, &users()).await;
        nodes.complete_again(&ALL, "begin", devices_at(&ALL)).await;
        let names: Vec<_> = connections(&ALL).into_iter().map(|(user, _)| user).collect();
        let mut load = Load::start(&nodes, &names).await;
        load.answered(MANY, |_| true).await;
        Self { _turn: turn, nodes, devices, load }
    }

    /// After the fault: receipts and presence are right at these nodes, which are left; then the load ends.
    async fn end(mut self, left: &[usize]) -> (Vec<Call>, Vec<Heard>) {
        self.nodes.complete_again(left, "again", devices_at(left)).await;
        self.nodes.presence_is(left, &connections(left)).await;
        self.load.answered(MANY, |node| left.contains(&node)).await;
        let calls = self.load.stop().await;
        self.nodes.complete_again(&left[..1], "end", devices_at(left)).await;
        (calls, self.devices.heard().await)
    }

    /// The same, where all devices were connected throughout: what complete receipts tell arrived at all of them.
    async fn end_with_all(self) -> Vec<Call> {
        let (calls, heard) = self.end(&ALL).await;
        assert!(heard.iter().all(|device| device.is_whole), "no device lost its connection");
        check(&calls, &heard);
        calls
    }
}

fn count(calls: &[Call], is_meant: impl Fn(&Call) -> bool) -> usize {
    calls.iter().filter(|call| is_meant(call)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fault_every_receipt_is_complete_and_true() {
    let calls = Scene::begin(false, LEASE).await.end_with_all().await;
    assert_eq!(count(&calls, |call| !call.is_complete()), 0, "{:?}", calls.iter().find(|call| !call.is_complete()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_killed_and_restarted_makes_no_receipt_wrong() {
    for append_only in [false, true] {
        let mut scene = Scene::begin(append_only, LEASE).await;
        scene.nodes.redis.kill_9();
        scene.load.answered(SOME, |_| true).await;
        scene.nodes.redis.restart();
        let calls = scene.end_with_all().await;
        check_waits(&calls, &ALL);
        assert!(count(&calls, |call| call.answer.as_ref().err() == Some(&Code::Unavailable)) > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_paused_makes_no_receipt_wrong() {
    let mut scene = Scene::begin(false, LEASE).await;
    scene.nodes.redis.pause();
    scene.load.answered(SOME, |_| true).await;
    scene.nodes.redis.resume();
    let calls = scene.end_with_all().await;
    check_waits(&calls, &ALL);
    assert!(count(&calls, |call| call.answer.as_ref().err() == Some(&Code::Unavailable)) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_the_engine_ends_make_no_receipt_wrong() {
    let mut scene = Scene::begin(false, LEASE).await;
    for _ in 0..SOME {
        scene.nodes.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        scene.load.answered(SOME, |_| true).await;
    }
    scene.end_with_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_the_engine_forgets_make_no_receipt_wrong() {
    let mut scene = Scene::begin(false, LEASE).await;
    scene.nodes.redis.cli(&["FUNCTION", "FLUSH"]);
    scene.load.answered(MANY, |_| true).await;
    scene.end_with_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_leaves_no_ghost_and_makes_no_receipt_wrong() {
    let left = [0, 1];
    let mut scene = Scene::begin(false, LEASE).await;
    scene.nodes.process(2).kill_9();
    scene.load.answered(SOME, |node| left.contains(&node)).await;
    scene.nodes.presence_is(&left, &connections(&left)).await;
    let (calls, heard) = scene.end(&left).await;
    let (whole, lost): (Vec<_>, Vec<_>) = heard.into_iter().partition(|device| device.is_whole);
    assert!(lost.iter().all(|device| device.node == 2) && whole.iter().all(|device| device.node != 2));
    check(&calls, &whole);
    check_waits(&calls, &left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_paused_for_less_than_its_lease_makes_no_receipt_wrong() {
    let mut scene = Scene::begin(false, LONG_LEASE).await;
    scene.nodes.process(2).pause();
    scene.load.answered(SOME, |node| node != 2).await;
    scene.nodes.process(2).resume();
    let calls = scene.end_with_all().await;
    check_waits(&calls, &[0, 1]);
    assert!(count(&calls, |call| call.answer.as_ref().is_ok_and(|receipt| receipt.partial)) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_paused_for_longer_is_not_counted_until_it_runs_on() {
    let left = [0, 1];
    let mut scene = Scene::begin(false, SHORT_LEASE).await;
    scene.nodes.process(2).pause();
    scene.nodes.complete_again(&left, "without", devices_at(&left)).await;
    scene.nodes.presence_is(&left, &connections(&left)).await;
    scene.nodes.process(2).resume();
    let (calls, heard) = scene.end(&ALL).await;
    assert!(heard.iter().all(|device| device.is_whole), "its devices stay");
    let heard: Vec<_> = heard.into_iter().filter(|device| device.node != 2).collect();
    check(&calls, &heard);
    check_waits(&calls, &left);
}
