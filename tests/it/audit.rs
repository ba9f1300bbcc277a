//! The audit log.

use std::{fs, path::PathBuf, sync::LazyLock};

use bugle::{
    config::Config,
    limits::Rate,
    proto::v1::{
        DeleteMessageRequest, DisconnectUserRequest, Emit, EmitBatchRequest, EmitOptions, EmitStreamRequest,
        EmitToUserRequest, EmitToUsersRequest, EraseUserRequest, GetUserRequest, SendMessageRequest, emit,
        emit_to_user_request,
    },
    telemetry::{self, LogFiles},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tracing::{Dispatch, subscriber::DefaultGuard};

use crate::harness::{
    API_KEY, Backend, TestServer, answer, api_key, auth_message, deadline, emit_to, raw_http, to_user, to_users,
};
use crate::websocket;

const WEAK: &str = "a-weak-api-key-of-thirty-two-bytes-or-more";

/// The audit log of what the test's own thread does, which is all of its server.
struct AuditLog {
    directory: TempDir,
    files: LogFiles,
    _logging: DefaultGuard,
}

/// Whether a line is wanted is cached for all threads, and while there is one subscriber alone, it is asked of the present
/// thread's, which may have none. So there are always some more.
static OTHERS: LazyLock<[Dispatch; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Dispatch::new(tracing_subscriber::registry())));

impl AuditLog {
    fn start() -> Self {
        LazyLock::force(&OTHERS);
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::defaults().expect("the defaults are good").log;
        config.audit = Self::path(&directory);
        let (logs, files) = telemetry::logs(&config).expect("the file can be written");
        Self { directory, files, _logging: tracing::subscriber::set_default(logs) }
    }

    fn path(directory: &TempDir) -> PathBuf {
        directory.path().join("audit.jsonl")
    }

    /// All lines until now, without their times.
    fn finish(self) -> Vec<Value> {
        drop(self.files);
        let text = fs::read_to_string(Self::path(&self.directory)).expect("the file is there");
        for secret in ["s3cret", API_KEY, WEAK, "eyJ"] {
            assert!(!text.contains(secret), "{text}");
        }
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect("a line is JSON");
            line.as_object_mut().expect("an object").remove("time").expect("a line has a time");
            line
        };
        text.lines().map(line).collect()
    }
}

fn emit(user: &str, event: &str, json: &str) -> EmitToUserRequest {
    let payload = Some(emit_to_user_request::Payload::Json(json.into()));
    EmitToUserRequest { user_id: user.into(), event: event.into(), payload, options: None }
}

#[tokio::test]
async fn emits_and_ends_of_connections_have_a_line_each() {
    let log = AuditLog::start();
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let id = device.welcome().connection_id.clone();
    let receipt = backend.emit_to_user("42", "BALANCE", "\"s3cret\"").await;
    backend.emit_to_room("listing:7", "sold", "1").await;
    backend.broadcast("news", "1").await;
    backend.disconnect_user("42", "logged out").await;
    device.closed().await;

    let lines = log.finish();
    let emitted = json!({
        "kind": "emit", "api_key": "test", "audience": "user:42", "event": "BALANCE",
        "message_id": receipt.message_id, "matched": 1, "enqueued": 1, "dropped": 0, "duplicate": false, "deferred": false,
    });
    assert_eq!(lines[0], emitted);
    assert_eq!((&lines[1]["audience"], &lines[2]["audience"]), (&json!("listing:7"), &json!("everyone")));
    let closed = json!({
        "kind": "disconnect", "user": "42", "connection_id": id, "code": "disconnected", "reason": "logged out",
    });
    let asked = json!({
        "kind": "disconnect_user", "api_key": "test", "audience": "user:42", "reason": "logged out", "disconnected": 1,
    });
    assert_eq!(lines[3..], [closed, asked]);
}

#[tokio::test]
async fn each_refusal_of_a_backend_has_one_line() {
    let log = AuditLog::start();
    let server = TestServer::start_with(|config| {
        config.grpc.api_keys.push(api_key("weak", WEAK, &["emit:broadcast"]));
    })
    .await;
    let weak = Backend::connect(server.grpc(), WEAK).await;
    let refused = weak.notify().emit_to_user(emit("42", "e", "\"s3cret\"")).await.expect_err("it lacks the scope");
    weak.notify().emit_to_user(emit("42", "connect", "\"s3cret\"")).await.expect_err("no such event");
    let users = EmitToUsersRequest { user_ids: vec!["1".into()], event: "e".into(), payload: None, options: None };
    weak.notify().emit_to_users(users).await.expect_err("it lacks the scope");
    let batch = ["42", ""].map(|user| Emit {
        target: Some(emit::Target::UserId(user.into())),
        event: "e".into(),
        payload: None,
        options: None,
    });
    weak.notify().emit_batch(EmitBatchRequest { emits: batch.to_vec() }).await.expect("a batch answers for each");
    let disconnect = DisconnectUserRequest { user_id: "42".into(), ..DisconnectUserRequest::default() };
    weak.notify().disconnect_user(disconnect).await.expect_err("it lacks the scope");
    weak.presence().get_user(GetUserRequest { user_id: "42".into() }).await.expect_err("it lacks the scope");
    let nobody = Backend::anonymous(server.grpc()).await;
    nobody.notify().emit_to_user(emit("42", "e", "1")).await.expect_err("it has no key");

    let lines = log.finish();
    let first = json!({
        "kind": "refusal", "api_key": "weak", "audience": "user:42", "event": "e", "code": "PERMISSION_DENIED",
        "reason": refused.message(),
    });
    assert_eq!(lines[0], first);
    let short: Vec<_> = lines[1..]
        .iter()
        .map(|line| ["api_key", "method", "audience", "code"].map(|key| line[key].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        short,
        [
            ["weak", "bugle.v1.Notify/EmitToUser", "", "INVALID_ARGUMENT"],
            ["weak", "", "user:1", "PERMISSION_DENIED"],
            ["weak", "", "user:42", "PERMISSION_DENIED"],
            ["weak", "", "", "INVALID_ARGUMENT"],
            ["weak", "", "user:42", "PERMISSION_DENIED"],
            ["weak", "bugle.v1.Presence/GetUser", "", "PERMISSION_DENIED"],
            ["", "bugle.v1.Notify/EmitToUser", "", "UNAUTHENTICATED"],
        ]
    );
}

#[tokio::test]
async fn what_a_backend_does_for_users_in_direct_messages_has_a_line_without_the_content() {
    let log = AuditLog::start();
    let server = TestServer::start_with(|config| config.messages.enabled = true).await;
    let backend = server.backend().await;
    let message = SendMessageRequest {
        sender_id: "1".into(),
        receiver_id: "2".into(),
        content: "s3cret".into(),
        client_message_id: "c".into(),
        ..SendMessageRequest::default()
    };
    let first = answer(backend.messages().send_message(message.clone())).await.expect("it is sent");
    answer(backend.messages().send_message(message.clone())).await.expect("it is known");
    let bad = SendMessageRequest { content: "s3cret\u{7}".into(), ..message.clone() };
    backend.messages().send_message(bad).await.expect_err("it has a control character");
    let other = SendMessageRequest { client_message_id: String::new(), ..message };
    answer(backend.messages().send_message(other)).await.expect("it is sent");
    let message_id = first.message.expect("there is a message").id;
    let deletion = DeleteMessageRequest { user_id: "1".into(), message_id: message_id.clone() };
    answer(backend.messages().delete_message(deletion)).await.expect("it is deleted");
    answer(backend.messages().erase_user(EraseUserRequest { user_id: "2".into() })).await.expect("it is erased");

    let lines = log.finish();
    let sent = |duplicate: bool| {
        json!({
            "kind": "message", "api_key": "test", "sender": "1", "receiver": "2", "message_id": message_id,
            "duplicate": duplicate,
        })
    };
    assert_eq!(lines[..2], [sent(false), sent(true)]);
    assert_eq!((&lines[2]["kind"], &lines[2]["method"]), (&json!("refusal"), &json!("bugle.v1.Messages/SendMessage")));
    let deleted = json!({ "kind": "delete_message", "api_key": "test", "sender": "1", "message_id": message_id });
    let erased = json!({ "kind": "erase_user", "api_key": "test", "user": "2", "deleted": 1, "mailbox_deleted": 0 });
    assert_eq!(lines[4..], [deleted, erased]);
}

#[tokio::test]
async fn each_refusal_of_a_device_has_one_line() {
    let log = AuditLog::start();
    let server = TestServer::start().await;
    server.device("42").token("s3cret").connect().await.expect_err("no such token");
    server.device("42").origin("https://elsewhere.example").connect().await.expect_err("no such page");
    let mut device = server.connect("42").await;
    device.emit_with_ack("s3cret", &[json!("s3cret")]).await;
    let id = device.welcome().connection_id.clone();

    let lines = log.finish();
    let refusal =
        |reason: &str| json!({ "kind": "refusal", "edge": "socketio", "address": "127.0.0.1", "reason": reason });
    assert_eq!(lines[..2], [refusal("malformed"), refusal("origin")]);
    assert_eq!(lines[2], json!({ "kind": "refusal", "user": "42", "connection_id": id, "code": "unknown_event" }));
}

#[tokio::test]
async fn every_way_to_emit_has_its_lines() {
    let log = AuditLog::start();
    let server = TestServer::start_with(|config| config.console.enabled = true).await;
    let backend = server.backend().await;
    let emits = ["1", "2"].map(|user| emit_to(emit::Target::UserId(user.into()), "batch", "\"s3cret\""));
    backend.notify().emit_batch(EmitBatchRequest { emits: emits.to_vec() }).await.expect("a batch is accepted");
    let emit = Some(emit_to(emit::Target::Room("r".into()), "stream", "\"s3cret\""));
    let emits = tokio_stream::iter([EmitStreamRequest { correlation_id: String::new(), emit }]);
    let answers = backend.notify().emit_stream(emits).await.expect("a stream is accepted").into_inner();
    assert_eq!(deadline("the end of the stream", answers.count()).await, 1);
    answer(backend.notify().emit_to_users(to_users(&["3", "4"], "users", "\"s3cret\""))).await.expect("it is sent");
    for _ in 0..2 {
        let options = Some(EmitOptions { collapse_key: "k".into(), ..EmitOptions::default() });
        let request = EmitToUserRequest { options, ..to_user("5", "collapsed", "\"s3cret\"") };
        answer(backend.notify().emit_to_user(request)).await.expect("it is sent");
    }
    post(&server, API_KEY, "emit", r#"{"user_id":"6","event":"console","json":"\"s3cret\""}"#).await;

    let lines: Vec<_> = log
        .finish()
        .iter()
        .map(|line| {
            assert_eq!((&line["kind"], &line["api_key"]), (&json!("emit"), &json!("test")));
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (text("audience"), text("event"), line["deferred"].as_bool().expect("a truth value"))
        })
        .collect();
    let expected = [
        ("user:1", "batch", false),
        ("user:2", "batch", false),
        ("r", "stream", false),
        ("user:3", "users", false),
        ("user:4", "users", false),
        ("user:5", "collapsed", false),
        ("user:5", "collapsed", true),
        ("user:6", "console", false),
    ];
    assert_eq!(lines, expected.map(|(audience, event, deferred)| (audience.to_owned(), event.to_owned(), deferred)));
}

/// Asks the console, and gives the answer's status line.
async fn post(server: &TestServer, key: &str, endpoint: &str, body: &str) -> String {
    let request = format!(
        "POST /console/api/{endpoint} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw_http(server.admin(), request).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn each_refusal_of_the_console_has_one_line() {
    let log = AuditLog::start();
    let server = TestServer::start_with(|config| {
        config.console.enabled = true;
        config.grpc.api_keys.push(api_key("weak", WEAK, &["emit:broadcast"]));
    })
    .await;
    for (key, endpoint, body) in [
        ("s3cret", "emit", "{}"),
        (WEAK, "emit", r#"{"user_id":"42","event":"e","json":"\"s3cret\""}"#),
        (WEAK, "emit", r#"{"user_id":"42","event":"connect","json":"\"s3cret\""}"#),
        (WEAK, "disconnect", r#"{"user_id":""}"#),
        (WEAK, "disconnect", r#"{"user_id":"42"}"#),
    ] {
        assert!(post(&server, key, endpoint, body).await.starts_with("HTTP/1.1 40"), "{endpoint} {body}");
    }
    let lines = log.finish();
    let short: Vec<_> = lines
        .iter()
        .map(|line| ["api_key", "method", "audience", "code"].map(|key| line[key].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        short,
        [
            ["", "console", "", "UNAUTHENTICATED"],
            ["weak", "", "user:42", "PERMISSION_DENIED"],
            ["weak", "console/emit", "", "INVALID_ARGUMENT"],
            ["weak", "console/disconnect", "", "INVALID_ARGUMENT"],
            ["weak", "", "user:42", "PERMISSION_DENIED"],
        ]
    );
}

#[tokio::test]
async fn refused_joins_rates_websockets_and_requests_have_one_line_each() {
    let log = AuditLog::start();
    let server = websocket::start_with(|config| {
        let rules = json!([{ "event": "subscribe:transaction", "join": "transaction:{arg}" }]);
        config.client_events = serde_json::from_value(rules).expect("a rule");
        config.limits.client_events_per_connection = Rate { per_second: 1, burst: 1 };
    })
    .await;
    let mut phone = server.device("42").path("/ws").connect().await.expect("the phone connects");
    let id = phone.welcome().connection_id.clone();
    // A slow machine is refused later.
    while phone.emit_with_ack("subscribe:transaction", &[json!("s3cret")]).await[0]["error"]["code"] != "rate" {}
    let elsewhere = websocket::device(&server).header("origin", "https://elsewhere.example").open().await;
    elsewhere.expect_err("no such page");
    let mut player = websocket::device(&server).open().await.expect("nobody knows whose it is yet");
    player.send_text(auth_message("s3cret")).await;
    player.receive().await;
    let request =
        "GET /bugle/retained HTTP/1.1\r\nhost: x\r\nauthorization: Bearer s3cret\r\nconnection: close\r\n\r\n";
    raw_http(server.clients(), request).await;

    let device =
        |edge: &str, reason: &str| json!({ "kind": "refusal", "edge": edge, "address": "127.0.0.1", "reason": reason });
    let event = json!({
        "kind": "refusal", "user": "42", "connection_id": id, "event": "subscribe:transaction", "code": "forbidden",
    });
    let rate = json!({ "kind": "refusal", "user": "42", "connection_id": id, "code": "rate" });
    let expected =
        [event, rate, device("websocket", "origin"), device("websocket", "malformed"), device("rest", "malformed")];
    let mut lines = log.finish();
    lines.dedup();
    assert_eq!(lines, expected);
}
