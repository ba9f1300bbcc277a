//! Emits that follow each other quickly under one key are thinned out.

use std::time::{Duration, Instant};

use bugle::proto::v1::{EmitOptions, EmitToUserRequest, Receipt, emit_to_user_request};

use crate::harness::{Backend, TestServer, deadline};

async fn emit(backend: &Backend, key: &str, json: &str) -> Receipt {
    let request = EmitToUserRequest {
        user_id: "42".into(),
        event: "price".into(),
        payload: Some(emit_to_user_request::Payload::Json(json.into())),
        options: Some(EmitOptions { collapse_key: key.into(), ..EmitOptions::default() }),
    };
    let response = deadline("the emit", backend.notify().emit_to_user(request)).await;
    response.expect("it is accepted").into_inner().receipt.expect("there is a receipt")
}

#[tokio::test]
async fn of_many_updates_few_arrive_and_the_last_is_the_last() {
    const WINDOW: Duration = Duration::from_millis(100);
    let server = TestServer::start_with(|config| config.collapse.window = WINDOW).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;

    let begun = Instant::now();
    for number in 0..1_000 {
        emit(&backend, "EURUSD", &number.to_string()).await;
    }
    let mut frames = 1;
    while device.expect_event("price").await.json() != "999" {
        frames += 1;
    }
    let windows = begun.elapsed().as_millis() / WINDOW.as_millis();
    assert!(frames <= 2 + windows, "{frames} frames in {windows} windows");
}

#[tokio::test]
async fn the_first_goes_at_once_the_others_are_deferred_and_keys_are_apart() {
    let server = TestServer::start_with(|config| config.collapse.window = Duration::from_mins(1)).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let first = emit(&backend, "a", "1").await;
    assert!(!first.deferred && first.enqueued == 1);
    let second = emit(&backend, "a", "2").await;
    assert!(second.deferred && (second.matched, second.enqueued, second.dropped) == (0, 0, 0));
    assert!(!emit(&backend, "b", "3").await.deferred);
    assert_eq!(device.expect_event("price").await.json(), "1");
    assert_eq!(device.expect_event("price").await.json(), "3");

    server.stop();
    assert_eq!(device.expect_event("price").await.json(), "2", "what waits is not lost to a stop");
}
