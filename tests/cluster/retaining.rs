//! Retained values that connections read before the frame of the change comes to their node.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest, Receipt};

use tokio::task::JoinHandle;

use crate::{
    acks::in_background,
    harness::{Backend, Device, SlowProxy, TestRedis, TestServer, deadline, eventually, to_user},
};

/// Three nodes, of which the first no longer hears what is published, and a connection of 42 there.
struct Deaf {
    server: TestServer,
    proxy: SlowProxy,
    redis: TestRedis,
    device: Device,
}

impl Deaf {
    async fn start() -> Self {
        let redis = TestRedis::start(false);
        let proxy = SlowProxy::start_before_redis(redis.address(), Duration::ZERO).await;
        let server = TestServer::start_each_with(|number, config| {
            let url = if number == 0 { proxy.url().to_owned() } else { redis.url() };
            config.cluster.redis = vec![url.into()];
            // It is deaf for a while, and nobody gives it up.
            config.cluster.deadline = Duration::from_secs(10);
            config.limits.connections_per_user = 2;
        })
        .await;
        let device = server.device_at(0, "42").connect().await.expect("the device connects");
        let deaf = proxy.hang_connection_at(&["SUBSCRIBE", "user:other"]);
        let other = server.device_at(0, "other");
        in_background(async move { other.connect().await });
        deadline("the subscribing connection to hang", deaf).await;
        Self { server, proxy, redis, device }
    }

    /// Begins to retain a value; the receipt comes once the deaf node hears.
    async fn retain(&self, json: Option<&str>) -> JoinHandle<Receipt> {
        let (backend, before) = (self.server.backend_of(1).await, self.last_change());
        let request = EmitToUserRequest {
            payload: to_user("42", "price", json.unwrap_or_default()).payload.filter(|_| json.is_some()),
            options: Some(EmitOptions { retain: true, ..EmitOptions::default() }),
            ..to_user("42", "price", "")
        };
        let receipt = in_background(async move { emit(&backend, request).await });
        eventually("the change", async || self.last_change() != before).await;
        receipt
    }

    fn last_change(&self) -> String {
        let keys = self.redis.cli(&["KEYS", "*:v:{user:42}"]);
        self.redis.cli(&["HGET", &keys, "n"])
    }

    async fn connect(&self) -> Device {
        self.server.device_at(0, "42").connect().await.expect("the device connects")
    }
}

async fn emit(backend: &Backend, request: EmitToUserRequest) -> Receipt {
    let response = deadline("the receipt", backend.notify().emit_to_user(request)).await;
    response.expect("it is accepted").into_inner().receipt.expect("there is a receipt")
}

fn counts(receipt: &Receipt) -> (u64, u64, bool) {
    (receipt.matched, receipt.enqueued, receipt.partial)
}

#[tokio::test]
async fn a_connection_that_was_given_the_value_when_it_joined_counts_once() {
    let mut deaf = Deaf::start().await;
    let receipt = deaf.retain(Some("1")).await;
    let mut later = deaf.connect().await;
    assert_eq!(later.expect_event("price").await.json(), "1");
    deaf.proxy.go_on();
    assert_eq!(counts(&receipt.await.expect("it comes")), (2, 2, false));
    assert_eq!(deaf.device.expect_event("price").await.json(), "1");
    let next = deaf.retain(Some("2")).await.await.expect("it comes");
    assert_eq!(counts(&next), (2, 2, false));
    assert_eq!(later.expect_event("price").await.json(), "2", "it came once");
}

#[tokio::test]
async fn a_connection_that_has_gone_since_it_was_given_the_value_does_not_count() {
    let deaf = Deaf::start().await;
    let receipt = deaf.retain(Some("1")).await;
    let mut gone = deaf.connect().await;
    assert_eq!(gone.expect_event("price").await.json(), "1");
    gone.close().await;
    // There is a place for it once the other one is gone.
    let later = async {
        loop {
            if let Ok(device) = deaf.server.device_at(0, "42").connect().await {
                return device;
            }
        }
    };
    let _later = Box::pin(deadline("a place for another connection", Box::pin(later))).await;
    deaf.proxy.go_on();
    assert_eq!(counts(&receipt.await.expect("it comes")), (2, 2, false));
}

#[tokio::test]
async fn a_connection_that_joined_after_the_value_was_replaced_or_taken_away_does_not_count_for_it() {
    for (then, given) in [(Some("2"), 2), (None, 1)] {
        let mut deaf = Deaf::start().await;
        let (first, second) = (deaf.retain(Some("1")).await, deaf.retain(then).await);
        let mut later = deaf.connect().await;
        if then.is_some() {
            assert_eq!(later.expect_event("price").await.json(), "2");
        }
        deaf.proxy.go_on();
        assert_eq!(counts(&first.await.expect("it comes")), (1, 1, false), "it never had the first value");
        assert_eq!(counts(&second.await.expect("it comes")), (given, given, false));
        assert_eq!(deaf.device.expect_event("price").await.json(), "1");
        let next = deaf.retain(Some("3")).await.await.expect("it comes");
        assert_eq!(counts(&next), (2, 2, false));
        assert_eq!(later.expect_event("price").await.json(), "3");
    }
}
