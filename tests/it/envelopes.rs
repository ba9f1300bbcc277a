//! Envelopes by configuration.

use bugle::{
    command::EnvelopeConfig,
    message::EventPattern,
    proto::v1::{EmitOptions, EmitToUserRequest, emit_to_user_request::Payload},
};
use serde_json::json;

use crate::harness::{TestServer, violations};

async fn server() -> TestServer {
    TestServer::start_with(|config| {
        let events = ["earnings:*", "notification"].map(|text| EventPattern::new(text).expect("a pattern"));
        config.envelopes = vec![EnvelopeConfig { events: events.to_vec() }];
    })
    .await
}

fn emit(event: &str, payload: Payload, options: EmitOptions) -> EmitToUserRequest {
    EmitToUserRequest { user_id: "42".into(), event: event.into(), payload: Some(payload), options: Some(options) }
}

#[tokio::test]
async fn matching_events_are_wrapped_and_others_are_not() {
    let server = server().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    for event in ["earnings:new", "notification"] {
        backend.emit_to_user("42", event, r#"{"b":1.10}"#).await;
        let envelope = device.expect_event(event).await;
        let expected = format!(r#"{{"event":"{event}","timestamp":""#);
        assert!(envelope.json().starts_with(&expected), "{}", envelope.json());
        assert!(envelope.json().ends_with(r#"Z","data":{"b":1.10}}"#), "{}", envelope.json());
    }
    for event in ["earnings", "notification:broadcast"] {
        backend.emit_to_user("42", event, "1").await;
        assert_eq!(device.expect_event(event).await.json(), "1");
    }
}

#[tokio::test]
async fn an_emit_that_asks_for_the_envelope_itself_is_wrapped_once_and_is_the_same_emit() {
    let server = server().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    for (envelope, duplicate) in [(true, false), (false, true)] {
        let options = EmitOptions { envelope, idempotency_key: "k".into(), ..EmitOptions::default() };
        let request = emit("notification", Payload::Json("1".into()), options);
        let answer = backend.notify().emit_to_user(request).await.expect("it is sent").into_inner();
        assert_eq!(answer.receipt.expect("a receipt").duplicate, duplicate);
    }
    let wrapped: serde_json::Value =
        serde_json::from_str(device.expect_event("notification").await.json()).expect("JSON");
    assert_eq!(wrapped["data"], json!(1));
}

#[tokio::test]
async fn a_binary_payload_of_a_matching_event_is_refused_and_the_configuration_is_named() {
    let server = server().await;
    let request = emit("earnings:new", Payload::Binary("bytes".into()), EmitOptions::default());
    let status = server.backend().await.notify().emit_to_user(request).await.expect_err("it cannot be wrapped");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let [(field, description)] = &violations(&status)[..] else { panic!("{status:?}") };
    assert!(field == "binary" && description.contains("[[envelopes]] in the configuration"), "{status:?}");
}

#[tokio::test]
async fn what_is_retained_collapsed_or_relayed_is_wrapped_too() {
    let server = TestServer::start_with(|config| {
        let events = ["price", "typing"].map(|text| EventPattern::new(text).expect("a pattern"));
        config.envelopes = vec![EnvelopeConfig { events: events.to_vec() }];
        let rule = json!([{ "event": "typing", "relay": { "user": "{arg}", "payload": { "userId": "{user}" } } }]);
        config.client_events = serde_json::from_value(rule).expect("a rule");
    })
    .await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let data = |json: &str| serde_json::from_str::<serde_json::Value>(json).expect("JSON")["data"].clone();
    for (number, deferred) in [(1, false), (2, true), (3, true)] {
        let options = EmitOptions { retain: true, collapse_key: "k".into(), ..EmitOptions::default() };
        let request = emit("price", Payload::Json(number.to_string()), options);
        let answer = backend.notify().emit_to_user(request).await.expect("it is sent").into_inner();
        assert_eq!(answer.receipt.expect("a receipt").deferred, deferred);
    }
    assert_eq!(data(device.expect_event("price").await.json()), 1);
    assert_eq!(data(device.expect_event("price").await.json()), 3);
    let mut late = server.connect("42").await;
    assert_eq!(data(late.expect_event("price").await.json()), 3);

    server.connect("7").await.emit_with_ack("typing", &[json!("42")]).await;
    assert_eq!(data(device.expect_event("typing").await.json()), json!({ "userId": "7" }));
}
