//! The network between one node and the engine, which is slow, or loses everything for a while.

use std::time::Duration;

use bugle::config::Config;
use tonic::Code;

use crate::harness::{Backend, SlowProxy, TestRedis, TestServer, answer, deadline, to_user};

const SHORT_LEASE: Duration = Duration::from_secs(1);

/// Three nodes, the first of which reaches the engine by a proxy. Leases are short.
async fn start(redis: &TestRedis, delay: Duration) -> (TestServer, SlowProxy) {
    let proxy = SlowProxy::start_before_redis(redis.address(), delay).await;
    let change = |number: usize, config: &mut Config| {
        let url = if number == 0 { proxy.url().to_owned() } else { redis.url() };
        config.cluster.redis = vec![url.into()];
        (config.cluster.lease, config.cluster.heartbeat) = (SHORT_LEASE, SHORT_LEASE / 4);
        config.limits.connections_per_user = 100;
    };
    let server = TestServer::start_each_with(change).await;
    (server, proxy)
}

/// Emits until a receipt is complete and counts this many.
async fn complete(backend: &Backend, user: &str, matched: u64) {
    let complete = async {
        loop {
            let sent = answer(backend.notify().emit_to_user(to_user(user, "again", "0"))).await;
            let receipt = sent.ok().and_then(|response| response.receipt);
            if receipt.is_some_and(|receipt| !receipt.partial && receipt.matched == matched) {
                return;
            }
        }
    };
    Box::pin(deadline("a complete receipt", Box::pin(complete))).await;
}

#[tokio::test]
async fn a_node_with_a_slow_link_is_waited_for() {
    let redis = TestRedis::start(false);
    let (server, _proxy) = start(&redis, Duration::from_millis(20)).await;
    let mut slow = server.device_at(0, "42").connect().await.expect("the device connects");
    let mut fast = server.device_at(1, "42").connect().await.expect("the device connects");
    for number in [0, 1, 2] {
        let receipt = server.backend_of(number).await.emit_to_user("42", "hello", "1").await;
        assert_eq!((receipt.matched, receipt.nodes, receipt.partial), (2, 2, false), "{receipt:?}");
        assert_eq!(slow.expect_event("hello").await.json(), "1");
        assert_eq!(fast.expect_event("hello").await.json(), "1");
    }
}

#[tokio::test]
async fn receipts_are_partial_while_a_node_with_devices_is_slower_than_the_deadline_and_what_is_late_is_not_sent() {
    let redis = TestRedis::start(false);
    let (server, proxy) = start(&redis, Duration::ZERO).await;
    let mut slow = server.device_at(0, "42").connect().await.expect("the device connects");
    let backend = server.backend_of(1).await;
    proxy.hang();
    let receipt = backend.emit_to_user("42", "lost", "1").await;
    assert!(receipt.partial && receipt.matched == 0, "{receipt:?}");
    let cut_off = server.backend_of(0).await;
    let refused = answer(cut_off.notify().emit_to_user(to_user("42", "refused", "1"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    // Its lease ends, and the others no longer wait for it.
    Box::pin(complete(&backend, "43", 0)).await;
    assert_eq!(backend.get_user("42").await.connections, []);
    proxy.go_on();
    Box::pin(complete(&backend, "42", 1)).await;
    Box::pin(complete(&cut_off, "42", 1)).await;
    let heard = slow.expect_event("again").await;
    assert_eq!(heard.json(), "0", "what was published meanwhile came too late");
}

#[tokio::test]
async fn devices_stay_and_come_while_their_node_is_cut_off_and_are_in_their_rooms_afterwards() {
    let redis = TestRedis::start(false);
    let (server, proxy) = start(&redis, Duration::ZERO).await;
    let mut before = server.device_at(0, "42").connect().await.expect("the device connects");
    let backend = server.backend_of(1).await;
    proxy.hang();
    let _partial = backend.emit_to_user("42", "lost", "1").await;
    let mut meanwhile = server.device_at(0, "42").connect().await.expect("the device connects");
    assert_eq!(backend.join_room("listing:7", "42").await, 0, "its node does not hear of it");
    proxy.go_on();
    for device in [&mut before, &mut meanwhile] {
        let joined = async {
            loop {
                let receipt = backend.emit_to_room("listing:7", "bid", "1").await;
                if receipt.matched == 2 && !receipt.partial {
                    return;
                }
            }
        };
        deadline("the room to be joined", Box::pin(joined)).await;
        assert_eq!(device.expect_event("bid").await.json(), "1");
    }
}
