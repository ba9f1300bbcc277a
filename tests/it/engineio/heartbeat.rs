//! Who asks whether the other is still there, how often, and what becomes of silence.

use std::time::{Duration, Instant};

use super::{Poller, Revision, next_packet, text};
use crate::{
    devices::{end_of, online, raw_device},
    harness::{RawMessage, RawSocket, TestServer, deadline, token},
};

const INTERVAL: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_millis(400);

async fn server() -> TestServer {
    TestServer::start_with(|config| {
        config.socketio.ping_interval = INTERVAL;
        config.socketio.ping_timeout = TIMEOUT;
    })
    .await
}

async fn old_device(server: &TestServer, user: &str) -> RawSocket {
    let target = Revision::Three.target("websocket", Some(&token(user)));
    let mut socket = RawSocket::connect(server.clients(), &target).await.expect("the WebSocket opens");
    next_packet(&mut socket, r#"42["connected","#).await;
    socket
}

#[tokio::test]
async fn the_first_ping_comes_after_the_interval_and_not_at_once() {
    let server = server().await;
    let begun = Instant::now();
    let mut socket = raw_device(&server, "42").await;
    next_packet(&mut socket, "2").await;
    let after = begun.elapsed();
    assert!((INTERVAL..INTERVAL * 3).contains(&after), "on a WebSocket: {after:?}");

    let begun = Instant::now();
    let poller = Poller::connected(&server, Revision::Four, "43").await;
    assert_eq!(poller.packets().await, ["2"]);
    let after = begun.elapsed();
    assert!((INTERVAL..INTERVAL * 3).contains(&after), "by polling: {after:?}");
}

#[tokio::test]
async fn who_answers_each_ping_stays() {
    let server = server().await;
    let backend = server.backend().await;
    let mut socket = raw_device(&server, "42").await;
    let poller = Poller::connected(&server, Revision::Four, "43").await;
    let begun = Instant::now();
    for _ in 0..4 {
        next_packet(&mut socket, "2").await;
        socket.send_text("3").await;
        poller.poll_for("2").await;
        assert_eq!(poller.post(&["3"]).await.status, 200);
    }
    assert!(begun.elapsed() > INTERVAL + TIMEOUT, "it would be over by now");
    assert_eq!(backend.get_stats().await.connections, 2);
}

#[tokio::test]
async fn who_leaves_a_ping_unanswered_is_gone_in_time() {
    let server = server().await;
    let backend = server.backend().await;
    let mut socket = raw_device(&server, "42").await;
    let poller = Poller::connected(&server, Revision::Four, "43").await;
    let begun = Instant::now();
    end_of(&mut socket).await;
    poller.ended().await;
    online(&backend, 0).await;
    let after = begun.elapsed();
    assert!((INTERVAL + TIMEOUT / 2..(INTERVAL + TIMEOUT) * 3).contains(&after), "{after:?}");
}

#[tokio::test]
async fn a_client_of_revision_3_that_is_silent_is_gone_in_time() {
    let server = server().await;
    let backend = server.backend().await;
    let begun = Instant::now();
    let mut socket = old_device(&server, "42").await;
    let poller = Poller::connected(&server, Revision::Three, "43").await;
    let ended = async {
        loop {
            match socket.receive().await {
                RawMessage::Text(packet) => assert!(!packet.starts_with('2'), "a server does not ping: {packet}"),
                RawMessage::Binary(bytes) => panic!("nobody sent bytes: {bytes:?}"),
                RawMessage::Closed(_) => return,
            }
        }
    };
    deadline("the end of a silent client", ended).await;
    poller.ended().await;
    online(&backend, 0).await;
    let after = begun.elapsed();
    assert!((INTERVAL..(INTERVAL + TIMEOUT) * 3).contains(&after), "{after:?}");
}

#[tokio::test]
async fn a_client_of_revision_3_pings_and_its_data_comes_back() {
    let server = server().await;
    let backend = server.backend().await;
    let mut socket = old_device(&server, "42").await;
    let poller = Poller::connected(&server, Revision::Three, "43").await;
    for (ping, pong) in [("2", "3"), ("2probe", "3probe"), ("2h\u{e9}llo", "3h\u{e9}llo"), ("2", "3"), ("2", "3")] {
        socket.send_text(ping).await;
        assert_eq!(socket.receive().await, text(pong));
        assert_eq!(poller.post(&[ping]).await.status, 200);
        assert_eq!(poller.packets().await, [pong]);
        tokio::time::sleep(INTERVAL / 2).await;
    }
    assert_eq!(backend.get_stats().await.connections, 2, "who pings stays");
}
