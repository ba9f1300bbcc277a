//! Leases of nodes at the engine.

use std::time::Duration;

use crate::harness::{TestRedis, TestServer, deadline};

pub const PREFIX: &str = "test";

pub async fn start(redis: &TestRedis) -> TestServer {
    TestServer::start_with(|config| {
        config.cluster.redis = vec![redis.url().into()];
        PREFIX.clone_into(&mut config.cluster.prefix);
        (config.cluster.lease, config.cluster.heartbeat) = (Duration::from_secs(1), Duration::from_millis(200));
    })
    .await
}

/// Waits until all leases have been renewed twice.
pub async fn renewals(redis: &TestRedis) {
    let first_end = || {
        let first = redis.cli(&["ZRANGE", &format!("{PREFIX}:peers"), "0", "0", "WITHSCORES"]);
        first.lines().nth(1).expect("there are peers").parse::<f64>().expect("a time")
    };
    for _ in 0..2 {
        let before = first_end();
        let renewed = async {
            while first_end() <= before {
                tokio::task::yield_now().await;
            }
        };
        deadline("the leases to be renewed", renewed).await;
    }
}

#[tokio::test]
async fn an_entry_of_a_lease_that_is_none_of_ours_makes_receipts_partial_until_its_lease_is_over() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    let backend = server.backend().await;
    redis.cli(&["ZADD", &format!("{PREFIX}:peers"), "1", "stranger"]);
    redis.cli(&["HSET", &format!("{PREFIX}:peer"), "other", "no peer"]);
    redis.cli(&["ZADD", &format!("{PREFIX}:peers"), "1", "other"]);
    renewals(&redis).await;
    let complete = async { while backend.emit_to_user("42", "plain", "1").await.partial {} };
    deadline("a complete receipt", Box::pin(complete)).await;
    let peers = redis.cli(&["ZRANGE", &format!("{PREFIX}:peers"), "0", "-1"]);
    assert_eq!(peers.lines().count(), crate::NODES, "{peers}");
}

#[tokio::test]
async fn a_node_whose_lease_has_ended_at_an_engine_that_went_on_leaves_the_engine_s_generation_as_it_is() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    let backend = server.backend().await;
    let (peers, generation) = (format!("{PREFIX}:peers"), format!("{PREFIX}:engine"));
    let name = || redis.cli(&["HGET", &generation, "name"]);
    let before = name();
    let incarnation = redis.cli(&["ZRANGE", &peers, "0", "0"]);
    redis.cli(&["ZADD", &peers, "1", &incarnation]);
    let is_there = || redis.cli(&["ZRANGE", &peers, "0", "-1"]).lines().any(|peer| peer == incarnation);
    let fenced = async {
        while is_there() {
            tokio::task::yield_now().await;
        }
    };
    deadline("the lease to end", fenced).await;
    renewals(&redis).await;
    let complete = async { while backend.emit_to_user("42", "plain", "1").await.partial {} };
    deadline("a complete receipt", Box::pin(complete)).await;
    assert_eq!(redis.cli(&["ZCARD", &peers]), crate::NODES.to_string(), "it is back");
    assert_eq!(name(), before);
}
