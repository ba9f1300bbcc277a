//! Joins while the engine refuses commands, and when their node leaves.

use std::{pin::pin, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    checks::{Log, MAX_JOIN},
    memory::Memory,
    node::{DEADLINE, Process},
    wire::Shared,
};
use crate::message::RoomName;

/// A node that is ready, and its engine.
async fn start() -> (Memory, Process) {
    let (memory, log) = (Memory::new(), Shared::<Log>::default());
    let process = Process::start(&memory, 0, 1, &log);
    timeout(Duration::from_mins(1), process.cluster.ready()).await.expect("the node is ready");
    (memory, process)
}

fn rooms(name: &str) -> Vec<RoomName> {
    vec![RoomName::new(name).unwrap()]
}

/// A node loses its subscriptions, and the engine refuses this command from then on: joins wait for a while only.
async fn joins_go_on_though_the_engine_refuses(command: &'static str) {
    let (memory, process) = start().await;
    memory.state.lock().refuses = Some(command);
    memory.state.lock().lose_subscriptions(0);
    // The node hears of it.
    sleep(DEADLINE).await;
    for name in ["waits", "comes.later"] {
        let joined = timeout(MAX_JOIN, process.cluster.subscribe(rooms(name))).await;
        let joined = joined.expect("a join does not wait for ever");
        assert!(!joined.is_confirmed());
    }
    memory.state.lock().refuses = None;
    timeout(MAX_JOIN, process.cluster.ready()).await.expect("the node is ready again");
    assert!(process.cluster.subscribe(rooms("confirmed")).await.is_confirmed());
}

#[tokio::test(start_paused = true)]
async fn joins_do_not_wait_for_ever_while_the_engine_refuses_writes_only() {
    joins_go_on_though_the_engine_refuses("FCALL").await;
}

#[tokio::test(start_paused = true)]
async fn joins_do_not_wait_for_ever_while_the_engine_refuses_subscriptions_only() {
    joins_go_on_though_the_engine_refuses("SUBSCRIBE").await;
}

#[tokio::test(start_paused = true)]
async fn joins_end_when_their_node_leaves_while_the_engine_is_away() {
    let (memory, process) = start().await;
    memory.state.lock().crash(true);
    // The node hears of it.
    sleep(DEADLINE).await;
    let mut waiting = pin!(process.cluster.subscribe(rooms("waits")));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    process.cluster.leave().await;
    let later = process.cluster.subscribe(rooms("comes.later"));
    let ended = timeout(DEADLINE, async { tokio::join!(waiting, later) }).await;
    let (waited, later) = ended.expect("a join does not wait for a node that has left");
    assert!(!waited.is_confirmed() && !later.is_confirmed());
}
