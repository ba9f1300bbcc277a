//! Devices that stop reading.

use std::time::{Duration, Instant};

use super::{online, streams, streams_held};
use crate::harness::{Backend, Device, TestServer, Transport};

/// A small window, so that the kernel's buffers are soon full.
const RECEIVE_BUFFER: u32 = 4096;
/// More than the kernel holds for a stream.
const EMITS: usize = 200;

fn block() -> String {
    format!("\"{}\"", "x".repeat(64 * 1024))
}

async fn server(queue_bytes: usize) -> TestServer {
    TestServer::start_with(|config| config.socketio.queue_bytes = queue_bytes).await
}

async fn stalled(server: &TestServer, user: &str, transport: Transport) -> Device {
    let device = server.device(user).transport(transport).receive_buffer(RECEIVE_BUFFER);
    let device = device.connect().await.expect("the device is let in");
    device.stop_reading();
    device
}

/// Emits until the stalled device is closed; answers what its emits' receipts dropped.
async fn emit_until_closed(backend: &Backend, reader: &mut Device) -> u64 {
    let block = block();
    let mut dropped = 0;
    for _ in 0..EMITS {
        let receipt = backend.emit_to_room("everyone", "block", &block).await;
        assert_eq!(receipt.matched, receipt.enqueued + receipt.dropped);
        reader.expect_event("block").await;
        dropped += receipt.dropped;
        if receipt.matched == 1 {
            return dropped;
        }
    }
    panic!("the device that does not read is still there");
}

#[tokio::test]
async fn a_device_that_stops_reading_is_closed_as_slow_and_cut_while_others_miss_nothing() {
    let server = server(64 * 1024).await;
    let backend = server.backend().await;
    for transport in [Transport::WebSocket, Transport::Upgrade] {
        let mut reader = server.connect("43").await;
        let mut slow = stalled(&server, "42", transport).await;
        assert_eq!(emit_until_closed(&backend, &mut reader).await, 1, "one frame found the queue full");
        assert!(!backend.get_user("42").await.online);
        streams_held(&server, &backend, 1).await;
        slow.resume_reading();
        slow.transport_closed().await;
        reader.close().await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn a_slow_device_is_counted_and_may_come_back() {
    let server = server(64 * 1024).await;
    let backend = server.backend().await;
    let mut reader = server.connect("43").await;
    let slow = stalled(&server, "42", Transport::WebSocket).await;
    emit_until_closed(&backend, &mut reader).await;
    slow.abort().await;
    let mut back = server.connect("42").await;
    assert_eq!(backend.emit_to_user("42", "news", "1").await.enqueued, 1);
    back.expect_event("news").await;
}

#[tokio::test]
async fn a_volatile_event_is_dropped_and_the_slow_device_stays() {
    use bugle::proto::v1::{EmitOptions, EmitToUserRequest, emit_to_user_request};
    let server = server(64 * 1024).await;
    let backend = server.backend().await;
    let mut device = stalled(&server, "42", Transport::WebSocket).await;
    let options = EmitOptions { volatile: true, ..EmitOptions::default() };
    let mut dropped = 0;
    let mut enqueued = 0;
    while dropped < 3 {
        let payload = Some(emit_to_user_request::Payload::Json(block()));
        let options = Some(options.clone());
        let request = EmitToUserRequest { user_id: "42".into(), event: "block".into(), payload, options };
        let receipt = backend.notify().emit_to_user(request).await.expect("it is accepted").into_inner().receipt;
        let receipt = receipt.expect("an accepted emit has a receipt");
        assert_eq!(receipt.matched, 1);
        dropped += receipt.dropped;
        enqueued += receipt.enqueued;
        assert!(enqueued < 500, "nothing is ever dropped");
    }
    device.resume_reading();
    for _ in 0..enqueued {
        device.expect_event("block").await;
    }
    assert_eq!(backend.emit_to_user("42", "next", "1").await.enqueued, 1);
    device.expect_event("next").await;
}

/// Emits until the kernel takes no more from the server.
async fn fill(backend: &Backend, user: &str) {
    let block = block();
    for _ in 0..EMITS {
        assert_eq!(backend.emit_to_user(user, "block", &block).await.enqueued, 1);
    }
}

#[tokio::test]
async fn a_disconnect_reaches_a_device_whose_writer_is_blocked() {
    let server = server(64 * 1024 * 1024).await;
    let backend = server.backend().await;
    for transport in [Transport::WebSocket, Transport::Upgrade] {
        let _device = stalled(&server, "42", transport).await;
        fill(&backend, "42").await;
        let called = Instant::now();
        assert_eq!(backend.disconnect_user("42", "").await.disconnected, 1);
        assert!(!backend.get_user("42").await.online);
        streams_held(&server, &backend, 0).await;
        assert!(called.elapsed() < Duration::from_secs(2), "{:?}", called.elapsed());
    }
}

#[tokio::test]
async fn a_device_that_stops_reading_within_its_bound_is_forgotten_in_fifteen_seconds() {
    let server = TestServer::start_with(|config| {
        config.socketio.queue_bytes = 64 * 1024 * 1024;
        config.socketio.ping_interval = Duration::from_millis(500);
        config.socketio.ping_timeout = Duration::from_millis(500);
    })
    .await;
    let backend = server.backend().await;
    let _device = stalled(&server, "42", Transport::WebSocket).await;
    fill(&backend, "42").await;
    assert_eq!(streams(&server), 1);
    let forgotten = async { while backend.get_stats().await.connections > 0 || streams(&server) > 0 {} };
    tokio::time::timeout(Duration::from_secs(15), forgotten).await.expect("the device is forgotten");
}
