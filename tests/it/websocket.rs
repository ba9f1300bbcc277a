//! Plain WebSocket: who gets in, what arrives, and what does not.

use std::time::Duration;

use bugle::config::Config;
use bugle::message::EventPattern;
use bugle::proto::v1::{self, EmitOptions, EmitToUserRequest, Receipt, emit_to_user_request::Payload};
use bugle::websocket::EndpointConfig;
use serde_json::json;

use crate::harness::{
    Backend, PlainDevice, PlainDeviceBuilder, PlainFrame, TestServer, auth_message, raw_http, token, token_with,
};

/// The app's own path.
pub const PATH: &str = "/ws/balance/player";
const EXACT: &str = "{\"b\":1.10,\"a\":12345678901234567890,\"_placeholder\":true,\"s\":\"🎺\u{2028}\",\"n\":[]}";

/// A server with one endpoint, below the path of Socket.IO, for `balance` and what begins with `score:`.
pub async fn start_with(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.socketio.path = "/ws".into();
        config.websocket.push(endpoint(PATH, &["balance", "score:*"]));
        change(config);
    })
    .await
}

pub fn endpoint(path: &str, events: &[&str]) -> EndpointConfig {
    let events = events.iter().map(|text| EventPattern::new(text).expect("a good pattern")).collect();
    EndpointConfig { path: path.into(), events, auth_timeout: Duration::from_secs(5) }
}

pub fn device(server: &TestServer) -> PlainDeviceBuilder {
    PlainDevice::builder(server.clients(), PATH)
}

/// An authenticated device of this user.
pub async fn connect(server: &TestServer, user: &str) -> PlainDevice {
    let mut device = device(server).open().await.expect("the upgrade is agreed to");
    device.authenticate(&token(user)).await;
    device
}

pub async fn emit(backend: &Backend, event: &str, payload: Option<Payload>, volatile: bool) -> Receipt {
    let options = Some(EmitOptions { volatile, ..EmitOptions::default() });
    let request = EmitToUserRequest { user_id: "42".into(), event: event.into(), payload, options };
    let response = backend.notify().emit_to_user(request).await.expect("the emit is accepted");
    response.into_inner().receipt.expect("an accepted emit has a receipt")
}

#[tokio::test]
async fn each_listed_event_arrives_as_its_payload_alone_to_the_letter() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let mut player = connect(&server, "42").await;

    let receipt = backend.emit_to_user("42", "balance", EXACT).await;
    assert_eq!((receipt.matched, receipt.enqueued, receipt.dropped), (1, 1, 0));
    emit(&backend, "score:new", Some(Payload::Binary(vec![0, 255, 7].into())), false).await;
    emit(&backend, "score:", None, false).await;
    backend.broadcast("balance", "\"all\"").await;

    // Nothing came before: no welcome, no acknowledgement.
    assert_eq!(player.receive().await, PlainFrame::text(EXACT));
    assert_eq!(player.receive().await, PlainFrame::Binary(vec![0, 255, 7].into()));
    assert_eq!(player.receive().await, PlainFrame::text("null"));
    assert_eq!(player.receive().await, PlainFrame::text("\"all\""));
}

#[tokio::test]
async fn an_event_that_is_not_listed_is_neither_sent_nor_matched() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let mut player = connect(&server, "42").await;
    let mut phone = server.device("42").path("/ws").connect().await.expect("Socket.IO is there, too");

    for event in ["balances", "score", "other"] {
        let receipt = backend.emit_to_user("42", event, "1").await;
        assert_eq!((receipt.matched, receipt.enqueued, receipt.dropped), (1, 1, 0), "{event}: the phone alone");
        phone.expect_event(event).await;
    }
    let receipt = backend.emit_to_user("42", "balance", "2").await;
    assert_eq!((receipt.matched, receipt.enqueued), (2, 2));
    assert_eq!(player.receive().await, PlainFrame::text("2"), "the others did not come");
}

#[tokio::test]
async fn large_payloads_and_many_of_them_arrive_in_order() {
    let server = start_with(|config| config.socketio.queue_bytes = 8 << 20).await;
    let backend = server.backend().await;
    let mut player = connect(&server, "42").await;
    let large = format!("\"{}\"", "a".repeat(1_000_000));
    let expected: Vec<_> = (0..200).map(|number| number.to_string()).chain([large, "\"last\"".into()]).collect();
    for json in &expected {
        backend.emit_to_user("42", "balance", json).await;
    }
    for json in &expected {
        assert_eq!(player.receive().await, PlainFrame::text(json));
    }
}

#[tokio::test]
async fn the_token_may_say_bearer_and_the_path_is_what_the_entry_says() {
    let server = start_with(|config| config.websocket.push(endpoint("/all", &["*"]))).await;
    let backend = server.backend().await;
    let mut all = PlainDevice::builder(server.clients(), "/all?v=1").open().await.expect("a query is let be");
    all.authenticate(&format!("Bearer {}", token("42"))).await;
    let receipt = backend.emit_to_user("42", "anything", "1").await;
    assert_eq!((receipt.matched, receipt.enqueued), (1, 1));
    assert_eq!(all.receive().await, PlainFrame::text("1"));
}

#[tokio::test]
async fn a_bad_token_is_closed_with_4401_and_never_a_frame() {
    let server = start_with(|_| ()).await;
    let expired = token_with(&json!({ "sub": "42", "exp": 1 }));
    for bad in ["nonsense", &expired, "Bearer x.y.z"] {
        let mut device = device(&server).open().await.expect("the upgrade comes first");
        device.send_text(auth_message(bad)).await;
        assert_eq!(device.receive().await, PlainFrame::closed(4401, "Invalid or expired token"), "{bad}");
        assert_eq!(device.receive().await, PlainFrame::Cut);
    }
    assert_eq!(server.backend().await.get_stats().await.connections, 0);
}

#[tokio::test]
async fn a_first_message_without_a_token_is_closed_with_4401() {
    let server = start_with(|_| ()).await;
    let good = token("42");
    let required = PlainFrame::closed(4401, "Authentication token required");
    let invalid = PlainFrame::closed(4401, "Invalid or expired token");
    let unreadable = PlainFrame::closed(4401, "Malformed authentication payload");
    let messages = [
        (String::new(), &unreadable),
        ("hello".into(), &unreadable),
        (good.clone(), &unreadable),
        (format!(r#"{{"type":"auth","access_token":"{good}""#), &unreadable),
        (format!(r#"{{"type":"auth","access_token":"{good}","\ud800":1}}"#), &unreadable),
        (format!(r#"{{"type":"auth","access_token":"{good}\ud800"}}"#), &invalid),
        (r#"{"type":"auth","access_token":5}"#.into(), &invalid),
        (auth_message(""), &required),
        (auth_message("Bearer "), &required),
        (r#"{"type":"auth","data":{}}"#.into(), &required),
        (json!({ "type": "authenticate", "access_token": good }).to_string(), &required),
        (json!({ "access_token": good }).to_string(), &required),
    ];
    for (message, expected) in messages {
        let mut device = device(&server).open().await.expect("the upgrade comes first");
        device.send_text(message.as_str()).await;
        assert_eq!(device.receive().await, *expected, "{message}");
    }
    let mut lucky = device(&server).open().await.expect("the upgrade comes first");
    lucky.send_text(format!(r#"{{"type":"auth","data":["\ud800"],"access_token":"{good}"}}"#)).await;
    lucky.heard().await;
    assert!(server.backend().await.get_user("42").await.online, "a lone surrogate elsewhere does not matter");
    let mut device = device(&server).open().await.expect("the upgrade comes first");
    device.send_binary(auth_message(&good)).await;
    assert_eq!(device.receive().await, required, "in a binary frame");
}

#[tokio::test]
async fn who_says_nothing_in_time_is_closed_with_4408() {
    let server = start_with(|config| config.websocket[0].auth_timeout = Duration::from_millis(100)).await;
    let mut device = device(&server).open().await.expect("the upgrade comes first");
    device.heard().await;
    assert_eq!(device.receive().await, PlainFrame::closed(4408, "no authentication in time"));
}

#[tokio::test]
async fn presence_sees_it_like_any_other() {
    let server = start_with(|config| config.auth.rooms = vec!["club:{claim.club}".into()]).await;
    let backend = server.backend().await;
    let mut player = device(&server).header("user-agent", "Player/1").open().await.expect("the upgrade is agreed to");
    assert!(!backend.get_user("42").await.online, "nobody yet");
    player.authenticate(&token_with(&json!({ "sub": "42", "role": "vip", "club": "a" }))).await;

    let user = backend.get_user("42").await;
    let [connection] = user.connections.as_slice() else { panic!("one connection: {user:?}") };
    assert_eq!(connection.transport(), v1::Transport::Websocket);
    assert_eq!(connection.rooms, ["club:a", "everyone", "role:vip", "user:42"]);
    assert_eq!((connection.address.as_str(), connection.user_agent.as_str()), ("127.0.0.1", "Player/1"));
    assert!(connection.connected_at.is_some());

    assert_eq!(backend.join_room("table:7", "42").await, 1);
    backend.emit_to_room("table:7", "balance", "7").await;
    assert_eq!(player.receive().await, PlainFrame::text("7"));
    assert_eq!(player.close().await, PlainFrame::closed(1005, ""));
    assert!(!backend.get_user("42").await.online);
}

#[tokio::test]
async fn a_refreshed_token_replaces_the_rooms_and_says_nothing() {
    let server = start_with(|config| config.auth.rooms = vec!["club:{claim.club}".into()]).await;
    let backend = server.backend().await;
    let member_of = |club: &str| token_with(&json!({ "sub": "42", "club": club }));
    let mut player = device(&server).open().await.expect("the upgrade is agreed to");
    player.authenticate(&member_of("a")).await;
    // As a pong is all that comes, there is no acknowledgement.
    player.authenticate(&member_of("b")).await;
    assert_eq!(backend.emit_to_room("club:a", "balance", "1").await.matched, 0);
    assert_eq!(backend.emit_to_room("club:b", "balance", "2").await.matched, 1);
    assert_eq!(player.receive().await, PlainFrame::text("2"));
}

#[tokio::test]
async fn a_bad_or_foreign_token_ends_a_live_connection() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let invalid = "Invalid or expired token";
    for (message, reason) in [
        (auth_message("nonsense"), invalid),
        (auth_message(&token("43")), invalid),
        (auth_message(""), "Authentication token required"),
        (r#"{"type":"auth","access_token":"\ud800"}"#.into(), invalid),
    ] {
        let mut player = connect(&server, "42").await;
        player.send_text(message).await;
        assert_eq!(player.receive().await, PlainFrame::closed(4401, reason));
        assert!(!backend.get_user("42").await.online);
        assert!(!backend.get_user("43").await.online);
    }
}

#[tokio::test]
async fn whatever_else_a_device_says_is_ignored_and_counted() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let mut player = connect(&server, "42").await;
    let before = ignored(&server).await;
    for message in ["", "hello", r#"{"type":"subscribe"}"#] {
        player.send_text(message).await;
    }
    player.send_binary(vec![1, 2, 3]).await;
    player.heard().await;
    // The metrics are the process's, and so other tests' too.
    assert!(ignored(&server).await >= before + 4);
    backend.emit_to_user("42", "balance", "1").await;
    assert_eq!(player.receive().await, PlainFrame::text("1"), "it lives, and got no answer");
}

async fn ignored(server: &TestServer) -> u64 {
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw_http(server.admin(), request).await;
    let name = "bugle_client_events_refused_total{reason=\"unknown_message\"} ";
    let answer = String::from_utf8_lossy(&answer);
    let value = answer.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.parse().expect("a count"))
}
