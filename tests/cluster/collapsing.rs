//! Collapse windows whose emits come to several nodes.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest, Receipt};

use crate::harness::{Backend, SlowProxy, TestRedis, TestServer, deadline, eventually, to_user};

const WINDOW: Duration = Duration::from_secs(1);

async fn emit(backend: &Backend, key: &str, json: &str) -> Receipt {
    let options = EmitOptions { collapse_key: key.into(), ..EmitOptions::default() };
    let request = EmitToUserRequest { options: Some(options), ..to_user("42", "price", json) };
    let response = deadline("the emit", backend.notify().emit_to_user(request)).await;
    response.expect("it is accepted").into_inner().receipt.expect("there is a receipt")
}

/// Waits until nothing waits at the engine for the end of a window.
async fn taken(redis: &TestRedis) {
    let is_taken = async || redis.cli(&["KEYS", "*:c:*"]).lines().all(str::is_empty);
    eventually("the window's end", is_taken).await;
}

#[tokio::test]
async fn what_was_deferred_is_not_overtaken_though_the_node_of_its_window_is_far_from_the_engine() {
    let redis = TestRedis::start(false);
    let proxy = SlowProxy::start_before_redis(redis.address(), Duration::from_millis(60)).await;
    let server = TestServer::start_each_with(|number, config| {
        let url = if number == 0 { proxy.url().to_owned() } else { redis.url() };
        config.cluster.redis = vec![url.into()];
        config.collapse.window = WINDOW;
    })
    .await;
    let (far, near) = (server.backend_of(0).await, server.backend_of(1).await);
    let mut device = server.device_at(2, "42").connect().await.expect("the device connects");
    for key in ["a", "b"] {
        assert!(!emit(&far, key, "\"opens\"").await.deferred);
        assert_eq!(device.expect_event("price").await.json(), "\"opens\"");
        let ends = proxy.sees(&["end_window"]);
        assert!(emit(&near, key, "\"deferred\"").await.deferred);
        deadline("the end of a window on its way", ends).await;
        taken(&redis).await;
        let receipt = emit(&near, "", "\"later\"").await;
        assert!(!receipt.deferred && receipt.matched == 1 && !receipt.partial, "{receipt:?}");
        for json in ["\"deferred\"", "\"later\""] {
            assert_eq!(device.expect_event("price").await.json(), json);
        }
    }
}
