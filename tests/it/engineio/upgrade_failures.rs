//! Upgrades that come to nothing: the session is as it was, and may try again.

use std::time::Duration;

use super::{Poller, REVISIONS, Revision, next_packet, text};
use crate::{
    devices::{end_of, online},
    harness::{Backend, HANDSHAKE, RawSocket, TestServer, Wire, announced, frame, http_request},
};

/// Polling brings what is sent, and an upgrade succeeds.
async fn goes_on(backend: &Backend, poller: &Poller, what: &str) {
    let receipt = backend.emit_to_user("42", "still", "1").await;
    assert_eq!((receipt.matched, receipt.enqueued), (1, 1), "{what}");
    poller.poll_for(r#"42["still",1]"#).await;
    let mut socket = poller.upgraded().await;
    backend.emit_to_user("42", "upgraded", "2").await;
    next_packet(&mut socket, r#"42["upgraded",2]"#).await;
    socket.abort();
    online(backend, 0).await;
}

#[tokio::test]
async fn a_websocket_that_ends_before_the_upgrade_leaves_the_session_as_it_was() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let probe = frame(0x81, b"2probe");
    let then = |more: Vec<u8>| [probe.clone(), more].concat();
    for revision in REVISIONS {
        for (what, bytes) in [
            ("it ends before the probe", Vec::new()),
            ("it ends after the probe", probe.clone()),
            ("it is closed before the probe", frame(0x88, &[0x03, 0xe8])),
            ("it is closed after the probe", then(frame(0x88, &[0x03, 0xe8]))),
            ("its frames are none", then(vec![0xff; 32])),
            ("its text is none", then(frame(0x81, b"\xff"))),
            ("its frame is announced alone", then(announced(0x81, 900_000))),
            ("its frame is too large", then(announced(0x81, 1 << 40))),
        ] {
            let poller = Poller::connected(&server, revision, "42").await;
            let mut wire = Wire::websocket(server.clients(), &poller.websocket_target()).await;
            wire.send(bytes).await;
            if what.contains("after the probe") {
                wire.frame().await;
            }
            wire.reset();
            goes_on(&backend, &poller, &format!("{revision:?}: {what}")).await;
        }
    }
}

#[tokio::test]
async fn a_held_poll_outlives_the_failed_upgrade() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut held = poller.held_poll().await;
        let wire = Wire::websocket(server.clients(), &poller.websocket_target()).await;
        wire.reset();
        assert!(held.answer_within(Duration::from_millis(300)).await.is_none(), "{revision:?}: nothing came");
        backend.emit_to_user("42", "still", "1").await;
        assert_eq!(revision.packets(&held.answer().await.text()), [r#"42["still",1]"#]);
        poller.post(&["1"]).await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn what_is_neither_a_probe_nor_an_upgrade_ends_the_websocket_alone() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        for packet in [r#"42["x"]"#, "40", "41", "1", "2other", "6", "x", ""] {
            let poller = Poller::connected(&server, revision, "42").await;
            let target = poller.websocket_target();
            let mut socket = RawSocket::connect(server.clients(), &target).await.expect("the WebSocket opens");
            socket.send_text(packet).await;
            end_of(&mut socket).await;
            goes_on(&backend, &poller, &format!("{revision:?}: {packet:?} instead of a probe")).await;
        }
    }
}

#[tokio::test]
async fn a_message_between_probe_and_upgrade_is_not_heard() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut socket = poller.probed().await;
        socket.send_text("41").await;
        end_of(&mut socket).await;
        goes_on(&backend, &poller, &format!("{revision:?}")).await;
    }
}

#[tokio::test]
async fn one_websocket_probes_at_a_time() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut first = poller.probed().await;
        if let Ok(mut second) = RawSocket::connect(server.clients(), &poller.websocket_target()).await {
            second.send_text("2probe").await;
            end_of(&mut second).await;
        }
        poller.packets().await;
        first.send_text("5").await;
        backend.emit_to_user("42", "upgraded", "1").await;
        assert_eq!(first.receive().await, text(r#"42["upgraded",1]"#), "{revision:?}: the first one is served");
        first.abort();
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn a_session_that_ends_while_it_probes_takes_the_websocket_with_it() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut socket = poller.probed().await;
        assert_eq!(poller.post(&["1"]).await.status, 200);
        end_of(&mut socket).await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let poller = Poller::connected(&server, Revision::Four, "42").await;
    let mut wire = Wire::open(server.clients()).await;
    let handshake = http_request("GET", &poller.websocket_target(), &HANDSHAKE, b"");
    wire.send([handshake, frame(0x81, b"2probe"), frame(0x81, b"5")].concat()).await;
    assert_eq!(wire.answer().await.status, 101);
    assert_eq!(wire.frame().await.expect("a frame").payload, "3probe");
    backend.emit_to_user("42", "upgraded", "1").await;
    assert_eq!(wire.frame().await.expect("a frame").payload, r#"42["upgraded",1]"#);
}
