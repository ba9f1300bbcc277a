//! From polling to WebSocket: until the packet `5` comes on the WebSocket polling serves, and what it did not bring moves over in its order.

use std::time::Duration;

use super::{Poller, REVISIONS, next_packet, text};
use crate::{
    devices::{end_of, online},
    harness::{PATIENCE, RawSocket, TestServer},
};

#[tokio::test]
async fn a_probe_is_answered_and_releases_the_poll() {
    let server = TestServer::start().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut held = poller.held_poll().await;
        let _socket = poller.probed().await;
        let answer = held.answer_within(Duration::from_secs(1)).await.expect("the device waits for its poll to end");
        assert_eq!(revision.packets(&answer.text()), ["6"], "{revision:?}");
    }
}

#[tokio::test]
async fn a_poll_that_comes_after_the_probe_is_released_too() {
    let server = TestServer::start().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let _socket = poller.probed().await;
        assert_eq!(poller.packets().await, ["6"], "{revision:?}");
    }
}

#[tokio::test]
async fn until_the_upgrade_polls_bring_what_is_sent() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut socket = poller.probed().await;
        for number in 0..3 {
            let receipt = backend.emit_to_user("42", "n", &number.to_string()).await;
            assert_eq!((receipt.matched, receipt.enqueued), (1, 1));
            poller.poll_for(&format!(r#"42["n",{number}]"#)).await;
        }
        // What a device says by polling is heard as well.
        assert_eq!(poller.post(&[r#"427["unknown"]"#]).await.status, 200);
        poller.poll_for("437").await;
        assert_eq!(socket.receive_within(Duration::from_millis(100)).await, None, "nothing came on the WebSocket");
        socket.send_text("5").await;
        backend.emit_to_user("42", "after", "1").await;
        assert_eq!(socket.receive().await, text(r#"42["after",1]"#));
        poller_is_over(&poller).await;
        socket.abort();
        online(&backend, 0).await;
    }
}

/// The session is on the WebSocket now, and no request that polls harms it.
async fn poller_is_over(poller: &Poller) {
    for _ in 0..2 {
        let answer = poller.poll().await;
        assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"code":3,"message":"Bad request"}"#));
        assert_eq!(poller.post(&["3"]).await.status, 400);
    }
}

#[tokio::test]
async fn what_no_poll_has_brought_moves_to_the_websocket_before_what_comes_later() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut socket = poller.probed().await;
        poller.packets().await;
        for number in 0..20 {
            backend.emit_to_user("42", "n", &number.to_string()).await;
        }
        socket.send_text("5").await;
        for number in 20..40 {
            backend.emit_to_user("42", "n", &number.to_string()).await;
        }
        for number in 0..40 {
            assert_eq!(socket.receive().await, text(&format!(r#"42["n",{number}]"#)), "{revision:?}");
        }
        poller_is_over(&poller).await;
        socket.abort();
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn bytes_that_no_poll_has_brought_move_with_their_packet() {
    use bugle::proto::v1::{EmitToUserRequest, emit_to_user_request::Payload};
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut socket = poller.probed().await;
        poller.packets().await;
        let payload = Some(Payload::Binary(vec![0, 4, 255].into()));
        let request = EmitToUserRequest { user_id: "42".into(), event: "b".into(), payload, options: None };
        backend.notify().emit_to_user(request).await.expect("it is accepted");
        socket.send_text("5").await;
        assert_eq!(socket.receive().await, text(r#"451-["b",{"_placeholder":true,"num":0}]"#));
        assert_eq!(socket.receive().await, super::events::attachment(revision, &[0, 4, 255]), "{revision:?}");
        socket.abort();
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn a_poll_that_is_held_at_the_upgrade_is_answered() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut socket = poller.probed().await;
        poller.packets().await;
        // No client of today polls once more; the poll is not left hanging, and takes nothing with it.
        let mut held = poller.begin_poll().await;
        socket.send_text("5").await;
        let answer = held.answer_within(PATIENCE).await.expect("an answer");
        assert!(matches!(answer.status, 200 | 400), "{revision:?}: {}", answer.status);
        backend.emit_to_user("42", "after", "1").await;
        next_packet(&mut socket, r#"42["after",1]"#).await;
        socket.abort();
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn the_session_is_that_of_the_websocket_from_then_on() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let before = backend.get_user("42").await.connections;
        let mut socket = poller.upgraded().await;
        socket.send_text(r#"427["unknown"]"#).await;
        next_packet(&mut socket, "437").await;
        let after = backend.get_user("42").await.connections;
        assert_eq!((after.len(), &after[0].id), (1, &before[0].id));
        assert_ne!(after[0].transport, before[0].transport);
        socket.send_text("1").await;
        end_of(&mut socket).await;
        online(&backend, 0).await;
        poller.ended().await;
    }
}

#[tokio::test]
async fn a_session_that_has_upgraded_does_not_upgrade_again() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut socket = poller.upgraded().await;
        socket.send_text(r#"427["unknown"]"#).await;
        next_packet(&mut socket, "437").await;
        if let Ok(mut second) = RawSocket::connect(server.clients(), &poller.websocket_target()).await {
            second.send_text("2probe").await;
            end_of(&mut second).await;
        }
        backend.emit_to_user("42", "still", "1").await;
        assert_eq!(socket.receive().await, text(r#"42["still",1]"#), "{revision:?}");
        socket.abort();
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn a_session_on_a_websocket_of_its_own_has_nothing_to_upgrade_to() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={}", device.session_id());
    if let Ok(mut second) = RawSocket::connect(server.clients(), &target).await {
        second.send_text("2probe").await;
        end_of(&mut second).await;
    }
    backend.emit_to_user("42", "still", "1").await;
    device.expect_event("still").await;
}
