//! The server stops in order, and everybody is told.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bugle::proto::v1::{Emit, EmitStreamRequest, emit, emit_result};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::harness::{Backend, ConnectError, Device, EVERY_WAY, TestServer, Transport, deadline, raw_http};

async fn status(admin: SocketAddr, path: &str) -> String {
    let answer = raw_http(admin, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer to {path}: {answer:?}")).to_owned()
}

/// Waits until the server is on its way out.
async fn stopping(server: &TestServer) {
    server.stop();
    deadline("readiness to go down", async { while status(server.admin(), "/readyz").await != "503" {} }).await;
}

async fn told(device: &mut Device) {
    let goodbye = device.expect_event("bugle:disconnect").await.value();
    assert_eq!(goodbye, json!({ "code": "draining", "reason": "the server is stopping", "retry": true }));
}

#[tokio::test]
async fn every_device_is_told_to_come_back_and_cut_and_the_server_ends_well() {
    let mut server = TestServer::start().await;
    let mut devices = Vec::new();
    for (transport, protocol) in EVERY_WAY {
        let device = server.device("42").transport(transport).protocol(protocol).connect().await;
        devices.push(device.expect("the device is let in"));
    }
    let asked = Instant::now();
    server.stop();
    for device in &mut devices {
        told(device).await;
        device.transport_closed().await;
    }
    server.stopped().await.expect("the server ends well");
    assert!(asked.elapsed() < Duration::from_secs(3), "before its deadline: {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_device_between_two_polls_is_told_when_it_polls_again() {
    let mut server = TestServer::start().await;
    let polling = server.device("42").transport(Transport::Polling).connect().await;
    let mut polling = polling.expect("the device is let in");
    polling.stop_reading();
    let mut websocket = server.connect("43").await;
    server.stop();
    told(&mut websocket).await;
    polling.resume_reading();
    told(&mut polling).await;
    server.stopped().await.expect("the server ends well");
}

#[tokio::test]
async fn readiness_goes_down_first_and_new_sessions_are_told_to_come_back() {
    let mut server = TestServer::start_with(|config| config.drain.pace = 10).await;
    let devices = join_all((0..15).map(|_| server.connect("42"))).await;
    assert_eq!(status(server.admin(), "/readyz").await, "200");
    stopping(&server).await;
    assert_eq!(status(server.admin(), "/livez").await, "200");
    for transport in [Transport::WebSocket, Transport::Polling] {
        match server.device("43").transport(transport).connect().await {
            Err(ConnectError::Http { status, headers, .. }) => {
                assert_eq!((status.as_u16(), headers.get("retry-after").is_some()), (503, true));
            }
            other => panic!("a new session over {transport:?} is not turned away: {other:?}"),
        }
    }
    drop(devices);
    server.stopped().await.expect("the server ends well");
}

#[tokio::test]
async fn a_transport_that_was_opened_before_the_stop_cannot_connect_after_it() {
    let mut server = TestServer::start_with(|config| config.drain.pace = 10).await;
    let _devices = join_all((0..10).map(|_| server.connect("42"))).await;
    let mut late = server.device("43").open_raw().await.expect("the WebSocket opens");
    stopping(&server).await;
    late.send_text(format!("40{}", json!({ "token": crate::harness::token("43") }))).await;
    loop {
        match late.receive().await {
            crate::harness::RawMessage::Text(text) => assert!(!text.starts_with('4'), "{text}"),
            crate::harness::RawMessage::Binary(bytes) => panic!("bytes came: {bytes:?}"),
            crate::harness::RawMessage::Closed(_) => break,
        }
    }
    server.stopped().await.expect("the server ends well");
}

#[tokio::test]
async fn devices_are_sent_away_at_the_configured_pace() {
    let mut server = TestServer::start_with(|config| config.drain.pace = 10).await;
    let mut devices = join_all((0..12).map(|_| server.connect("42"))).await;
    server.stop();
    let at = join_all(devices.iter_mut().map(async |device| device.expect_event("bugle:disconnect").await.at)).await;
    let (first, last) = (at.iter().min().expect("some"), at.iter().max().expect("some"));
    let took = last.duration_since(*first);
    assert!((Duration::from_secs(1)..Duration::from_millis(1800)).contains(&took), "{took:?}");
    server.stopped().await.expect("the server ends well");
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_dropped() {
    let mut server = TestServer::start_with(|config| {
        config.drain.pace = 1;
        config.drain.deadline = Duration::from_secs(1);
    })
    .await;
    let _devices = join_all((0..10).map(|_| server.connect("42"))).await;
    let asked = Instant::now();
    server.stop();
    server.stopped().await.expect("it was asked to");
    let took = asked.elapsed();
    assert!((Duration::from_millis(950)..Duration::from_secs(2)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_device_that_does_not_read_does_not_hold_up_the_stop() {
    let mut server = TestServer::start_with(|config| config.socketio.queue_bytes = 64 * 1024 * 1024).await;
    let backend = server.backend().await;
    let stalled = server.device("42").receive_buffer(4096).connect().await.expect("the device is let in");
    stalled.stop_reading();
    let block = format!("\"{}\"", "x".repeat(64 * 1024));
    for _ in 0..150 {
        backend.emit_to_user("42", "block", &block).await;
    }
    let mut other = server.connect("43").await;
    let asked = Instant::now();
    server.stop();
    told(&mut other).await;
    server.stopped().await.expect("the server ends well");
    assert!(asked.elapsed() < Duration::from_secs(3), "before its deadline: {:?}", asked.elapsed());
}

/// Emits in calls of its own until a call is not accepted; answers how many were.
async fn emit_until_refused(backend: Backend) -> u64 {
    let mut accepted = 0;
    loop {
        let payload = Some(bugle::proto::v1::emit_to_user_request::Payload::Json("1".into()));
        let request =
            bugle::proto::v1::EmitToUserRequest { user_id: "42".into(), event: "count".into(), payload, options: None };
        match backend.notify().emit_to_user(request).await {
            Ok(answer) => accepted += answer.into_inner().receipt.expect("a receipt").enqueued,
            Err(_) => return accepted,
        }
    }
}

#[tokio::test]
async fn what_was_accepted_arrives_before_the_farewell() {
    let mut server = TestServer::start().await;
    let mut device = server.connect("42").await;
    let backends = [server.backend().await, server.backend().await, server.backend().await];
    let stopping = async {
        device.expect_event("count").await;
        server.stop();
        let mut arrived = 1;
        loop {
            let event = device.next_event().await;
            if event.name == "bugle:disconnect" {
                return arrived;
            }
            arrived += 1;
        }
    };
    let emitting = join_all(backends.into_iter().map(emit_until_refused));
    let (arrived, accepted) = tokio::join!(stopping, emitting);
    assert_eq!(accepted.iter().sum::<u64>(), arrived);
    server.stopped().await.expect("the server ends well");
}

#[tokio::test]
async fn a_stream_answers_what_it_has_read_and_ends_unavailable() {
    let mut server = TestServer::start().await;
    let mut device = server.connect("42").await;
    let (emits, requests) = mpsc::channel(16);
    let mut notify = server.backend().await.notify();
    let mut answers = notify.emit_stream(ReceiverStream::new(requests)).await.expect("it begins").into_inner();
    let sending = async {
        let mut number = 0_u32;
        loop {
            let emit = Emit {
                target: Some(emit::Target::UserId("42".into())),
                event: "count".into(),
                payload: Some(emit::Payload::Json(number.to_string())),
                options: None,
            };
            let request = EmitStreamRequest { correlation_id: number.to_string(), emit: Some(emit) };
            if emits.send(request).await.is_err() {
                // The server reads no more; what it answers counts now.
                return std::future::pending().await;
            }
            number += 1;
        }
    };
    let answering = async {
        let mut answered = 0_u32;
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    assert_eq!(answer.correlation_id, answered.to_string());
                    let result = answer.result.and_then(|result| result.result).expect("a result");
                    assert!(matches!(result, emit_result::Result::Receipt(receipt) if receipt.enqueued == 1));
                    answered += 1;
                    if answered == 500 {
                        server.stop();
                    }
                }
                Ok(None) => panic!("the stream ends as if all were done"),
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    return answered;
                }
            }
        }
    };
    let answered = deadline("the end of the stream", async {
        tokio::select! {
            answered = answering => answered,
            () = sending => unreachable!("it never ends"),
        }
    })
    .await;
    for number in 0..answered {
        assert_eq!(device.expect_event("count").await.json(), number.to_string());
    }
    told(&mut device).await;
    server.stopped().await.expect("the server ends well");
}
