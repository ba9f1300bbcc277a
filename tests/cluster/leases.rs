//! Leases of nodes at the engine.

use std::time::Duration;

use crate::harness::{TestRedis, TestServer, deadline};

pub const PREFIX: &str = "test";
const LEASE: Duration = Duration::from_secs(5);

pub async fn start(redis: &TestRedis) -> TestServer {
    start_with(redis, Duration::from_secs(1)).await
}

async fn start_with(redis: &TestRedis, lease: Duration) -> TestServer {
    TestServer::start_with(|config| {
        config.cluster.redis = vec![redis.url().into()];
        PREFIX.clone_into(&mut config.cluster.prefix);
        (config.cluster.lease, config.cluster.heartbeat) = (lease, Duration::from_millis(200));
    })
    .await
}

fn peers(redis: &TestRedis) -> Vec<String> {
    redis.cli(&["ZRANGE", &format!("{PREFIX}:peers"), "0", "-1"]).lines().map(str::to_owned).collect()
}

fn of_generation(redis: &TestRedis, field: &str) -> String {
    redis.cli(&["HGET", &format!("{PREFIX}:engine"), field])
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    deadline(what, waiting).await;
}

async fn complete_receipt(server: &TestServer) {
    let backend = server.backend().await;
    let complete = async { while backend.emit_to_user("42", "plain", "1").await.partial {} };
    deadline("a complete receipt", Box::pin(complete)).await;
}

/// Waits until all leases have been renewed twice.
pub async fn renewals(redis: &TestRedis) {
    let first_end = || {
        let first = redis.cli(&["ZRANGE", &format!("{PREFIX}:peers"), "0", "0", "WITHSCORES"]);
        first.lines().nth(1).expect("there are peers").parse::<f64>().expect("a time")
    };
    for _ in 0..2 {
        let before = first_end();
        until("the leases to be renewed", || first_end() > before).await;
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
    let is_back = || peers(&redis).len() == crate::NODES && !peers(&redis).contains(&incarnation);
    until("the node to have another lease", is_back).await;
    complete_receipt(&server).await;
    assert_eq!(of_generation(&redis, "name"), before);
}

#[tokio::test]
async fn receipts_are_complete_once_all_nodes_are_back_after_the_engine_stood_still() {
    let redis = TestRedis::start(false);
    let server = start_with(&redis, LEASE).await;
    // For longer than half of a lease.
    redis.cli(&["CLIENT", "PAUSE", "3000", "ALL"]);
    until("the generation to end", || of_generation(&redis, "stood_still") == "1").await;
    complete_receipt(&server).await;
    let [since, now] = [of_generation(&redis, "since"), redis.cli(&["EVAL", "return redis.call('TIME')[1]", "0"])];
    let age = now.parse::<f64>().expect("seconds") - since.parse::<f64>().expect("milliseconds") / 1000.0;
    assert!(age < LEASE.as_secs_f64(), "it would have settled by itself: {age} s");
}

#[tokio::test]
async fn a_node_has_a_lease_beside_those_of_a_version_that_notes_less_of_the_generation() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    redis.cli(&["HDEL", &format!("{PREFIX}:engine"), "whole", "heard"]);
    renewals(&redis).await;
    complete_receipt(&server).await;
}
