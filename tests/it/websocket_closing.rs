//! Plain WebSocket: how connections end.

use std::time::Duration;

use bugle::auth::OnExpiry;
use bugle::clock::Clock;
use bugle::proto::v1::{DisconnectUserRequest, emit_to_user_request::Payload};
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{
    Backend, PATIENCE, PlainDevice, PlainDeviceBuilder, PlainFrame, TestServer, auth_message, deadline, token,
    token_with,
};
use crate::websocket::{PATH, connect, device, emit, start_with};

#[tokio::test]
async fn a_disconnected_user_is_closed_with_4403_and_the_reason() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let mut first = connect(&server, "42").await;
    let stays = backend.get_user("42").await.connections[0].id.clone();
    let mut second = connect(&server, "42").await;

    let request = DisconnectUserRequest {
        user_id: "42".into(),
        reason: "banned".into(),
        except_connection_ids: vec![stays.clone()],
    };
    let answer = backend.notify().disconnect_user(request).await.expect("the call is accepted").into_inner();
    assert_eq!(answer.disconnected, 1);
    assert_eq!(second.receive().await, PlainFrame::closed(4403, "banned"));
    assert_eq!(second.receive().await, PlainFrame::Cut);
    assert_eq!(backend.get_user("42").await.connections[0].id, stays);

    backend.disconnect_user("42", &"é".repeat(128)).await;
    assert_eq!(first.receive().await, PlainFrame::closed(4403, &"é".repeat(61)), "as far as a close frame has room");
    assert!(!backend.get_user("42").await.online);
}

#[tokio::test]
async fn what_was_enqueued_comes_before_the_close() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let mut player = connect(&server, "42").await;
    for number in 0..50 {
        backend.emit_to_user("42", "balance", &number.to_string()).await;
    }
    backend.disconnect_user("42", "").await;
    for number in 0..50 {
        assert_eq!(player.receive().await, PlainFrame::text(&number.to_string()));
    }
    assert_eq!(player.receive().await, PlainFrame::closed(4403, "disconnected by the backend"));
}

#[tokio::test]
async fn a_stopping_server_closes_with_1001_whether_authenticated_or_not() {
    let mut server = start_with(|_| ()).await;
    let mut player = connect(&server, "42").await;
    let mut stranger = device(&server).open().await.expect("the upgrade is agreed to");
    stranger.heard().await;
    server.stop();
    let stopping = PlainFrame::closed(1001, "the server is stopping");
    assert_eq!(player.receive().await, stopping);
    assert_eq!(stranger.receive().await, stopping);
    server.stopped().await.expect("the server stops well");
}

/// A token whose leeway is over this soon.
fn short_lived(server: &TestServer, life: Duration) -> String {
    let now = server.clock.now();
    let expires_at = now.as_second() + 60;
    let token = token_with(&json!({ "sub": "42", "exp": expires_at }));
    let end = jiff::Timestamp::from_second(expires_at + 5).expect("a time of our own");
    let left = Duration::try_from(end.duration_since(now)).expect("it is to come");
    server.clock.advance(left.checked_sub(life).expect("a minute is longer"));
    token
}

#[tokio::test]
async fn a_token_ends_by_the_time_of_day_after_that_has_jumped() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let connect = async |user: &str, hours: u64| {
        let mut player = device(&server).open().await.expect("the upgrade is agreed to");
        let exp = (server.clock.now() + Duration::from_hours(hours)).as_second();
        player.authenticate(&token_with(&json!({ "sub": user, "exp": exp }))).await;
        player
    };
    let (mut short, mut long) = (connect("41", 1).await, connect("42", 4).await);
    server.clock.advance(Duration::from_hours(3));
    assert_eq!(short.receive().await, PlainFrame::closed(4401, "Invalid or expired token"));
    backend.emit_to_user("42", "balance", "1").await;
    assert_eq!(long.receive().await, PlainFrame::text("1"), "the other one stays");
    server.clock.set_back(Duration::from_hours(3));
    let mut brief = connect("43", 1).await;
    server.clock.advance(Duration::from_hours(2));
    assert_eq!(brief.receive().await, PlainFrame::closed(4401, "Invalid or expired token"));
    backend.emit_to_user("42", "balance", "2").await;
    assert_eq!(long.receive().await, PlainFrame::text("2"), "it has two hours left");
}

#[tokio::test]
async fn an_expired_token_closes_with_4401() {
    let server = start_with(|_| ()).await;
    let token = short_lived(&server, Duration::from_millis(500));
    let mut player = device(&server).open().await.expect("the upgrade is agreed to");
    player.authenticate(&token).await;
    assert_eq!(player.receive().await, PlainFrame::closed(4401, "Invalid or expired token"));
    assert!(!server.backend().await.get_user("42").await.online);
}

#[tokio::test]
async fn a_token_that_was_refreshed_in_time_or_is_kept_closes_nothing() {
    for on_expiry in [OnExpiry::Close, OnExpiry::Keep] {
        let server = start_with(|config| {
            config.auth.on_expiry = on_expiry;
            config.socketio.ping_interval = Duration::from_millis(300);
        })
        .await;
        let short = short_lived(&server, Duration::from_millis(500));
        let mut player = device(&server).open().await.expect("the upgrade is agreed to");
        player.authenticate(&short).await;
        if on_expiry == OnExpiry::Close {
            let exp = server.clock.now().as_second() + 3600;
            player.authenticate(&token_with(&json!({ "sub": "42", "exp": exp }))).await;
        }
        // The second ping is after the end of the first token.
        player.pinged().await;
        player.heard().await;
        player.pinged().await;
        player.heard().await;
        assert!(server.backend().await.get_user("42").await.online);
    }
}

/// Emits until the device's queue takes no more.
async fn fill(backend: &Backend, volatile: bool) {
    let payload = format!("\"{}\"", "a".repeat(60_000));
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if emit(backend, "balance", Some(Payload::Json(payload.clone())), volatile).await.dropped == 1 {
            return;
        }
    }
    panic!("the queue never filled");
}

/// What comes after all that [`fill`] has sent.
async fn end(device: &mut PlainDevice) -> PlainFrame {
    loop {
        let frame = device.receive().await;
        let PlainFrame::Text(text) = frame else {
            return frame;
        };
        assert_eq!(text.len(), 60_002, "whole frames");
    }
}

async fn stalled(device: PlainDeviceBuilder) -> PlainDevice {
    let mut player = device.receive_buffer(4096).open().await.expect("the upgrade is agreed to");
    player.authenticate(&token("42")).await;
    player
}

#[tokio::test]
async fn a_device_that_falls_behind_is_closed_with_4409() {
    let server = start_with(|config| config.socketio.queue_bytes = 256 << 10).await;
    let backend = server.backend().await;
    let mut player = stalled(device(&server)).await;
    fill(&backend, false).await;
    assert!(!backend.get_user("42").await.online, "at once");
    assert_eq!(end(&mut player).await, PlainFrame::closed(4409, "the device did not keep up"));
}

#[tokio::test]
async fn a_device_that_reads_nothing_is_cut_and_harms_nobody() {
    let server = start_with(|config| {
        config.socketio.queue_bytes = 256 << 10;
        config.limits.connections = 2;
    })
    .await;
    let backend = server.backend().await;
    // The limit is each node's own: all of them go to one.
    let node = server.clients();
    let device = || PlainDevice::builder(node, PATH);
    let mut player = stalled(device()).await;
    let mut other = device().open().await.expect("the upgrade is agreed to");
    other.authenticate(&token("43")).await;
    fill(&backend, false).await;
    backend.broadcast("balance", "1").await;
    assert_eq!(other.receive().await, PlainFrame::text("1"));
    assert_eq!(backend.get_stats().await.connections, 1);
    // Its place is free while it still sleeps: the socket itself is gone.
    deadline("a free place", async { while device().open().await.is_err() {} }).await;
    assert_eq!(end(&mut player).await, PlainFrame::Cut, "what was on its way is thrown away");
}

#[tokio::test]
async fn a_volatile_event_is_dropped_instead_of_the_connection() {
    let server = start_with(|config| config.socketio.queue_bytes = 256 << 10).await;
    let backend = server.backend().await;
    let mut player = stalled(device(&server)).await;
    fill(&backend, true).await;
    assert!(backend.get_user("42").await.online);
    // Whoever reads on may go on.
    while let Some(PlainFrame::Text(_)) = player.receive_within(Duration::from_millis(300)).await {}
    backend.emit_to_user("42", "balance", "1").await;
    assert_eq!(player.receive().await, PlainFrame::text("1"));
}

#[tokio::test]
async fn pings_find_out_who_is_gone() {
    let server = start_with(|config| {
        config.socketio.ping_interval = Duration::from_millis(100);
        config.socketio.ping_timeout = Duration::from_millis(200);
    })
    .await;
    let backend = server.backend().await;
    let mut player = connect(&server, "42").await;
    for _ in 0..4 {
        player.pinged().await;
        // Its answer goes out with what comes next.
        player.heard().await;
    }
    assert!(backend.get_user("42").await.online);
    offline(&backend).await;
    assert_eq!(player.receive().await, PlainFrame::Cut);
}

#[tokio::test]
async fn too_large_a_message_is_closed_with_1009() {
    let server = start_with(|config| config.socketio.max_message = 2_000).await;
    let mut stranger = device(&server).open().await.expect("the upgrade is agreed to");
    stranger.send_text("a".repeat(2_001)).await;
    assert_eq!(stranger.receive().await, PlainFrame::closed(1009, "the message is too large"));
    let mut player = connect(&server, "42").await;
    player.send_text("a".repeat(2_000)).await;
    player.heard().await;
    player.send_binary(vec![0; 2_001]).await;
    assert_eq!(player.receive().await, PlainFrame::closed(1009, "the message is too large"));
    assert!(!server.backend().await.get_user("42").await.online);
}

#[tokio::test]
async fn a_device_that_crashes_leaves_no_ghost() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    for is_heard in [true, false] {
        let mut player = device(&server).open().await.expect("the upgrade is agreed to");
        player.send_text(auth_message(&token("42"))).await;
        if is_heard {
            player.heard().await;
        }
        player.abort();
        offline(&backend).await;
    }
}

/// Waits until the user is offline.
async fn offline(backend: &Backend) {
    let deadline = Clock::system().now() + PATIENCE;
    while backend.get_user("42").await.online {
        assert!(Clock::system().now() < deadline, "the user stays online");
    }
}

#[tokio::test]
async fn a_stranger_sends_little_before_the_token_is_accepted() {
    let server = start_with(|_| ()).await;
    let mut stranger = device(&server).open().await.expect("the upgrade is agreed to");
    stranger.send_text("a".repeat(20_000)).await;
    assert_eq!(stranger.receive().await, PlainFrame::closed(1009, "the message is too large"));
    let mut player = connect(&server, "42").await;
    player.send_text("a".repeat(20_000)).await;
    player.heard().await;
}
