//! Compression of what polls bring.

use std::io::Read;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::harness::{Caller, HttpClient, TestServer, deadline, token};

/// A polling session, request by request.
struct Session {
    http: HttpClient,
    target: String,
}

impl Session {
    /// A connected device of user 42, welcomed.
    async fn open(server: &TestServer, accepts: &'static str) -> Self {
        let mut caller = Caller::new(server.clients());
        caller.headers.push((header::ACCEPT_ENCODING, HeaderValue::from_static(accepts)));
        let http = HttpClient::new(caller, CancellationToken::new());
        let mut session = Self { http, target: "/socket.io/?EIO=4&transport=polling".to_owned() };
        let opened = session.request(Method::GET, "").await;
        let handshake: Value = serde_json::from_slice(&opened.body()[1..]).expect("a handshake");
        session.target += &format!("&sid={}", handshake["sid"].as_str().expect("a session id"));
        session.request(Method::POST, &format!("40{{\"token\":\"{}\"}}", token("42"))).await;
        let mut heard = String::new();
        while !heard.contains("connected") {
            heard += &text(&session.poll().await);
        }
        session
    }

    async fn poll(&mut self) -> Response<Bytes> {
        self.request(Method::GET, "").await
    }

    async fn request(&mut self, method: Method, body: &str) -> Response<Bytes> {
        let request = self.http.request(method, &self.target, Bytes::copy_from_slice(body.as_bytes()));
        let response = deadline("an answer", request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        response
    }
}

fn is_compressed(response: &Response<Bytes>) -> bool {
    response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip")
}

fn text(response: &Response<Bytes>) -> String {
    let mut text = String::new();
    let body = &response.body()[..];
    if is_compressed(response) {
        flate2::read::GzDecoder::new(body).read_to_string(&mut text).expect("gzip of a text");
    } else {
        text.push_str(std::str::from_utf8(body).expect("a text"));
    }
    text
}

#[tokio::test]
async fn a_large_poll_is_compressed_for_a_device_that_accepts_it_and_a_small_one_is_not() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut session = Session::open(&server, "br, gzip").await;
    let large = format!("\"{}\"", "a".repeat(2_000));

    backend.emit_to_user("42", "large", &large).await;
    let poll = session.poll().await;
    assert!(is_compressed(&poll) && poll.body().len() < 200, "{poll:?}");
    assert!(poll.headers().get_all(header::VARY).iter().any(|vary| vary == "accept-encoding"), "{poll:?}");
    assert_eq!(text(&poll), format!("42[\"large\",{large}]"));

    backend.emit_to_user("42", "small", "1").await;
    assert!(!is_compressed(&session.poll().await));

    let mut plain = Session::open(&server, "br").await;
    backend.emit_to_user("42", "large", &large).await;
    let poll = plain.poll().await;
    assert!(!is_compressed(&poll) && poll.body().len() > 2_000);
}

#[tokio::test]
async fn nothing_is_compressed_where_that_is_off() {
    let server = TestServer::start_with(|config| config.clients.compress_from = 0).await;
    let mut session = Session::open(&server, "gzip").await;
    server.backend().await.emit_to_user("42", "large", &format!("\"{}\"", "a".repeat(2_000))).await;
    assert!(!is_compressed(&session.poll().await));
}

#[tokio::test]
async fn a_device_that_fetches_all_is_not_slow_though_little_of_it_is_on_the_wire() {
    let server = TestServer::start_with(|config| config.socketio.queue_bytes = 16 * 1024).await;
    let backend = server.backend().await;
    let mut session = Session::open(&server, "gzip").await;
    let payload = format!("\"{}\"", "a".repeat(4_000));
    for _ in 0..20 {
        assert_eq!(backend.emit_to_user("42", "e", &payload).await.enqueued, 1);
        assert!(is_compressed(&session.poll().await));
    }
}

#[tokio::test]
async fn a_websocket_opens_whatever_the_device_accepts() {
    let server = TestServer::start_with(|config| config.clients.compress_from = 1).await;
    let device = server.device("42").header("accept-encoding", "gzip").connect().await;
    let mut device = device.expect("the device connects");
    server.backend().await.emit_to_user("42", "e", "1").await;
    device.expect_event("e").await;
}
