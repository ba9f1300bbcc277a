//! Rates of devices and backends. Each test goes on until it is refused, so that a slow machine only makes it longer.

use std::time::Duration;

use bugle::{
    config::Config,
    limits::Rate,
    proto::v1::{
        BroadcastRequest, Emit, EmitBatchRequest, EmitStreamRequest, EmitToUsersRequest, EmitToUsersResponse, emit,
        emit_error, emit_result,
    },
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    API_KEY, Backend, ConnectError, Device, PlainFrame, TestServer, api_key, auth_message, deadline, emit_to, raw_http,
    token, violations,
};
use crate::websocket;

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

async fn connect_until_refused(server: &TestServer) -> (Vec<Device>, ConnectError) {
    let mut devices = Vec::new();
    loop {
        match server.device("42").connect().await {
            Ok(device) => devices.push(device),
            Err(refused) => return (devices, refused),
        }
        assert!(devices.len() < MANY);
    }
}

#[tokio::test]
async fn connects_from_an_address_are_refused_before_the_session() {
    let server = TestServer::start_with(|config| config.limits.connects_per_address = rate(2)).await;
    let (devices, refused) = connect_until_refused(&server).await;
    assert!(devices.len() >= 2);
    let ConnectError::Http { status, headers, body } = refused else { panic!("{refused:?}") };
    assert!(body.contains("limits.connects_per_address is met: try again in 1 s"), "{body}");
    assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"1".parse().expect("a value")));
}

#[tokio::test]
async fn connects_of_a_user_are_cut_and_never_refused_for_good() {
    let server = TestServer::start_with(|config| config.limits.connects_per_user = rate(2)).await;
    let (devices, refused) = connect_until_refused(&server).await;
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

#[tokio::test]
async fn each_emit_of_a_stream_and_of_the_console_counts() {
    let server = TestServer::start_with(|config| {
        config.limits.emits_per_api_key = rate(3);
        config.console.enabled = true;
    })
    .await;
    let backend = server.backend().await;
    let emit = |number: usize| EmitStreamRequest {
        correlation_id: number.to_string(),
        emit: Some(emit_to(emit::Target::Everyone(true), "e", "1")),
    };
    let emits = tokio_stream::iter((0..MANY).map(emit));
    let answers = backend.notify().emit_stream(emits).await.expect("a stream is accepted").into_inner();
    let answers: Vec<_> = deadline("the end of the stream", answers.collect()).await;
    let results = answers.into_iter().filter_map(|answer| answer.expect("a stream answers for each").result);
    let refused = results.filter(is_refused).count();
    assert!((1..=MANY - 3).contains(&refused), "{refused}");

    let body = r#"{"everyone":true,"event":"e"}"#;
    let request = format!(
        "POST /console/api/emit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..MANY {
        let answer = raw_http(server.admin(), &request).await;
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        if !answer.starts_with("http/1.1 200") {
            assert!(answer.starts_with("http/1.1 429") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
            assert!(answer.contains("limits.emits_per_api_key"), "{answer}");
            return;
        }
    }
    panic!("the rate was never met");
}

#[tokio::test]
async fn connects_from_an_address_are_refused_before_the_upgrade() {
    let server = websocket::start_with(|config| config.limits.connects_per_address = rate(2)).await;
    let mut devices = Vec::new();
    let refused = loop {
        match websocket::device(&server).open().await {
            Ok(device) => devices.push(device),
            Err(refused) => break refused,
        }
        assert!(devices.len() < MANY);
    };
    assert!(devices.len() >= 2);
    let ConnectError::Http { status, headers, body } = refused else { panic!("{refused:?}") };
    assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"1".parse().expect("a value")));
    assert_eq!(body, "limits.connects_per_address is met: try again in 1 s\n");
}

#[tokio::test]
async fn connects_of_a_user_over_websocket_are_closed_with_the_code_rate() {
    let server = websocket::start_with(|config| config.limits.connects_per_user = rate(2)).await;
    let (backend, mut count) = (server.backend().await, 0);
    loop {
        let mut device = websocket::device(&server).open().await.expect("nobody knows whose it is yet");
        device.send_text(auth_message(&token("42"))).await;
        // Until the device is let in, what is sent is not for it.
        let emitting = async {
            while backend.emit_to_user("42", "balance", "1").await.matched <= count {
                tokio::task::yield_now().await;
            }
            std::future::pending().await
        };
        let received = tokio::select! {
            received = device.receive() => received,
            received = emitting => received,
        };
        match received {
            PlainFrame::Text(_) => count += 1,
            refused @ (PlainFrame::Binary(_) | PlainFrame::Closed { .. } | PlainFrame::Cut) => {
                let told = PlainFrame::closed(4429, "limits.connects_per_user is met: try again in 1 s");
                assert_eq!((refused, count >= 2), (told, true));
                break;
            }
        }
        assert!(count < MANY as u64);
    }
    websocket::connect(&server, "43").await;
}

#[tokio::test]
async fn a_websocket_that_says_too_much_is_closed_with_the_code_rate() {
    let flood = |config: &mut Config| config.limits.client_events_per_connection = rate(3);
    for message in [auth_message(&token("42")), "nothing of ours".to_owned()] {
        let server = websocket::start_with(flood).await;
        let mut device = websocket::connect(&server, "42").await;
        for _ in 0..30 {
            device.send_text(message.clone()).await;
        }
        assert_eq!(device.receive().await, PlainFrame::closed(4429, "the device sent too much"));
    }
}

#[tokio::test]
async fn a_websocket_that_says_a_little_too_much_stays_unless_its_new_token_would_not_be_heard() {
    let server = websocket::start_with(|config| {
        config.limits.client_events_per_connection = Rate { per_second: 1, burst: 1_000 };
        config.limits.client_events_per_user = rate(1);
    })
    .await;
    let mut device = websocket::connect(&server, "42").await;
    for _ in 0..MANY {
        device.send_text("nothing of ours").await;
    }
    device.heard().await;
    server.backend().await.emit_to_user("42", "balance", "1").await;
    assert_eq!(device.receive().await, PlainFrame::text("1"));
    device.send_text(auth_message(&token("42"))).await;
    assert_eq!(device.receive().await, PlainFrame::closed(4429, "the device sent too much"));
}
