//! What the log tells, and what it never does.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::{Arc, Once},
};

use bugle::telemetry::is_ours_or_grave;
use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::{filter::dynamic_filter_fn, layer::SubscriberExt};

use crate::harness::{API_KEY, Backend, Device, Protocol, SECRET, TestServer, Transport, token};

thread_local! {
    /// Where this thread's lines go. A test and its server run on one thread.
    static OF_THIS_THREAD: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// What was logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Writes to the thread's log.
struct ThreadLog;

impl Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        OF_THIS_THREAD.with_borrow(|log| {
            if let Some(Log(lines)) = log {
                lines.lock().extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Takes all that is logged on this thread, at every level. One subscriber serves all tests: whether a line is wanted at all
    /// is cached for the whole process, and subscribers that come and go would race for that.
    pub(crate) fn start() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let wanted = dynamic_filter_fn(|metadata, _| {
                is_ours_or_grave(metadata) && OF_THIS_THREAD.with_borrow(Option::is_some)
            });
            let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| ThreadLog);
            let subscriber = tracing_subscriber::registry().with(lines).with(wanted);
            tracing::subscriber::set_global_default(subscriber).expect("no other test has one");
        });
        let log = Self::default();
        OF_THIS_THREAD.set(Some(log.clone()));
        log
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    #[track_caller]
    pub(crate) fn has_line(&self, parts: &[&str]) {
        let text = self.text();
        let found = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line has {parts:?}:\n{text}");
    }
}

/// A device comes in every way there is, with `secret` in its query, gets an event and is sent away; answers its secrets.
async fn visit(server: &TestServer, backend: &Backend, transport: Transport, protocol: Protocol) -> Vec<String> {
    let token = token("42");
    let signature = token.rsplit('.').next().expect("a token has parts").to_owned();
    let device = Device::builder(server.clients()).token(&token).query("secret", "in-the-query");
    let device = device.transport(transport).protocol(protocol).header("cookie", "in-the-cookie");
    let mut device = device.connect().await.expect("the device is let in");
    device.emit_with_ack("unknown", &[json!("in-the-client-event")]).await;
    device.emit_with_ack("bugle:refresh", &[json!({ "token": "in-the-refresh" })]).await;
    backend.emit_to_user("42", "news", r#""in-the-payload""#).await;
    device.expect_event("news").await;
    let secrets = vec![token, signature, device.session_id().to_owned()];
    backend.disconnect_user("42", "signed out").await;
    device.transport_closed().await;
    secrets
}

#[tokio::test]
async fn connects_refusals_and_disconnects_are_logged_and_no_secret_ever_is() {
    let log = Log::start();
    let server = TestServer::start_with(|config| config.limits.connections_per_address = 2).await;
    let backend = server.backend().await;
    let mut secrets: Vec<String> = [
        API_KEY,
        SECRET,
        "in-the-query",
        "in-the-cookie",
        "in-the-client-event",
        "in-the-refresh",
        "in-the-payload",
        "in-the-token",
        "in-the-auth",
        "in-the-header",
        "a-wrong-api-key",
        "secret=",
        "?EIO",
    ]
    .map(str::to_owned)
    .into();
    for transport in [Transport::WebSocket, Transport::Polling, Transport::Upgrade] {
        for protocol in [Protocol::V4, Protocol::V3] {
            secrets.extend(visit(&server, &backend, transport, protocol).await);
        }
    }
    let device = || Device::builder(server.clients());
    drop(device().query_token("in-the-token").connect().await.expect_err("it is refused"));
    drop(device().auth(json!({ "token": "in-the-auth" })).connect().await.expect_err("it is refused"));
    drop(device().header_token("in-the-header").connect().await.expect_err("it is refused"));
    let origin = server.device("43").origin("https://evil.example").query("secret", "in-the-query");
    drop(origin.connect().await.expect_err("it is refused"));
    let stranger = Backend::connect(server.grpc(), "a-wrong-api-key-of-thirty-two-bytes-or-more").await;
    stranger.get_room("x").await.expect_err("the key is wrong");

    log.has_line(&[
        "INFO",
        "connected",
        "user.id=42",
        "socketio-websocket",
        "client.address=127.0.0.1",
        "connection.id=",
    ]);
    log.has_line(&["INFO", "connected", "socketio-polling"]);
    log.has_line(&["INFO", "disconnected", "user.id=42", "close.code=\"disconnected\"", "signed out"]);
    log.has_line(&["INFO", "refused a device", "refusal.reason=\"malformed\""]);
    log.has_line(&["INFO", "refused a transport", "refusal.reason=\"origin\""]);
    log.has_line(&["DEBUG", "emitted", "room.name=user:42", "matched=1"]);
    log.has_line(&["INFO", "refused a client event", "unknown_event"]);
    let text = log.text();
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{secret} is in the log: {line:?}");
    }
}

#[tokio::test]
async fn a_device_that_goes_by_itself_is_logged_with_how() {
    let log = Log::start();
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let online = async |count| while backend.get_stats().await.connections != count {};
    server.connect("left").await.close().await;
    online(0).await;
    server.connect("reset").await.abort().await;
    online(0).await;
    log.has_line(&["disconnected", "user.id=left", "close.code=\"left\""]);
    log.has_line(&["disconnected", "user.id=reset", "close.code=\"transport_error\""]);
}
