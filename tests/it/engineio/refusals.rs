//! Requests that belong to no session or fit none: the answers are those of Socket.IO's own server, to the letter.

use super::{Poller, Revision};
use crate::harness::{Answer, HANDSHAKE, RawSocket, TestServer, Wire, ask, ask_with, http_request};

const TRANSPORT_UNKNOWN: &str = r#"{"code":0,"message":"Transport unknown"}"#;
const SESSION_UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const BAD_METHOD: &str = r#"{"code":2,"message":"Bad handshake method"}"#;
const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;
const FORBIDDEN: &str = r#"{"code":4,"message":"Forbidden"}"#;
const UNSUPPORTED: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, body: &str, asked: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body), "{asked}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{asked}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{asked}");
}

#[tokio::test]
async fn a_first_request_that_cannot_be_is_told_why() {
    let server = TestServer::start().await;
    for (method, query, body) in [
        ("GET", "EIO=4", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=pigeon", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=Polling", TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=webtransport", TRANSPORT_UNKNOWN),
        ("GET", "EIO=3&transport=flashsocket", TRANSPORT_UNKNOWN),
        ("POST", "EIO=4&transport=polling", BAD_METHOD),
        ("PUT", "EIO=4&transport=polling", BAD_METHOD),
        ("DELETE", "EIO=3&transport=polling", BAD_METHOD),
        ("POST", "EIO=4&transport=websocket", BAD_METHOD),
        ("GET", "EIO=4&transport=websocket", BAD_REQUEST),
        ("GET", "EIO=3&transport=websocket", BAD_REQUEST),
        ("GET", "EIO=5&transport=polling", UNSUPPORTED),
        ("GET", "EIO=2&transport=polling", UNSUPPORTED),
        ("GET", "EIO=four&transport=polling", UNSUPPORTED),
        ("GET", "EIO=&transport=polling", UNSUPPORTED),
        ("GET", "EIO=4&transport=polling&sid=unknown", SESSION_UNKNOWN),
        ("POST", "EIO=4&transport=polling&sid=unknown", SESSION_UNKNOWN),
        ("GET", "EIO=3&transport=polling&sid=AAAAAAAAAAAAAAAA", SESSION_UNKNOWN),
        ("POST", "EIO=3&transport=polling&sid=%00", SESSION_UNKNOWN),
    ] {
        let asked = format!("{method} ?{query}");
        let answer = ask(server.clients(), method, &format!("/socket.io/?{query}"), "").await;
        assert_refused(&answer, 400, body, &asked);
    }
}

#[tokio::test]
async fn a_websocket_that_cannot_be_is_refused_before_it_opens() {
    let server = TestServer::start().await;
    for (query, message) in [
        ("EIO=4&transport=pigeon", "Transport unknown"),
        ("EIO=4&transport=websocket&sid=unknown", "Session ID unknown"),
        ("EIO=3&transport=websocket&sid=unknown", "Session ID unknown"),
        ("EIO=5&transport=websocket", "Unsupported protocol version"),
    ] {
        let mut wire = Wire::open(server.clients()).await;
        wire.send(http_request("GET", &format!("/socket.io/?{query}"), &HANDSHAKE, b"")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(message), "{query}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_request_that_does_not_fit_its_session_is_refused_and_the_session_goes_on() {
    let server = TestServer::start().await;
    let poller = Poller::connected(&server, Revision::Four, "42").await;
    let other_revision = poller.target.replace("EIO=4", "EIO=3");
    let other_transport = poller.websocket_target();
    for target in [&other_revision, &other_transport] {
        for method in ["GET", "POST"] {
            let answer = ask(server.clients(), method, target, "").await;
            assert_refused(&answer, 400, BAD_REQUEST, &format!("{method} {target}"));
        }
    }
    let websocket = other_revision.replace("transport=polling", "transport=websocket");
    assert!(RawSocket::connect(server.clients(), &websocket).await.is_err());
    assert_eq!(server.backend().await.emit_to_user("42", "still", "1").await.enqueued, 1);
    poller.poll_for(r#"42["still",1]"#).await;
}

#[tokio::test]
async fn a_session_on_a_websocket_is_not_polled() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let target = format!("/socket.io/?EIO=4&transport=polling&sid={}", device.session_id());
    for method in ["GET", "POST"] {
        assert_refused(&ask(server.clients(), method, &target, "").await, 400, BAD_REQUEST, method);
    }
    backend.emit_to_user("42", "still", "1").await;
    device.expect_event("still").await;
}

#[tokio::test]
async fn a_page_of_another_site_is_forbidden() {
    let server = TestServer::start().await;
    for revision in super::REVISIONS {
        let evil = [("origin", "https://evil.example.com")];
        let answer = ask_with(server.clients(), "GET", &revision.target("polling", None), &evil, "").await;
        assert_refused(&answer, 403, FORBIDDEN, "a poll");
        let mut wire = Wire::open(server.clients()).await;
        let headers: Vec<_> = HANDSHAKE.into_iter().chain(evil).collect();
        wire.send(http_request("GET", &revision.target("websocket", None), &headers, b"")).await;
        assert_eq!(wire.answer().await.status, 403, "a WebSocket");
    }
}

#[tokio::test]
async fn a_session_knows_no_method_but_get_and_post() {
    let server = TestServer::start().await;
    let poller = Poller::open(&server, Revision::Four).await;
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = ask(server.clients(), method, &poller.target, "").await;
        assert!(matches!(answer.status, 400 | 405), "{method}: {}", answer.status);
    }
    assert_eq!(poller.post(&["40"]).await.status, 200, "the session goes on");
}
