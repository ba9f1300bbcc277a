//! Emits under idempotency keys whose first call was not told that they were sent.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest, Receipt, ack::Outcome, ack_options::Mode};
use futures_util::future::join_all;
use tonic::Code;

use crate::{
    acks::{LONG, acks},
    harness::{Device, PATIENCE, SlowProxy, TestRedis, TestServer, deadline, refused, to_user},
};

/// Three nodes, the first of which reaches the engine by a proxy, and a device of 42 at each of the others.
async fn start(redis: &TestRedis) -> (TestServer, SlowProxy, Vec<Device>) {
    let proxy = SlowProxy::start_before_redis(redis.address(), Duration::ZERO).await;
    let server = TestServer::start_each_with(|number, config| {
        let url = if number == 0 { proxy.url().to_owned() } else { redis.url() };
        config.cluster.redis = vec![url.into()];
    })
    .await;
    let devices = join_all([1, 2].map(|number| server.device_at(number, "42").connect())).await;
    let devices = devices.into_iter().map(|device| device.expect("the device connects")).collect();
    (server, proxy, devices)
}

/// Emits at the first node, which does not hear that it was published, and repeats that at the second one until it is answered.
async fn emit_twice(server: &TestServer, proxy: &SlowProxy, options: EmitOptions) -> Receipt {
    let options = Some(EmitOptions { idempotency_key: "k".to_owned(), ..options });
    let request = EmitToUserRequest { options, ..to_user("42", "only-once", "1") };
    let published = proxy.hang_after(&["only-once"]);
    let first = server.backend_of(0).await;
    let error = refused(Code::Unavailable, first.notify().emit_to_user(request.clone())).await;
    assert!(error.message().contains("may have been sent"), "{error:?}");
    deadline("it is published", published).await;
    proxy.go_on();
    let second = server.backend_of(1).await;
    let repeated = async {
        loop {
            // The claim of the first call may be there until its lease ends.
            if let Ok(response) = second.notify().emit_to_user(request.clone()).await {
                return response.into_inner().receipt.expect("there is a receipt");
            }
        }
    };
    // A lease is five seconds.
    let answered = tokio::time::timeout(3 * PATIENCE, repeated);
    Box::pin(answered).await.expect("the repetition is answered")
}

#[tokio::test]
async fn devices_get_an_emit_once_that_is_repeated_at_another_node_after_it_may_have_been_sent() {
    for retain in [false, true] {
        let redis = TestRedis::start(false);
        let (server, proxy, mut devices) = start(&redis).await;
        let receipt = emit_twice(&server, &proxy, EmitOptions { retain, ..EmitOptions::default() }).await;
        assert_eq!((receipt.matched, receipt.enqueued, receipt.nodes), (2, 2, 2), "as the first time: {receipt:?}");
        assert!(receipt.duplicate || receipt.partial, "nothing was sent: {receipt:?}");
        let _next = server.backend_of(2).await.emit_to_user("42", "next", "2").await;
        for device in &mut devices {
            assert_eq!(device.expect_event("only-once").await.json(), "1");
            assert_eq!(device.expect_event("next").await.json(), "2");
        }
    }
}

#[tokio::test]
async fn a_repetition_does_not_wait_for_devices_that_were_asked_the_first_time() {
    let redis = TestRedis::start(false);
    let (server, proxy, mut devices) = start(&redis).await;
    let receipt = emit_twice(&server, &proxy, acks(Mode::All, LONG)).await;
    assert_eq!((receipt.matched, receipt.replied, receipt.partial), (2, 0, true), "{receipt:?}");
    assert_eq!(receipt.acks.len(), 2, "{receipt:?}");
    assert!(receipt.acks.iter().all(|ack| ack.outcome() == Outcome::Pending), "{receipt:?}");
    let _next = server.backend_of(2).await.emit_to_user("42", "next", "2").await;
    for device in &mut devices {
        device.expect_event("only-once").await;
        device.expect_event("next").await;
    }
}
