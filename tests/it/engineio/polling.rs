//! Polling: one GET at a time, one POST at a time, and how a session ends.

use std::time::{Duration, Instant};

use super::{Poller, REVISIONS, Revision};
use crate::{
    devices::online,
    harness::{TestServer, Wire, http_request, request_head},
};

/// How long a session stays whose poll was cancelled.
const GRACE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn two_polls_at_once_end_the_session_with_400() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut held = poller.held_poll().await;
        assert_eq!(poller.poll().await.status, 400, "{revision:?}");
        // The one that was there first is answered or cut, but not left.
        held.answer_within(Duration::from_secs(1)).await;
        poller.ended().await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn two_posts_at_once_end_the_session_with_400() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut first = Wire::open(server.clients()).await;
        first.send(request_head("POST", &poller.target, &[("expect", "100-continue")], 3)).await;
        assert_eq!(first.answer().await.status, 100, "its body is awaited");
        assert_eq!(poller.post(&["3"]).await.status, 400, "{revision:?}");
        poller.ended().await;
        online(&backend, 0).await;
        first.send("4").await;
    }
}

#[tokio::test]
async fn one_post_after_the_other_is_answered_ok() {
    let server = TestServer::start().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        for packet in ["42[\"x\"]", "42[\"y\"]"] {
            let answer = poller.post(&[packet]).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{revision:?}");
            assert_eq!(answer.header("content-type"), Some("text/html"), "as Internet Explorer needed it");
        }
    }
}

#[tokio::test]
async fn a_close_packet_ends_the_session_and_answers_the_poll() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut held = poller.held_poll().await;
        assert_eq!(poller.post(&["1"]).await.status, 200);
        let answer = held.answer().await;
        let packets = revision.packets(&answer.text());
        assert!(answer.status == 200 && matches!(packets[0].as_str(), "6" | "1"), "{revision:?}: {packets:?}");
        online(&backend, 0).await;
        let after = poller.poll().await;
        assert_eq!((after.status, after.text().as_str()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    }
}

#[tokio::test]
async fn a_cancelled_poll_ends_the_session_two_seconds_later() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let held = poller.held_poll().await;
        let begun = Instant::now();
        if revision == Revision::Four {
            drop(held);
        } else {
            held.reset();
        }
        online(&backend, 0).await;
        let after = begun.elapsed();
        assert!((GRACE / 2..GRACE * 2).contains(&after), "{revision:?}: {after:?}");
        poller.ended().await;
    }
}

#[tokio::test]
async fn a_session_ends_that_is_not_polled_again_within_the_ping_timeout() {
    let server = TestServer::start_with(|config| config.socketio.ping_timeout = Duration::from_secs(3)).await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let begun = Instant::now();
        online(&backend, 0).await;
        assert!(begun.elapsed() > GRACE, "{revision:?}: {:?}", begun.elapsed());
        poller.ended().await;
    }
}

#[tokio::test]
async fn a_session_stays_whose_answer_takes_longer_than_the_ping_timeout() {
    let server = TestServer::start_with(|config| config.socketio.ping_timeout = GRACE).await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let large = format!("\"{}\"", "x".repeat(700_000));
        backend.emit_to_user("42", "large", &large).await;
        let mut wire = Wire::narrow(server.clients()).await;
        wire.send(http_request("GET", &poller.target, &[], b"")).await;
        tokio::time::sleep(GRACE * 3 / 2).await;
        assert!(wire.answer().await.text().contains(&large), "{revision:?}");
        backend.emit_to_user("42", "next", "1").await;
        assert_eq!(poller.packets().await, [r#"42["next",1]"#], "{revision:?}");
        poller.post(&["1"]).await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn who_polls_again_soon_stays_and_misses_nothing() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        drop(poller.held_poll().await);
        assert_eq!(backend.emit_to_user("42", "meanwhile", "1").await.enqueued, 1);
        assert_eq!(poller.packets().await, [r#"42["meanwhile",1]"#], "{revision:?}");
        // The next poll is held for longer than a cancelled one would be forgiven.
        let mut held = poller.begin_poll().await;
        assert!(held.answer_within(GRACE * 3 / 2).await.is_none());
        backend.emit_to_user("42", "later", "2").await;
        assert_eq!(revision.packets(&held.answer().await.text()), [r#"42["later",2]"#]);
        poller.post(&["1"]).await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn a_poll_that_is_held_brings_what_comes_at_once() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        let mut held = poller.held_poll().await;
        backend.emit_to_user("42", "news", r#""é😀""#).await;
        assert_eq!(revision.packets(&held.answer().await.text()), ["42[\"news\",\"é😀\"]"]);
        poller.post(&["1"]).await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn a_connection_carries_one_poll_after_the_other() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let poller = Poller::connected(&server, Revision::Four, "42").await;
    let mut wire = Wire::open(server.clients()).await;
    for number in 0..5 {
        wire.send(request_head("GET", &poller.target, &[], 0)).await;
        backend.emit_to_user("42", "n", &number.to_string()).await;
        assert_eq!(wire.answer().await.text(), format!(r#"42["n",{number}]"#));
    }
}
