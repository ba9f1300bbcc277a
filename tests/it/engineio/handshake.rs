//! What the first packet of a session says.

use std::{collections::HashSet, time::Duration};

use bugle::socketio::TransportName;
use serde_json::{Value, json};

use super::{Poller, REVISIONS, Revision};
use crate::harness::{RawMessage, RawSocket, TestServer, ask};

/// The handshake on a WebSocket of its own.
async fn on_websocket(server: &TestServer, revision: Revision) -> Value {
    let mut socket = RawSocket::connect(server.clients(), &revision.target("websocket", None)).await.expect("it opens");
    let RawMessage::Text(text) = socket.receive().await else { panic!("the first message is text") };
    serde_json::from_str(text.strip_prefix('0').expect("the first packet opens the session")).expect("it is JSON")
}

#[tokio::test]
async fn a_handshake_says_all_that_a_client_needs_on_each_transport() {
    let server = TestServer::start_with(|config| {
        config.socketio.ping_interval = Duration::from_millis(1_500);
        config.socketio.ping_timeout = Duration::from_secs(2);
        config.socketio.max_message = 4_321;
    })
    .await;
    for revision in REVISIONS {
        let polling = Poller::open(&server, revision).await.handshake;
        let websocket = on_websocket(&server, revision).await;
        for (mut handshake, upgrades) in [(polling, json!(["websocket"])), (websocket, json!([]))] {
            let sid = handshake["sid"].take();
            assert!(sid.as_str().is_some_and(|sid| sid.len() >= 16), "{revision:?}: {sid}");
            let expected = json!({
                "sid": null, "upgrades": upgrades, "pingInterval": 1_500, "pingTimeout": 2_000, "maxPayload": 4_321,
            });
            assert_eq!(handshake, expected, "{revision:?}");
        }
    }
}

#[tokio::test]
async fn no_upgrade_is_offered_where_only_polling_is_open() {
    let server = TestServer::start_with(|config| config.socketio.transports = vec![TransportName::Polling]).await;
    for revision in REVISIONS {
        assert_eq!(Poller::open(&server, revision).await.handshake["upgrades"], json!([]));
    }
}

#[tokio::test]
async fn a_transport_that_is_not_open_is_unknown() {
    let server = TestServer::start_with(|config| config.socketio.transports = vec![TransportName::WebSocket]).await;
    for revision in REVISIONS {
        let answer = ask(server.clients(), "GET", &revision.target("polling", None), "").await;
        assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"code":0,"message":"Transport unknown"}"#));
        on_websocket(&server, revision).await;
    }
}

#[tokio::test]
async fn no_two_sessions_have_one_id() {
    let server = TestServer::start().await;
    let mut ids = HashSet::new();
    for _ in 0..50 {
        for revision in REVISIONS {
            ids.insert(Poller::open(&server, revision).await.handshake["sid"].to_string());
        }
    }
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn an_answer_to_a_poll_is_plain_text_that_nobody_keeps() {
    let server = TestServer::start().await;
    for revision in REVISIONS {
        let opened = ask(server.clients(), "GET", &revision.target("polling", None), "").await;
        let connected = Poller::connected(&server, revision, "42").await;
        server.backend().await.emit_to_user("42", "e", "1").await;
        for answer in [opened, connected.poll().await] {
            let kind = answer.header("content-type").map(str::to_ascii_lowercase);
            assert_eq!(kind.as_deref(), Some("text/plain; charset=utf-8"), "{revision:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{revision:?}");
        }
    }
}
