//! An engine that has no memory left, and one with lease entries that are none of ours.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest};
use tonic::Code;

use crate::harness::{TestRedis, TestServer, answer, deadline, refused, to_user};

const PREFIX: &str = "test";

async fn start(redis: &TestRedis) -> TestServer {
    TestServer::start_with(|config| {
        config.cluster.redis = vec![redis.url().into()];
        PREFIX.clone_into(&mut config.cluster.prefix);
        (config.cluster.lease, config.cluster.heartbeat) = (Duration::from_secs(1), Duration::from_millis(200));
    })
    .await
}

/// Waits until all leases have been renewed twice.
async fn renewals(redis: &TestRedis) {
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
async fn without_memory_the_engine_carries_plain_emits_and_gives_back_what_it_holds() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    let (mut device, backend) = (server.connect("42").await, server.backend().await);
    let retain = EmitOptions { retain: true, ..EmitOptions::default() };
    let value = EmitToUserRequest { options: Some(retain), ..to_user("42", "price", "1") };
    answer(backend.notify().emit_to_user(value.clone())).await.expect("there is memory");
    device.expect_event(&value.event).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    renewals(&redis).await;
    let receipt = backend.emit_to_user("42", "plain", "1").await;
    assert_eq!((receipt.matched, receipt.enqueued, receipt.partial), (1, 1, true));
    assert_eq!(backend.get_user("42").await.connections.len(), 1);
    assert_eq!(device.expect_event("plain").await.json(), "1");
    let refusal = refused(Code::ResourceExhausted, backend.notify().emit_to_user(value.clone())).await;
    assert!(refusal.message().contains("maxmemory"), "{refusal:?}");
    let taken = EmitToUserRequest { payload: None, ..value };
    answer(backend.notify().emit_to_user(taken)).await.expect("it is taken away");
    assert_eq!(redis.cli(&["ZCARD", &format!("{PREFIX}:ends:v")]), "0");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let complete = async { while backend.emit_to_user("42", "plain", "1").await.partial {} };
    deadline("a complete receipt", Box::pin(complete)).await;
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
