//! How connections end.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{POLLING, WEBSOCKET, end_of, online, raw_device, request, session_id, status, streams_held};
use crate::harness::{Backend, ClosedBy, Device, EVERY_WAY, Protocol, RawSocket, TestServer, Transport};

async fn connect(server: &TestServer, transport: Transport, protocol: Protocol) -> Device {
    let device = server.device("42").transport(transport).protocol(protocol).connect().await;
    device.unwrap_or_else(|error| panic!("{protocol:?} over {transport:?}: {error:?}"))
}

#[tokio::test]
async fn a_user_who_is_disconnected_is_told_and_stays_away() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (transport, protocol) in EVERY_WAY {
        let mut device = connect(&server, transport, protocol).await;
        let called = Instant::now();
        assert_eq!(backend.disconnect_user("42", "signed out").await.disconnected, 1);
        assert_eq!(backend.get_stats().await.connections, 0, "it is forgotten at once");
        let told = device.expect_event("bugle:disconnect").await;
        assert_eq!(told.json(), r#"{"code":"disconnected","reason":"signed out","retry":false}"#);
        assert_eq!(device.closed().await.by, ClosedBy::ServerPacket, "{protocol:?} over {transport:?}");
        device.transport_closed().await;
        assert!(called.elapsed() < Duration::from_millis(1500), "{:?}", called.elapsed());
    }
    streams_held(&server, &backend, 0).await;
}

#[tokio::test]
async fn connections_that_end_by_themselves_are_forgotten_at_once() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (transport, protocol) in EVERY_WAY {
        connect(&server, transport, protocol).await.close().await;
        online(&backend, 0).await;
    }
    for transport in [Transport::WebSocket, Transport::Upgrade] {
        connect(&server, transport, Protocol::V4).await.abort().await;
        online(&backend, 0).await;
    }
    let stats = backend.get_stats().await;
    assert_eq!((stats.users, stats.rooms), (0, 0));
    streams_held(&server, &backend, 0).await;
}

#[tokio::test]
async fn a_device_that_does_not_answer_pings_is_forgotten() {
    let server = TestServer::start_with(|config| {
        config.socketio.ping_interval = Duration::from_millis(200);
        config.socketio.ping_timeout = Duration::from_millis(200);
    })
    .await;
    let backend = server.backend().await;
    let mut device = server.connect("43").await;
    let mut polling = server.device("43").transport(Transport::Polling).connect().await.expect("it is let in");
    let mut silent = raw_device(&server, "42").await;
    online(&backend, 3).await;
    end_of(&mut silent).await;
    assert!(!backend.get_user("42").await.online);
    assert!(device.closed_within(Duration::from_millis(500)).await.is_none(), "who answers stays");
    assert!(polling.closed_within(Duration::from_millis(100)).await.is_none(), "who answers stays");
}

#[tokio::test]
async fn a_device_that_leaves_the_namespace_and_stays_is_cut() {
    let server = TestServer::start_with(|config| config.socketio.connect_timeout = Duration::from_millis(300)).await;
    let backend = server.backend().await;
    let mut socket = raw_device(&server, "42").await;
    socket.send_text("41").await;
    online(&backend, 0).await;
    end_of(&mut socket).await;
    streams_held(&server, &backend, 0).await;
}

#[tokio::test]
async fn a_transport_has_one_device_at_a_time_and_a_second_one_is_cut_off() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut socket = raw_device(&server, "42").await;
    socket.send_text("41").await;
    online(&backend, 0).await;
    socket.send_text(super::connect_packet("43")).await;
    online(&backend, 1).await;
    assert!(backend.get_user("43").await.online, "a device that has left may connect again");
    socket.send_text(super::connect_packet("44")).await;
    end_of(&mut socket).await;
    assert!(!backend.get_user("44").await.online);
    online(&backend, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn devices_that_come_and_go_on_one_transport_without_a_pause_leave_nothing_behind() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for _ in 0..100 {
        let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
        for _ in 0..3 {
            socket.send_text(super::connect_packet("42")).await;
            socket.send_text("41").await;
        }
        socket.abort();
    }
    online(&backend, 0).await;
    assert_eq!(backend.get_stats().await.rooms, 0);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_connection() {
    let server = TestServer::start_with(|config| config.socketio.max_message = 2048).await;
    let backend = server.backend().await;
    let mut socket = raw_device(&server, "42").await;
    socket.send_text(format!(r#"42["x","{}"]"#, "x".repeat(2048))).await;
    end_of(&mut socket).await;
    let mut socket = raw_device(&server, "42").await;
    socket.send_text(r#"451-["x",{"_placeholder":true,"num":0}]"#).await;
    socket.send_binary(vec![0; 4096]).await;
    end_of(&mut socket).await;
    let mut fresh = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
    fresh.send_text(format!("40{}", json!({ "token": "x".repeat(4096) }))).await;
    end_of(&mut fresh).await;

    let opened = request(server.clients(), "GET", POLLING, &[], "").await;
    let session = format!("{POLLING}&sid={}", session_id(&opened));
    let posted = request(server.clients(), "POST", &session, &[], &"4".repeat(4096)).await;
    assert!((400..500).contains(&status(&posted)), "{posted}");
    assert_eq!(status(&request(server.clients(), "GET", &session, &[], "").await), 400, "the session is gone");
    online(&backend, 0).await;
}

#[tokio::test]
async fn an_upgraded_session_cannot_be_upgraded_again_by_whoever_knows_its_id() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = connect(&server, Transport::Upgrade, Protocol::V4).await;
    let target = format!("{WEBSOCKET}&sid={}", device.session_id());
    for _ in 0..3 {
        assert!(RawSocket::connect(server.clients(), &target).await.is_err());
    }
    backend.emit_to_user("42", "news", "1").await;
    device.expect_event("news").await;
    backend.disconnect_user("42", "").await;
    device.expect_event("bugle:disconnect").await;
    device.transport_closed().await;
    streams_held(&server, &backend, 0).await;
}

/// Everything that the server tells of a user to backends.
async fn told_of(backend: &Backend, user: &str) -> String {
    let presence = format!("{:?}{:?}", backend.get_user(user).await, backend.get_stats().await);
    let room = backend.get_room(&format!("user:{user}")).await.expect("somebody is there");
    let receipt = backend.emit_to_user(user, "news", "1").await;
    format!("{presence}{room:?}{receipt:?}")
}

#[tokio::test]
async fn the_session_id_is_told_to_nobody() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (transport, protocol) in EVERY_WAY {
        let mut device = server.device("42").transport(transport).protocol(protocol).without_welcome();
        device = device.header("user-agent", "Tests/1");
        let mut device = device.connect().await.expect("it is let in");
        let sid = device.session_id().to_owned();
        let told = told_of(&backend, "42").await;
        assert!(!told.contains(&sid), "{told}");
        let ack = device.emit_with_ack("unknown", &[]).await;
        assert!(!json!(ack).to_string().contains(&sid), "{ack:?}");
        backend.disconnect_user("42", "").await;
        for name in ["connected", "news", "bugle:disconnect"] {
            let event = device.expect_event(name).await;
            assert!(!event.raw.contains(&sid), "{}", event.raw);
        }
        let metrics = request(server.admin(), "GET", "/metrics", &[], "").await;
        assert!(!metrics.contains(&sid));
    }
}
