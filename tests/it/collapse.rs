//! Emits that follow each other quickly under one key are thinned out.

use std::time::{Duration, Instant};

use bugle::proto::v1::{EmitOptions, EmitToUserRequest, Receipt, emit_to_user_request};

use crate::harness::{Backend, TestServer, deadline};

async fn emit(backend: &Backend, key: &str, json: &str) -> Receipt {
    emit_with(backend, Some(json), EmitOptions { collapse_key: key.into(), ..EmitOptions::default() }).await
}

async fn emit_with(backend: &Backend, json: Option<&str>, options: EmitOptions) -> Receipt {
    let request = EmitToUserRequest {
        user_id: "42".into(),
        event: "price".into(),
        payload: json.map(|json| emit_to_user_request::Payload::Json(json.into())),
        options: Some(options),
    };
    let response = deadline("the emit", backend.notify().emit_to_user(request)).await;
    response.expect("it is accepted").into_inner().receipt.expect("there is a receipt")
}

/// The node that a user's only device is connected to.
async fn node_of(backend: &Backend, user: &str) -> String {
    backend.get_user(user).await.connections[0].node.clone()
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
    let mut server = TestServer::start_with(|config| config.collapse.window = Duration::from_mins(1)).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let first = emit(&backend, "a", "1").await;
    assert!(!first.deferred && first.enqueued == 1);
    let second = emit(&backend, "a", "2").await;
    assert!(second.deferred && (second.matched, second.enqueued, second.dropped) == (0, 0, 0));
    assert!(!emit(&backend, "b", "3").await.deferred);
    assert_eq!(device.expect_event("price").await.json(), "1");
    assert_eq!(device.expect_event("price").await.json(), "3");

    server.stop_ending_with(&node_of(&backend, "42").await).await;
    assert_eq!(device.expect_event("price").await.json(), "2", "what waits is not lost to a stop");
}

#[tokio::test]
async fn an_emit_without_a_key_does_not_overtake_what_waits() {
    let mut server = TestServer::start_with(|config| config.collapse.window = Duration::from_mins(1)).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    for (key, json) in [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("a", "5"), ("", "6"), ("a", "7")] {
        emit(&backend, key, json).await;
    }
    for json in ["1", "3", "4", "5", "6"] {
        assert_eq!(device.expect_event("price").await.json(), json);
    }
    server.stop_ending_with(&node_of(&backend, "42").await).await;
    assert_eq!(device.expect_event("price").await.json(), "7", "the window is still open");
}

#[tokio::test]
async fn what_is_retained_is_what_was_accepted_last() {
    let server = TestServer::start_with(|config| config.collapse.window = Duration::from_millis(300)).await;
    let backend = server.backend().await;
    let retain = |key: &str| EmitOptions { collapse_key: key.into(), retain: true, ..EmitOptions::default() };
    let mut device = server.connect("42").await;
    for (key, json) in [("a", "1"), ("a", "2"), ("b", "3")] {
        emit_with(&backend, Some(json), retain(key)).await;
    }
    for json in ["1", "3", "2"] {
        assert_eq!(device.expect_event("price").await.json(), json, "keys do not wait for each other");
    }
    assert_eq!(server.connect("42").await.expect_event("price").await.json(), "3");

    for (key, json) in [("c", Some("4")), ("c", Some("5")), ("", None)] {
        emit_with(&backend, json, retain(key)).await;
    }
    for json in ["4", "5"] {
        assert_eq!(device.expect_event("price").await.json(), json);
    }
    assert!(device.expect_event("price").await.args.is_empty());
    let mut later = server.connect("42").await;
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(later.next_event().await.name, "next", "it was taken away, and stays so");
}
