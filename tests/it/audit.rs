//! The audit log.

use std::{fs, path::PathBuf, sync::LazyLock};

use bugle::{
    config::Config,
    proto::v1::{
        DisconnectUserRequest, Emit, EmitBatchRequest, EmitToUserRequest, EmitToUsersRequest, GetUserRequest, emit,
        emit_to_user_request,
    },
    telemetry::{self, LogFiles},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tracing::{Dispatch, subscriber::DefaultGuard};

use crate::harness::{API_KEY, Backend, TestServer, api_key};

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
        "message_id": receipt.message_id, "matched": 1, "enqueued": 1, "dropped": 0, "duplicate": false,
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
