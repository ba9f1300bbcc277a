//! Socket.IO 5 and 4: who joins the namespace, who is refused, who leaves.

use std::time::{Duration, Instant};

use super::{Poller, REVISIONS, Revision, next_packet, text};
use crate::{
    devices::{INVALID, REQUIRED, connect_packet, end_of, online, raw_device},
    harness::{RawMessage, RawSocket, TestServer, token},
};

async fn open(server: &TestServer, revision: Revision, token: Option<&str>) -> RawSocket {
    let mut socket =
        RawSocket::connect(server.clients(), &revision.target("websocket", token)).await.expect("the WebSocket opens");
    next_packet(&mut socket, "0{").await;
    socket
}

/// The CONNECT of a client, which one of revision 3 need not send.
fn connect(revision: Revision, user: &str) -> String {
    if revision == Revision::Four { connect_packet(user) } else { "40".to_owned() }
}

#[tokio::test]
async fn a_connect_is_answered_with_an_id() {
    let server = TestServer::start().await;
    let mut socket = open(&server, Revision::Four, None).await;
    socket.send_text(connect_packet("42")).await;
    let answer = next_packet(&mut socket, "40").await;
    let answer: serde_json::Value = serde_json::from_str(&answer[2..]).expect("the answer has data");
    assert!(answer["sid"].as_str().is_some_and(|sid| !sid.is_empty()), "{answer}");
}

#[tokio::test]
async fn an_old_client_is_connected_without_asking() {
    let server = TestServer::start().await;
    let mut socket = open(&server, Revision::Three, Some(&token("42"))).await;
    let RawMessage::Text(answer) = socket.receive().await else { panic!("a packet is text") };
    assert!(answer.starts_with("40"), "{answer}");
    next_packet(&mut socket, r#"42["connected","#).await;
}

#[tokio::test]
async fn a_refused_connect_is_told_why() {
    let server = TestServer::start().await;
    for (packet, reason) in [("40", REQUIRED), ("40{}", REQUIRED), (r#"40{"token":"x.y.z"}"#, INVALID)] {
        let mut socket = open(&server, Revision::Four, None).await;
        socket.send_text(packet).await;
        assert_eq!(socket.receive().await, text(&format!(r#"44{{"message":"{reason}"}}"#)), "{packet}");
        let poller = Poller::open(&server, Revision::Four).await;
        poller.post(&[packet]).await;
        assert_eq!(poller.packets().await, [format!(r#"44{{"message":"{reason}"}}"#)], "{packet}");
    }
    for (bad, reason) in [(None, REQUIRED), (Some("x.y.z"), INVALID)] {
        let mut socket = open(&server, Revision::Three, bad).await;
        let refusal = next_packet(&mut socket, "44").await;
        assert!(refusal.contains(reason), "{refusal}");
    }
}

#[tokio::test]
async fn an_unknown_namespace_is_refused_by_its_name_and_the_other_goes_on() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut socket = open(&server, Revision::Four, None).await;
    socket.send_text("40/other,").await;
    assert_eq!(socket.receive().await, text(r#"44/other,{"message":"Invalid namespace"}"#));
    socket.send_text(connect_packet("42")).await;
    next_packet(&mut socket, r#"42["connected","#).await;
    socket.send_text(r#"40/other,{"token":"x"}"#).await;
    assert_eq!(socket.receive().await, text(r#"44/other,{"message":"Invalid namespace"}"#));
    backend.emit_to_user("42", "still", "1").await;
    assert_eq!(socket.receive().await, text(r#"42["still",1]"#));
}

#[tokio::test]
async fn an_unknown_namespace_is_refused_by_polling_too() {
    let server = TestServer::start().await;
    let poller = Poller::open(&server, Revision::Four).await;
    assert_eq!(poller.post(&["40/other,"]).await.status, 200);
    assert_eq!(poller.packets().await, [r#"44/other,{"message":"Invalid namespace"}"#]);
    assert_eq!(poller.post(&[&connect_packet("42")]).await.status, 200);
    poller.poll_for(r#"42["connected","#).await;
}

#[tokio::test]
async fn who_left_the_namespace_may_join_again_on_the_same_websocket() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let mut socket = open(&server, revision, Some(&token("42"))).await;
        if revision == Revision::Four {
            socket.send_text(connect(revision, "42")).await;
        }
        next_packet(&mut socket, r#"42["connected","#).await;
        for round in 0..3 {
            let before = backend.get_user("42").await.connections[0].id.clone();
            socket.send_text("41").await;
            socket.send_text(connect(revision, "42")).await;
            next_packet(&mut socket, "40").await;
            next_packet(&mut socket, r#"42["connected","#).await;
            let after = backend.get_user("42").await.connections;
            assert_eq!(after.len(), 1, "{revision:?}, round {round}");
            assert_ne!(after[0].id, before, "{revision:?}, round {round}");
            backend.emit_to_user("42", "again", &round.to_string()).await;
            assert_eq!(socket.receive().await, text(&format!(r#"42["again",{round}]"#)));
        }
        socket.send_text("41").await;
        online(&backend, 0).await;
        socket.abort();
    }
}

#[tokio::test]
async fn who_left_the_namespace_may_join_again_by_polling() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for revision in REVISIONS {
        let poller = Poller::connected(&server, revision, "42").await;
        assert_eq!(poller.post(&["41"]).await.status, 200);
        online(&backend, 0).await;
        assert_eq!(poller.post(&[&connect(revision, "42")]).await.status, 200);
        poller.poll_for(r#"42["connected","#).await;
        backend.emit_to_user("42", "again", "1").await;
        poller.poll_for(r#"42["again",1]"#).await;
        assert_eq!(poller.post(&["41", &connect(revision, "42")]).await.status, 200, "in one body");
        poller.poll_for(r#"42["connected","#).await;
        poller.post(&["1"]).await;
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn who_does_not_connect_in_time_is_closed() {
    let server = TestServer::start_with(|config| config.socketio.connect_timeout = Duration::from_millis(300)).await;
    let begun = Instant::now();
    let mut socket = open(&server, Revision::Four, None).await;
    let poller = Poller::open(&server, Revision::Four).await;
    let mut elsewhere = open(&server, Revision::Four, None).await;
    elsewhere.send_text("40/other,").await;
    end_of(&mut socket).await;
    end_of(&mut elsewhere).await;
    poller.ended().await;
    let after = begun.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(2)).contains(&after), "{after:?}");
}

#[tokio::test]
async fn who_connected_in_time_stays_beyond_it() {
    let server = TestServer::start_with(|config| config.socketio.connect_timeout = Duration::from_millis(300)).await;
    let backend = server.backend().await;
    let mut socket = raw_device(&server, "42").await;
    let poller = Poller::connected(&server, Revision::Four, "42").await;
    let old = Poller::connected(&server, Revision::Three, "42").await;
    assert_eq!(socket.receive_within(Duration::from_millis(600)).await, None, "nothing comes, and no end");
    assert_eq!(backend.emit_to_user("42", "still", "1").await.enqueued, 3);
    next_packet(&mut socket, r#"42["still",1]"#).await;
    poller.poll_for(r#"42["still",1]"#).await;
    old.poll_for(r#"42["still",1]"#).await;
}
