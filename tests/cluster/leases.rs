//! Leases of nodes at the engine.

use std::time::Duration;

use tokio::time::timeout;

use crate::harness::{TestRedis, TestServer, eventually_within};

pub const PREFIX: &str = "test";
const LEASE: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Longer than any lease here, also where the machine is busy.
const PATIENCE: Duration = Duration::from_mins(1);

pub async fn start(redis: &TestRedis) -> TestServer {
    start_with(redis, Duration::from_secs(1)).await
}

async fn start_with(redis: &TestRedis, lease: Duration) -> TestServer {
    TestServer::start_with(|config| {
        config.cluster.redis = vec![redis.url().into()];
        PREFIX.clone_into(&mut config.cluster.prefix);
        (config.cluster.lease, config.cluster.heartbeat) = (lease, HEARTBEAT);
    })
    .await
}

fn peers(redis: &TestRedis) -> Vec<String> {
    redis.cli(&["ZRANGE", &format!("{PREFIX}:peers"), "0", "-1"]).lines().map(str::to_owned).collect()
}

fn of_generation(redis: &TestRedis, field: &str) -> String {
    redis.cli(&["HGET", &format!("{PREFIX}:engine"), field])
}

async fn complete_receipt(server: &TestServer) {
    let backend = server.backend().await;
    let complete = async { while backend.emit_to_user("42", "plain", "1").await.partial {} };
    timeout(PATIENCE, Box::pin(complete)).await.expect("a receipt is complete");
}

/// Waits until all leases have been renewed twice.
pub async fn renewals(redis: &TestRedis) {
    let first_end = || {
        let first = redis.cli(&["ZRANGE", &format!("{PREFIX}:peers"), "0", "0", "WITHSCORES"]);
        first.lines().nth(1).expect("there are peers").parse::<f64>().expect("a time")
    };
    for _ in 0..2 {
        let before = first_end();
        eventually_within(PATIENCE, "the leases to be renewed", async || first_end() > before).await;
    }
}

#[tokio::test]
async fn an_entry_of_a_lease_that_is_none_of_ours_makes_receipts_partial_until_its_lease_is_over() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    redis.cli(&["ZADD", &format!("{PREFIX}:peers"), "1", "stranger"]);
    redis.cli(&["HSET", &format!("{PREFIX}:peer"), "other", "no peer"]);
    redis.cli(&["ZADD", &format!("{PREFIX}:peers"), "1", "other"]);
    renewals(&redis).await;
    complete_receipt(&server).await;
    assert_eq!(peers(&redis).len(), crate::NODES);
}

#[tokio::test]
async fn a_node_whose_lease_has_ended_at_an_engine_that_went_on_leaves_the_engine_s_generation_as_it_is() {
    let redis = TestRedis::start(false);
    let server = start_with(&redis, LEASE).await;
    let before = of_generation(&redis, "name");
    let incarnation = peers(&redis).remove(0);
    redis.cli(&["ZADD", &format!("{PREFIX}:peers"), "1", &incarnation]);
    let is_back = async || peers(&redis).len() == crate::NODES && !peers(&redis).contains(&incarnation);
    eventually_within(PATIENCE, "the node to have another lease", is_back).await;
    complete_receipt(&server).await;
    assert_eq!(of_generation(&redis, "name"), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_are_complete_once_all_nodes_are_back_after_the_engine_stood_still() {
    let redis = TestRedis::start(false);
    let server = start_with(&redis, LEASE).await;
    let milliseconds = |field| of_generation(&redis, field).parse::<u128>().unwrap_or_default();
    let knows_all = async || milliseconds("renewed") >= milliseconds("heard") + (LEASE + HEARTBEAT).as_millis();
    eventually_within(PATIENCE, "the engine to know all nodes", knows_all).await;
    // For longer than half of a lease.
    redis.cli(&["CLIENT", "PAUSE", "3000", "ALL"]);
    eventually_within(PATIENCE, "the generation to end", async || of_generation(&redis, "stood_still") == "1").await;
    let backend = server.backend().await;
    // The generation does not get so old that it has settled by itself.
    let begin_now = "redis.call('HSET', KEYS[1], 'since', redis.call('TIME')[1] * 1000)";
    let complete = async {
        while backend.emit_to_user("42", "plain", "1").await.partial {
            redis.cli(&["EVAL", begin_now, "1", &format!("{PREFIX}:engine")]);
        }
    };
    timeout(PATIENCE, Box::pin(complete)).await.expect("a receipt is complete");
}

#[tokio::test]
async fn a_node_has_a_lease_beside_those_of_a_version_that_notes_less_of_the_generation() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    redis.cli(&["HDEL", &format!("{PREFIX}:engine"), "whole", "heard"]);
    renewals(&redis).await;
    complete_receipt(&server).await;
}
