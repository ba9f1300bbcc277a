//! What is different for devices that poll.

use bugle::proto::v1::{EmitToUserRequest, Receipt, emit_to_user_request};

use super::{POLLING, online, request, session_id, status};
use crate::harness::{Backend, Device, Protocol, TestServer, Transport};

async fn emit_binary(backend: &Backend, user: &str, bytes: &[u8]) -> Receipt {
    let payload = Some(emit_to_user_request::Payload::Binary(bytes.to_vec().into()));
    let request = EmitToUserRequest { user_id: user.into(), event: "bytes".into(), payload, options: None };
    let response = backend.notify().emit_to_user(request).await.expect("the emit is accepted").into_inner();
    response.receipt.expect("an accepted emit has a receipt")
}

async fn polling(server: &TestServer, protocol: Protocol) -> Device {
    let device = server.device("42").transport(Transport::Polling).protocol(protocol).connect().await;
    device.expect("the device is let in")
}

#[tokio::test]
async fn bytes_reach_every_client_on_every_transport() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut old = polling(&server, Protocol::V3).await;
    let mut new = polling(&server, Protocol::V4).await;
    let mut old_websocket = server.device("42").protocol(Protocol::V3).connect().await.expect("it is let in");
    let receipt = emit_binary(&backend, "42", b"\x00\xff").await;
    assert_eq!((receipt.matched, receipt.enqueued, receipt.dropped), (3, 3, 0));
    for device in [&mut old, &mut new, &mut old_websocket] {
        assert_eq!(device.expect_event("bytes").await.binary().as_ref(), b"\x00\xff");
    }
}

#[tokio::test]
async fn the_largest_payload_reaches_every_device() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let text = "x".repeat(1_048_574);
    for protocol in [Protocol::V4, Protocol::V3] {
        for transport in [Transport::Polling, Transport::WebSocket] {
            let device = server.device("42").transport(transport).protocol(protocol).connect().await;
            let mut device = device.expect("the device is let in");
            let json = format!("\"{text}\"");
            assert_eq!(backend.emit_to_user("42", "large", &json).await.enqueued, 1);
            assert_eq!(device.expect_event("large").await.json().len(), json.len());
            backend.emit_to_user("42", "next", "1").await;
            device.expect_event("next").await;
            device.close().await;
            online(&backend, 0).await;
        }
    }
}

#[tokio::test]
async fn a_device_that_fetches_all_it_is_sent_is_never_slow() {
    let server = TestServer::start_with(|config| config.socketio.queue_bytes = 16 * 1024).await;
    let backend = server.backend().await;
    let json = format!("\"{}\"", "x".repeat(200));
    let mut device = polling(&server, Protocol::V4).await;
    for _ in 0..250 {
        for _ in 0..24 {
            assert_eq!(backend.emit_to_user("42", "news", &json).await.enqueued, 1);
        }
        for _ in 0..24 {
            device.expect_event("news").await;
        }
    }
}

#[tokio::test]
async fn what_waits_for_a_poll_is_bounded_and_past_the_bound_the_session_is_gone() {
    let server = TestServer::start_with(|config| config.socketio.queue_bytes = 64 * 1024).await;
    let backend = server.backend().await;
    let mut other = server.connect("42").await;
    let mut stalled = polling(&server, Protocol::V4).await;
    stalled.stop_reading();
    let json = format!("\"{}\"", "x".repeat(50_000));
    let mut emits = 0;
    while backend.get_stats().await.connections == 2 {
        emits += 1;
        assert!(emits < 10, "the device is never slow");
        let receipt = backend.emit_to_user("42", "news", &json).await;
        assert_eq!(receipt.matched, 2);
        other.expect_event("news").await;
    }
    assert!(emits >= 3, "what is within the bound is kept");
    stalled.resume_reading();
    stalled.transport_closed().await;
}

#[tokio::test]
async fn a_queue_that_is_full_of_packets_is_full() {
    let server = TestServer::start_with(|config| config.socketio.queue_bytes = 16 * 1024).await;
    let backend = server.backend().await;
    let stalled = polling(&server, Protocol::V4).await;
    stalled.stop_reading();
    let mut counted = (0, 0);
    while backend.get_stats().await.connections == 1 {
        let receipt = backend.emit_to_user("42", "n", "1").await;
        counted = (counted.0 + receipt.enqueued, counted.1 + receipt.dropped);
        assert!(counted.0 < 5_000, "the queue is never full");
    }
    assert!(counted.0 >= 1_000 && counted.1 == 1, "{counted:?}");
}

#[tokio::test]
async fn a_session_that_was_closed_is_unknown_to_its_next_request() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let clients = server.clients();
    let opened = request(clients, "GET", POLLING, &[], "").await;
    let session = format!("{POLLING}&sid={}", session_id(&opened));
    assert_eq!(status(&request(clients, "POST", &session, &[], &super::connect_packet("42")).await), 200);
    online(&backend, 1).await;
    backend.disconnect_user("42", "").await;
    let mut answer = request(clients, "GET", &session, &[], "").await;
    // A user is online a moment before the CONNECT is answered.
    while status(&answer) == 200 && !answer.contains("bugle:disconnect") {
        answer = request(clients, "GET", &session, &[], "").await;
    }
    assert!(answer.contains("bugle:disconnect"), "what was queued is told: {answer}");
    while status(&answer) == 200 {
        answer = request(clients, "GET", &session, &[], "").await;
    }
    assert!(answer.contains("Session ID unknown"), "{answer}");
    assert_eq!(status(&request(clients, "POST", &session, &[], "40").await), 400);
}

#[tokio::test]
async fn two_polls_at_once_end_the_session() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = polling(&server, Protocol::V4).await;
    let session = format!("{POLLING}&sid={}", device.session_id());
    request(server.clients(), "GET", &session, &[], "").await;
    online(&backend, 0).await;
    device.transport_closed().await;
}
