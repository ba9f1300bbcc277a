//! An engine that has no memory left.

use bugle::proto::v1::{EmitOptions, EmitToUserRequest};
use tonic::Code;

use crate::{
    harness::{TestRedis, answer, deadline, refused, to_user},
    leases::{PREFIX, renewals, start},
};

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
    // Nodes that come back find an engine without memory.
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let reached = async { while answer(backend.notify().emit_to_user(to_user("43", "plain", "1"))).await.is_err() {} };
    deadline("the engine is reached", Box::pin(reached)).await;
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
