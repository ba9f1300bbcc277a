//! Rates of devices and backends. Each test goes on until it is refused, so that a slow machine only makes it longer.

use std::time::Duration;

use bugle::{
    limits::Rate,
    proto::v1::{
        BroadcastRequest, Emit, EmitBatchRequest, EmitToUsersRequest, EmitToUsersResponse, emit, emit_error,
        emit_result,
    },
};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Backend, ConnectError, TestServer, api_key, violations};

const OTHER: &str = "another-api-key-of-thirty-two-bytes-or-more";
/// More than can be allowed while a test lasts.
const MANY: usize = 100;

fn rate(burst: u32) -> Rate {
    Rate { per_second: 1, burst }
}

fn retry_after(status: &Status) -> Duration {
    status.get_details_retry_info().and_then(|info| info.retry_delay).expect("it says when to try again")
}

async fn emit_to_users(backend: &Backend, count: u32) -> Result<EmitToUsersResponse, Status> {
    let user_ids = (0..count).map(|user| user.to_string()).collect();
    let request = EmitToUsersRequest { user_ids, event: "e".into(), payload: None, options: None };
    backend.notify().emit_to_users(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn emits_of_an_api_key_are_refused_past_its_rate_and_those_of_another_are_not() {
    let server = TestServer::start_with(|config| {
        config.limits.emits_per_api_key = rate(3);
        config.grpc.api_keys.push(api_key("other", OTHER, &["emit"]));
    })
    .await;
    let backend = server.backend().await;

    let status = emit_to_users(&backend, 4).await.expect_err("four can never be sent at once");
    assert_eq!((status.code(), violations(&status)[0].0.as_str()), (Code::InvalidArgument, "user_ids"));
    emit_to_users(&backend, 3).await.expect("each user is an emit");
    let mut refused = None;
    for _ in 0..MANY {
        let request = BroadcastRequest { event: "e".into(), payload: None, options: None };
        refused = backend.notify().broadcast(request).await.err();
        if refused.is_some() {
            break;
        }
    }
    let status = refused.expect("the rate is met");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("limits.emits_per_api_key is met by the API key `test`"), "{status:?}");
    assert!(retry_after(&status) <= Duration::from_secs(1));
    Backend::connect(server.grpc(), OTHER).await.broadcast("e", "1").await;
}

#[tokio::test]
async fn each_emit_of_a_batch_counts() {
    let server = TestServer::start_with(|config| config.limits.emits_per_api_key = rate(3)).await;
    let emit = Emit { target: Some(emit::Target::Everyone(true)), event: "e".into(), payload: None, options: None };
    let batch = EmitBatchRequest { emits: vec![emit; MANY] };
    let answer =
        server.backend().await.notify().emit_batch(batch).await.expect("a batch answers for each").into_inner();
    let errors: Vec<_> = answer.results.iter().skip_while(|result| !is_refused(result)).collect();
    assert!((1..=MANY - 3).contains(&errors.len()), "{answer:?}");
}

fn is_refused(result: &bugle::proto::v1::EmitResult) -> bool {
    match result.result.as_ref().expect("a result") {
        emit_result::Result::Receipt(_) => false,
        emit_result::Result::Error(error) => {
            assert_eq!(error.code(), emit_error::Code::ResourceExhausted);
            assert!(error.retry_after.is_some());
            true
        }
    }
}

#[tokio::test]
async fn connects_from_an_address_are_refused_before_the_session() {
    let server = TestServer::start_with(|config| config.limits.connects_per_address = rate(2)).await;
    let mut devices = Vec::new();
    let refused = loop {
        match server.device("42").connect().await {
            Ok(device) => devices.push(device),
            Err(refused) => break refused,
        }
        assert!(devices.len() < MANY);
    };
    assert!(devices.len() >= 2);
    let ConnectError::Http { status, headers, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"1".parse().expect("a value")));
}

#[tokio::test]
async fn connects_of_a_user_are_cut_and_never_refused_for_good() {
    let server = TestServer::start_with(|config| config.limits.connects_per_user = rate(2)).await;
    let mut devices = Vec::new();
    let refused = loop {
        match server.device("42").connect().await {
            Ok(device) => devices.push(device),
            Err(refused) => break refused,
        }
        assert!(devices.len() < MANY);
    };
    assert!(devices.len() >= 2 && matches!(refused, ConnectError::Closed), "{refused:?}");
    server.connect("43").await;
}

#[tokio::test]
async fn client_events_past_the_rate_are_told_when_to_come_back() {
    let server = TestServer::start_with(|config| config.limits.client_events_per_connection = rate(3)).await;
    let mut device = server.connect("42").await;
    let mut codes = Vec::new();
    let error = loop {
        let answer = device.emit_with_ack("e", &[]).await;
        let error = answer[0]["error"].clone();
        codes.push(error["code"].clone());
        if error["code"] == "rate" {
            break error;
        }
        assert!(codes.len() < MANY);
    };
    assert!(codes.len() > 3, "{codes:?}");
    let retry_after = error["retryAfterMs"].as_u64().expect("a number");
    assert!((1..=1_000).contains(&retry_after), "{error}");
    assert!(error["message"].as_str().expect("a text").starts_with("limits.client_events_per_connection is met"));
}

#[tokio::test]
async fn a_connection_that_goes_on_all_the_same_is_closed() {
    let server = TestServer::start_with(|config| config.limits.client_events_per_connection = rate(3)).await;
    let mut device = server.connect("42").await;
    for number in 0..30 {
        device.emit("e", &[json!(number)]);
    }
    let told: Value = serde_json::from_str(device.expect_event("bugle:disconnect").await.json()).expect("JSON");
    assert_eq!((&told["code"], &told["retry"]), (&json!("rate"), &json!(true)));
    device.transport_closed().await;
}
