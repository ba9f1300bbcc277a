//! Why a connection is in a room: its token, a backend's `JoinRoom`, an event of its device. Each ends by itself, and the connection leaves
//! with the last one.

use bugle::proto::v1::JoinRoomRequest;
use serde_json::{Value, json};

use crate::harness::{Backend, Device, TestServer, answer, deadline, token_with};

async fn server() -> TestServer {
    TestServer::start_with(|config| {
        config.auth.rooms = vec!["org:{claim.org}".into()];
        config.client_events = serde_json::from_value(json!([
            { "event": "join", "join": "listing:{arg}", "rooms": "any" },
            { "event": "leave", "leave": "listing:{arg}" },
        ]))
        .expect("the rules are read");
    })
    .await
}

async fn matched(backend: &Backend, room: &str) -> u64 {
    backend.emit_to_room(room, "e", "1").await.matched
}

async fn joined_for_a_second(backend: &Backend, room: &str, user: &str) {
    let ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let request = JoinRoomRequest { room: room.into(), user_id: user.into(), ttl };
    answer(backend.rooms().join_room(request)).await.expect("the call is accepted");
}

/// A device whose token gives it the room `org:acme`.
async fn of_acme(server: &TestServer) -> Device {
    let token = token_with(&json!({ "sub": "42", "org": "acme" }));
    server.device("42").token(token).connect().await.expect("the device connects")
}

async fn say(device: &mut Device, event: &str) {
    assert_eq!(device.emit_with_ack(event, &[Value::from("7")]).await, [json!({ "ok": true })]);
}

#[tokio::test]
async fn leave_room_does_not_end_what_the_token_gives() {
    let server = server().await;
    let backend = server.backend().await;
    let _device = of_acme(&server).await;
    assert_eq!(backend.join_room("org:acme", "42").await, 0, "it is there already");
    assert_eq!(backend.leave_room("org:acme", "42").await, 0);
    assert_eq!(matched(&backend, "org:acme").await, 1);
}

#[tokio::test]
async fn the_end_of_a_ttl_takes_out_those_who_are_there_by_join_room_alone() {
    let server = server().await;
    let backend = server.backend().await;
    let _by_token = of_acme(&server).await;
    let _by_backend = server.connect("43").await;
    for user in ["42", "43"] {
        joined_for_a_second(&backend, "org:acme", user).await;
    }
    assert_eq!(matched(&backend, "org:acme").await, 2);
    let ended = Box::pin(async { while matched(&backend, "org:acme").await == 2 {} });
    deadline("the end of the ttl", ended).await;
    assert_eq!(matched(&backend, "org:acme").await, 1);
}

#[tokio::test]
async fn a_device_and_a_backend_each_end_their_own_join() {
    let server = server().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    say(&mut device, "join").await;
    backend.join_room("listing:7", "42").await;
    assert_eq!(backend.leave_room("listing:7", "42").await, 0, "its device has joined, too");
    assert_eq!(matched(&backend, "listing:7").await, 1);
    backend.join_room("listing:7", "42").await;
    say(&mut device, "leave").await;
    assert_eq!(matched(&backend, "listing:7").await, 1);
    assert_eq!(backend.leave_room("listing:7", "42").await, 1);
    assert_eq!(matched(&backend, "listing:7").await, 0);
}
