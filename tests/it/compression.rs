//! Compression of what polls and REST bring.

use std::io::Read;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::harness::{HttpCaller, HttpClient, PlainFrame, TestServer, answer, deadline, to_user, token};
use crate::websocket;

/// A polling session, request by request.
struct Session {
    http: HttpClient,
    target: String,
}

impl Session {
    /// A connected device of user 42, welcomed.
    async fn open(server: &TestServer, accepts: &'static str) -> Self {
        let mut caller = HttpCaller::new(server.clients());
        caller.headers.push((header::ACCEPT_ENCODING, HeaderValue::from_static(accepts)));
        let http = HttpClient::new(caller, CancellationToken::new());
        let mut session = Self { http, target: "/socket.io/?EIO=4&transport=polling".to_owned() };
        let opened = session.request(Method::GET, "").await;
        let handshake: Value = serde_json::from_slice(&opened.body()[1..]).expect("a handshake");
        let id = handshake["sid"].as_str().expect("a session id");
        session.target = format!("{}&sid={id}", session.target);
        session.request(Method::POST, &format!("40{{\"token\":\"{}\"}}", token("42"))).await;
        let welcome = event(&session.poll().await).expect("an event");
        assert!(welcome.contains("connected"), "{welcome}");
        session
    }

    /// The next poll that brings an event: a ping may come by itself.
    async fn poll(&mut self) -> Response<Bytes> {
        loop {
            let response = self.request(Method::GET, "").await;
            if event(&response).is_some() {
                return response;
            }
        }
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

/// The event that a poll brings, which a ping may come with.
fn event(response: &Response<Bytes>) -> Option<String> {
    text(response).split('\u{1e}').find(|packet| packet.starts_with("42")).map(str::to_owned)
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
    assert_eq!(event(&poll), Some(format!("42[\"large\",{large}]")));

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

#[tokio::test]
async fn a_plain_websocket_opens_whatever_the_device_accepts() {
    let server = websocket::start_with(|config| config.clients.compress_from = 1).await;
    let device = websocket::device(&server).header("accept-encoding", "gzip").open().await;
    let mut device = device.expect("the device connects");
    device.authenticate(&token("42")).await;
    server.backend().await.emit_to_user("42", "balance", "1").await;
    assert_eq!(device.receive().await, PlainFrame::text("1"));
}

#[tokio::test]
async fn a_large_answer_of_rest_is_compressed_and_a_small_one_is_not() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let large = format!("\"{}\"", "a".repeat(2_000));
    for (event, json) in [("large", large.as_str()), ("small", "1")] {
        let options = Some(EmitOptions { retain: true, ..EmitOptions::default() });
        let request = EmitToUserRequest { options, ..to_user("42", event, json) };
        answer(backend.notify().emit_to_user(request)).await.expect("it is retained");
    }
    let get = async |event: &str, accepts: &'static str| {
        let mut caller = HttpCaller::new(server.clients());
        let bearer = format!("Bearer {}", token("42")).parse().expect("a header");
        caller.headers.push((header::ACCEPT_ENCODING, HeaderValue::from_static(accepts)));
        caller.headers.push((header::AUTHORIZATION, bearer));
        let mut http = HttpClient::new(caller, CancellationToken::new());
        let target = format!("/bugle/retained/{event}");
        let request = http.request(Method::GET, &target, Bytes::new());
        let response = deadline("an answer", request).await.expect("an answer");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        response
    };
    let compressed = get("large", "gzip").await;
    assert!(is_compressed(&compressed) && compressed.body().len() < 200, "{compressed:?}");
    assert_eq!(text(&compressed), large);
    assert!(!is_compressed(&get("large", "br").await));
    assert!(!is_compressed(&get("small", "gzip").await));
}
