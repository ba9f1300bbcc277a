//! How each fault strikes.

use std::time::Duration;

use tokio::{
    task::block_in_place,
    time::{Instant, interval, timeout},
};

use super::{
    ALL, Fault, LAST, Scene, database,
    network::{Cut, Network},
    presence::Answer,
};
use crate::harness::{Device, deadline, raw_http, token};

/// The others are hit by nothing.
const OTHERS: [usize; 2] = [0, 1];
/// Messages of histories that a replica has not.
const BEHIND: usize = 40;

impl Fault {
    /// Does it, and returns when it is over.
    pub(super) async fn strike(self, scene: &mut Scene) {
        match self {
            Self::Nothing => {}
            Self::EngineKilled | Self::EngineKilledKeepsData => kill_engine(scene).await,
            Self::EnginePaused => pause_engine(scene).await,
            Self::SubscriptionsKilled => kill_subscriptions(scene).await,
            Self::FunctionsFlushed => flush_functions(scene).await,
            Self::FailOver => {
                scene.begins();
                fail_over(scene).await;
            }
            Self::FailOverBehind => fail_over_behind(scene).await,
            Self::NodeKilled => kill_node(scene).await,
            Self::NodePaused => pause_node(scene).await,
            Self::NodePausedForLong => pause_node_for_long(scene).await,
            Self::Dropped => cut(scene, Cut::Drop).await,
            Self::Rejected => cut(scene, Cut::Reject).await,
            Self::Slow => slow(scene).await,
            Self::SlowerThanDeadline => slower_than_deadline(scene).await,
            Self::SameName => same_name(scene).await,
            Self::NameTaken => take_name(scene).await,
            Self::ClockAhead => set_clock(scene, 5).await,
            Self::ClockBehind => set_clock(scene, -5).await,
            Self::OtherVersion => add_other_version(scene).await,
            Self::DatabaseKilled => database::kill(scene).await,
            Self::DatabaseRestarted => database::restart(scene).await,
            Self::DatabaseHangs => database::hang(scene).await,
        }
    }
}

async fn kill_engine(scene: &mut Scene) {
    scene.begins();
    scene.nodes.redis.kill_9();
    scene.churn(&ALL, &ALL);
    scene.lasts(Duration::from_secs(2), &ALL).await;
    block_in_place(|| scene.nodes.redis.restart());
    scene.ends().await;
}

async fn pause_engine(scene: &mut Scene) {
    scene.begins();
    scene.nodes.redis.pause();
    scene.churn(&ALL, &ALL);
    scene.lasts(Duration::from_secs(20), &ALL).await;
    scene.nodes.redis.resume();
    scene.ends().await;
}

async fn kill_subscriptions(scene: &mut Scene) {
    scene.begins();
    scene.churn(&ALL, &ALL);
    for time in 1..=3 {
        block_in_place(|| scene.nodes.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]));
        scene.ends().await;
        scene.lasts(Duration::from_millis(500 * time), &ALL).await;
    }
}

async fn flush_functions(scene: &mut Scene) {
    scene.begins();
    block_in_place(|| scene.nodes.redis.cli(&["FUNCTION", "FLUSH"]));
    scene.churn(&ALL, &ALL);
    scene.ends().await;
    scene.lasts(Duration::from_secs(2), &ALL).await;
}

async fn fail_over(scene: &mut Scene) {
    scene.nodes.redis.kill_9();
    scene.churn(&ALL, &ALL);
    let (replica, sentinel) = scene.nodes.replica.as_ref().expect("the plan has them");
    sentinel.names(replica).await;
    scene.ends().await;
}

/// The replica has not what came last: it is cut off, and a Sentinel takes it all the same.
async fn fail_over_behind(scene: &mut Scene) {
    scene.begins();
    block_in_place(|| {
        scene.nodes.redis.cli(&["ACL", "SETUSER", "default", "-sync", "-psync"]);
        scene.nodes.redis.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    });
    scene.lasts(Duration::from_secs(2), &ALL).await;
    scene.kept.accepted_in_histories(BEHIND).await;
    fail_over(scene).await;
}

async fn kill_node(scene: &mut Scene) {
    scene.begins();
    scene.nodes.process(LAST).kill_9();
    scene.lose(LAST);
    scene.was_unreachable(LAST, None);
    scene.churn(&OTHERS, &OTHERS);
    scene.left = OTHERS.to_vec();
    // Its lease goes on for a while.
    scene.ends_with(Answer::MayBePartial).await;
    scene.without_others(&OTHERS).await;
}

async fn pause_node(scene: &mut Scene) {
    scene.begins();
    scene.nodes.process(LAST).pause();
    scene.churn(&ALL, &OTHERS);
    scene.lasts(Duration::from_secs(3), &OTHERS).await;
    scene.nodes.process(LAST).resume();
    scene.was_unreachable(LAST, Some(Instant::now()));
    scene.ends().await;
}

async fn pause_node_for_long(scene: &mut Scene) {
    scene.begins();
    scene.nodes.process(LAST).pause();
    scene.churn(&ALL, &OTHERS);
    scene.without_others(&OTHERS).await;
    scene.lasts(Duration::from_secs(20), &OTHERS).await;
    scene.nodes.process(LAST).resume();
    scene.was_unreachable(LAST, Some(Instant::now()));
    scene.ends().await;
    scene.timeline.uncounted.push(LAST);
}

async fn cut(scene: &mut Scene, cut: Cut) {
    let port = scene.nodes.redis.address().port();
    scene.begins();
    block_in_place(|| network(scene).cut(cut, port));
    scene.churn(&ALL, &ALL);
    scene.without_others(&OTHERS).await;
    scene.lasts(Duration::from_secs(10), &ALL).await;
    block_in_place(|| network(scene).heal());
    scene.ends().await;
    scene.timeline.uncounted.push(LAST);
}

fn network(scene: &Scene) -> &Network {
    scene.nodes.network.as_ref().expect("the plan has one")
}

async fn slow(scene: &mut Scene) {
    scene.begins();
    set_delay(scene, Duration::from_millis(100));
    scene.churn(&ALL, &ALL);
    scene.lasts(Duration::from_secs(5), &ALL).await;
    set_delay(scene, Duration::ZERO);
    scene.ends().await;
}

async fn slower_than_deadline(scene: &mut Scene) {
    scene.begins();
    set_delay(scene, Duration::from_millis(400));
    scene.churn(&ALL, &ALL);
    scene.without_others(&OTHERS).await;
    scene.lasts(Duration::from_secs(10), &ALL).await;
    set_delay(scene, Duration::ZERO);
    scene.ends().await;
    scene.timeline.uncounted.push(LAST);
}

fn set_delay(scene: &Scene, delay: Duration) {
    scene.nodes.proxy.as_ref().expect("the plan has one").set_delay(delay);
}

async fn same_name(scene: &mut Scene) {
    scene.begins();
    scene.churn(&ALL, &ALL);
    match scene.nodes.launch(LAST, None) {
        Ok(_) => scene.timeline.problems.push("a second node of one name serves".to_owned()),
        Err(logged) if !logged.contains("cluster.node") => scene.timeline.problems.push(logged),
        Err(_) => {}
    }
    scene.ends().await;
}

/// The second process takes the place of the first, which ends when it runs again.
async fn take_name(scene: &mut Scene) {
    scene.begins();
    scene.nodes.process(LAST).pause();
    scene.churn(&OTHERS, &OTHERS);
    scene.lose(LAST);
    scene.without_others(&OTHERS).await;
    let second = scene.nodes.launch(LAST, None).expect("the name is free");
    scene.nodes.process(LAST).resume();
    if scene.nodes.process(LAST).ended().await {
        scene.timeline.problems.push("a node whose name was taken ends well".to_owned());
    }
    scene.nodes.replace(LAST, second).await;
    scene.was_unreachable(LAST, Some(Instant::now()));
    scene.ends().await;
    scene.load.call(LAST, &scene.nodes);
    scene.kept.place(LAST, &scene.nodes);
}

async fn set_clock(scene: &mut Scene, seconds: i32) {
    scene.begins();
    scene.churn(&ALL, &ALL);
    scene.nodes.clock.as_ref().expect("the plan has one").set(seconds);
    let admin = scene.nodes.process(LAST).admin;
    // The node tells how far it is off from the engine.
    let is_off = async {
        let mut pauses = interval(Duration::from_millis(50));
        loop {
            pauses.tick().await;
            let metrics = raw_http(admin, "GET /metrics HTTP/1.0\r\n\r\n").await;
            let metrics = String::from_utf8_lossy(&metrics);
            let skew = metrics.lines().find_map(|line| line.strip_prefix("bugle_clock_skew_seconds "));
            let skew: f64 = skew.and_then(|skew| skew.parse().ok()).unwrap_or_default();
            // The engine is behind a node that is ahead.
            if (skew + f64::from(seconds)).abs() < 0.5 {
                return;
            }
        }
    };
    deadline("the clock to be off", is_off).await;
    scene.ends().await;
    scene.lasts(Duration::from_secs(8), &ALL).await;
}

async fn add_other_version(scene: &mut Scene) {
    scene.begins();
    let program = scene.nodes.other_version.clone();
    let stranger = scene.nodes.launch(ALL.len(), program).expect("the node starts");
    scene.churn(&ALL, &ALL);
    let device = Device::builder(stranger.clients).token(token("stranger")).connect().await;
    let _device = device.expect("the device connects");
    let backend = stranger.backend().await;
    let sent = timeout(Duration::from_secs(5), backend.broadcast("e", "0")).await;
    let sent = sent.expect("it is answered");
    if !sent.partial || sent.matched > 1 {
        scene.timeline.problems.push(format!("a node of another version has an answer to {sent:?}"));
    }
    scene.lasts(Duration::from_secs(4), &ALL).await;
    if !stranger.stop().await.is_good {
        scene.timeline.problems.push("the node of another version does not end well".to_owned());
    }
    scene.ends().await;
}
