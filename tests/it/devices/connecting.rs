//! From the transport to the welcome.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    INVALID, POLLING, REQUIRED, WEBSOCKET, connect_packet, end_of, next_beginning, online, request, session_id, status,
};
use crate::harness::{Device, Protocol, RawMessage, RawSocket, TestServer, Transport, token_with};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_device_is_welcomed_with_who_it_is_and_where() {
    let server = TestServer::start_with(|config| {
        config.auth.rooms = vec!["lobby".into(), "team:{claim.teams}".into(), "org:{claim.org.id}".into()];
    })
    .await;
    let backend = server.backend().await;
    for (transport, protocol) in [
        (Transport::WebSocket, Protocol::V4),
        (Transport::Polling, Protocol::V4),
        (Transport::Upgrade, Protocol::V4),
        (Transport::WebSocket, Protocol::V3),
        (Transport::Polling, Protocol::V3),
        (Transport::Upgrade, Protocol::V3),
    ] {
        let claims = json!({ "sub": "42", "role": "admin", "teams": ["red", "blue"] });
        let device = server.device("42").token(token_with(&claims)).transport(transport).protocol(protocol);
        let mut device = device.connect().await.expect("the device is let in");
        let known = backend.get_user("42").await.connections.remove(0);
        assert_eq!((&*device.welcome().user_id, &device.welcome().connection_id), ("42", &known.id));
        let mut rooms = device.welcome().rooms.clone();
        rooms.sort();
        assert_eq!(rooms, ["everyone", "lobby", "role:admin", "team:blue", "team:red", "user:42"]);
        assert_eq!(rooms, known.rooms, "presence tells the same");
        for room in ["team:red", "role:admin", "lobby"] {
            assert_eq!(backend.emit_to_room(room, "news", "1").await.enqueued, 1, "{room}");
            device.expect_event("news").await;
        }
        device.close().await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn the_welcome_has_the_name_that_it_is_given_or_is_off() {
    let server = TestServer::start_with(|config| config.socketio.welcome = "ready".into()).await;
    let mut device = server.device("42").without_welcome().connect().await.expect("the device is let in");
    assert_eq!(device.next_event().await.value()["userId"], "42");

    let server = TestServer::start_with(|config| config.socketio.welcome = String::new()).await;
    let backend = server.backend().await;
    let mut device = server.device("42").without_welcome().connect().await.expect("the device is let in");
    backend.emit_to_user("42", "first", "1").await;
    device.expect_event("first").await;
}

#[tokio::test]
async fn there_is_no_namespace_but_the_root() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let packet = connect_packet("42").replacen("40", "40/admin,", 1);
    let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
    socket.send_text(packet).await;
    assert_eq!(next_beginning(&mut socket, "44").await, r#"44/admin,{"message":"Invalid namespace"}"#);
    assert_eq!(backend.get_stats().await.connections, 0);
}

#[tokio::test]
async fn a_refused_device_has_no_second_attempt_and_its_transport_is_cut_after_a_second() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
    socket.send_text(r#"40{"token":"bad"}"#).await;
    assert_eq!(next_beginning(&mut socket, "44").await, format!(r#"44{{"message":"{INVALID}"}}"#));
    let refused = Instant::now();
    socket.send_text(connect_packet("42")).await;
    assert_eq!(next_beginning(&mut socket, "4").await, format!(r#"44{{"message":"{INVALID}"}}"#), "as before");
    assert_eq!(backend.get_stats().await.connections, 0);
    end_of(&mut socket).await;
    let took = refused.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_refused_device_that_polls_or_is_old_is_cut_as_well() {
    let server = TestServer::start().await;
    let clients = server.clients();
    let opened = request(clients, "GET", POLLING, &[], "").await;
    let session = format!("{POLLING}&sid={}", session_id(&opened));
    assert_eq!(status(&request(clients, "POST", &session, &[], r#"40{"token":"bad"}"#).await), 200);
    let refused = Instant::now();
    assert!(request(clients, "GET", &session, &[], "").await.contains(INVALID));
    let mut answer = request(clients, "GET", &session, &[], "").await;
    while status(&answer) == 200 {
        answer = request(clients, "GET", &session, &[], "").await;
    }
    assert!(answer.contains("Session ID unknown"), "{answer}");
    assert!(refused.elapsed() < Duration::from_millis(2500), "{:?}", refused.elapsed());

    let mut socket = RawSocket::connect(clients, "/socket.io/?EIO=3&transport=websocket").await.expect("it opens");
    assert!(next_beginning(&mut socket, "44").await.contains(REQUIRED));
    end_of(&mut socket).await;
}

#[tokio::test]
async fn a_transport_without_an_accepted_connect_ends_in_time() {
    let server = TestServer::start_with(|config| config.socketio.connect_timeout = SHORT).await;
    let clients = server.clients();
    let begun = Instant::now();
    let mut silent = RawSocket::connect(clients, WEBSOCKET).await.expect("the WebSocket opens");
    let mut astray = RawSocket::connect(clients, WEBSOCKET).await.expect("the WebSocket opens");
    astray.send_text("40/admin,").await;
    let polling = session_id(&request(clients, "GET", POLLING, &[], "").await);
    end_of(&mut silent).await;
    end_of(&mut astray).await;
    assert!(begun.elapsed() >= SHORT);
    let mut poll = request(clients, "GET", &format!("{POLLING}&sid={polling}"), &[], "").await;
    while status(&poll) == 200 {
        poll = request(clients, "GET", &format!("{POLLING}&sid={polling}"), &[], "").await;
    }
    assert!(poll.contains("Session ID unknown"), "{poll}");
}

#[tokio::test]
async fn an_accepted_device_outlives_the_time_for_its_connect() {
    let server = TestServer::start_with(|config| config.socketio.connect_timeout = SHORT).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    assert!(device.closed_within(SHORT * 2).await.is_none());
    assert_eq!(backend.emit_to_user("42", "still", "1").await.enqueued, 1);
    device.expect_event("still").await;
}

#[tokio::test]
async fn nothing_reaches_a_transport_before_its_token_was_verified() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut silent = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
    let mut refused = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
    refused.send_text(r#"40{"token":"bad"}"#).await;
    next_beginning(&mut refused, "44").await;
    let old = "/socket.io/?EIO=3&transport=websocket";
    let mut old = RawSocket::connect(server.clients(), old).await.expect("the WebSocket opens");
    next_beginning(&mut old, "44").await;

    assert_eq!(backend.broadcast("secret", "1").await.matched, 0);
    assert_eq!(backend.emit_to_room("everyone", "secret", "1").await.matched, 0);
    for socket in [&mut silent, &mut refused, &mut old] {
        loop {
            match socket.receive_within(Duration::from_millis(1200)).await {
                Some(RawMessage::Text(text)) => assert!(!text.contains("secret"), "{text}"),
                Some(RawMessage::Binary(bytes)) => panic!("bytes came: {bytes:?}"),
                Some(RawMessage::Closed(_)) | None => break,
            }
        }
    }
}

#[tokio::test]
async fn several_devices_of_a_user_are_told_apart() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let phone = server.connect("42").await;
    let tablet = server.connect("42").await;
    assert_ne!(phone.welcome().connection_id, tablet.welcome().connection_id);
    let user = backend.get_user("42").await;
    assert!(user.online);
    let mut ids = [&phone, &tablet].map(|device: &Device| device.welcome().connection_id.clone());
    ids.sort();
    assert_eq!(user.connections.iter().map(|connection| connection.id.clone()).collect::<Vec<_>>(), ids);
}
