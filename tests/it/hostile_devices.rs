//! Hostile devices with a token: what all of them together can make the server hold is bounded, and others do not notice.

use std::time::{Duration, Instant};

use bugle::proto::v1::{EmitOptions, EmitToUserRequest};
use futures_util::future::join_all;

use crate::{
    devices::{POLLING, WEBSOCKET, connect_packet, online, session_id},
    engineio::{Poller, REVISIONS, Revision, text},
    harness::{
        Device, ServerProcess, TestServer, Wire, announced, answer, ask, ask_with, auth_message, deadline, frame,
        http_request, request_head, to_user, token,
    },
    stored::emit_stored,
    websocket::endpoint,
};

const PLAIN: &str = "[[websocket]]\npath = \"/plain\"\nevents = [\"*\"]\n";
/// As many as hold six times what all may, if each holds the largest message.
const DEVICES: usize = 100;
const NEARLY: usize = 990_000;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// More than a server takes that holds what it may, 16 MiB, and has yet to let go of what it has ended; less than the 94 MiB of all.
const MOST_MIB: usize = 60;

/// A device's WebSocket after its token was accepted.
async fn device(server: &ServerProcess, path: &str) -> Wire {
    let mut wire = Wire::websocket(server.clients, path).await;
    let first = if path == WEBSOCKET { connect_packet("42") } else { auth_message(&token("42")) };
    wire.send(frame(0x81, first.as_bytes())).await;
    wire.frame_within(Duration::from_millis(200)).await;
    wire
}

#[tokio::test]
async fn messages_that_never_end_have_a_bound_together() {
    for path in [WEBSOCKET, "/plain"] {
        let server = ServerProcess::start(PLAIN);
        let mut honest = Device::builder(server.clients).token(token("7")).connect().await.expect("it is let in");
        let before = server.memory();
        // The first fragments of a message, and the beginning of a frame that never comes.
        let unfinished = [frame(0x02, &vec![0; NEARLY / 2]), announced(0x00, 400_000), vec![0; NEARLY / 2 - 100_000]];
        let sending = (0..DEVICES).map(async |_| {
            let mut wire = device(&server, path).await;
            wire.send_while_read(&unfinished.concat(), NEARLY, Duration::from_millis(200)).await;
            wire
        });
        let wires = join_all(sending).await;
        let grown = server.memory().saturating_sub(before);
        assert!(grown < MOST_MIB, "{path}: {grown} MiB");
        assert_eq!(server.backend().await.emit_to_user("7", "still", "1").await.enqueued, 1);
        honest.expect_event("still").await;
        drop(wires);
    }
}

#[tokio::test]
async fn attachments_that_never_come_have_a_bound_together() {
    let server = ServerProcess::start("");
    let before = server.memory();
    let sending = (0..DEVICES).map(async |_| {
        let mut wire = device(&server, WEBSOCKET).await;
        let event = frame(0x81, br#"452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
        wire.send([event, frame(0x82, &vec![0; NEARLY])].concat()).await;
        wire
    });
    let mut wires = join_all(sending).await;
    let grown = server.memory().saturating_sub(before);
    assert!(grown < MOST_MIB, "{grown} MiB");
    let ended = join_all(wires.iter_mut().map(|wire| wire.ends_within(Duration::from_secs(2)))).await;
    assert!(ended.iter().filter(|ended| **ended).count() >= DEVICES / 2, "those past the bound are ended: {ended:?}");
}

#[tokio::test]
async fn binary_packets_are_refused_that_no_handler_could_get() {
    let server = TestServer::start().await;
    let event = r#"451-["x",{"_placeholder":true,"num":0}]"#;
    for (what, is_connected, packet) in [
        ("before the token", false, Some(event)),
        ("no array", true, Some("451-x")),
        ("no name", true, Some("451-{}")),
        ("not announced", true, None),
    ] {
        let mut wire = Wire::websocket(server.clients(), WEBSOCKET).await;
        if is_connected {
            wire.send(frame(0x81, connect_packet("42").as_bytes())).await;
            while !wire.frame().await.expect("it is let in").payload.starts_with(b"42[\"connected\"") {}
        }
        match packet {
            Some(packet) => wire.send(frame(0x81, packet.as_bytes())).await,
            None => wire.send(frame(0x82, b"bytes")).await,
        }
        assert!(wire.ends_within(Duration::from_secs(2)).await, "{what}");
    }
}

#[tokio::test]
async fn pings_of_revision_3_that_no_poll_fetches_are_answered_once() {
    let server = TestServer::start().await;
    let poller = Poller::connected(&server, Revision::Three, "42").await;
    for _ in 0..3 {
        assert_eq!(poller.post(&["2"; 1_000]).await.status, 200);
    }
    assert_eq!(poller.packets().await, ["3"]);
    let mut held = poller.held_poll().await;
    assert_eq!(poller.post(&["2"]).await.status, 200);
    assert_eq!(Revision::Three.packets(&held.answer().await.text()), ["3"]);
}

#[tokio::test]
async fn posts_that_never_end_have_a_bound_together() {
    let server = ServerProcess::start("");
    let before = server.memory();
    let sending = (0..DEVICES).map(async |_| {
        let opened = ask(server.clients, "GET", POLLING, "").await;
        let target = format!("{POLLING}&sid={}", session_id(&opened.text()));
        // The connection that brought the CONNECT is a device's, not a stranger's.
        let mut wire = Wire::open(server.clients).await;
        wire.send(http_request("POST", &target, &[], connect_packet("42").as_bytes())).await;
        assert_eq!(wire.answer().await.status, 200);
        wire.send(http_request("GET", &target, &[], b"")).await;
        assert_eq!(wire.answer().await.status, 200);
        wire.send([request_head("POST", &target, &[], NEARLY + 1), vec![b'4'; NEARLY]].concat()).await;
        wire
    });
    let wires = join_all(sending).await;
    let grown = server.memory().saturating_sub(before);
    assert!(grown < MOST_MIB, "{grown} MiB");
    drop(wires);
}

/// How many requests, messages and answers were ended.
async fn ended_under_way(server: &ServerProcess) -> usize {
    let metrics = ask(server.admin, "GET", "/metrics", "").await.text();
    let value = metrics.lines().find_map(|line| line.strip_prefix("transport_unfinished_ended_total "));
    value.map_or(0, |value| value.parse().expect("it is a number"))
}

#[tokio::test]
async fn answers_that_nobody_reads_have_a_bound_together() {
    let server = ServerProcess::start("");
    let backend = server.backend().await;
    // Numbers from one end to the other: they do not become much smaller.
    let number = |number: u32| format!("{:08x}", number.wrapping_mul(2_654_435_761));
    let value = format!("\"{}\"", (0..125_000).map(number).collect::<String>());
    let options = Some(EmitOptions { retain: true, ..EmitOptions::default() });
    let emit = EmitToUserRequest { options, ..to_user("42", "large", &value) };
    answer(backend.notify().emit_to_user(emit)).await.expect("it is retained");
    let bearer = format!("Bearer {}", token("42"));
    let bearer = [("authorization", bearer.as_str())];
    let gzip = [bearer[0], ("accept-encoding", "gzip")];
    let requests = [&bearer[..], &gzip].map(|headers| http_request("GET", "/bugle/retained", headers, b"").repeat(12));
    let before = server.memory();
    // More than the kernel takes.
    let asking = (0..DEVICES).map(async |number| {
        let mut wire = Wire::open(server.clients).await;
        wire.send(&requests[number % 2]).await;
        wire
    });
    let wires = join_all(asking).await;
    let many_ended = async { while ended_under_way(&server).await < DEVICES / 2 {} };
    deadline("the end of most connections", many_ended).await;
    let grown = server.memory().saturating_sub(before);
    assert!(grown < MOST_MIB, "{grown} MiB");
    // Who comes now is not the oldest.
    let read = ask_with(server.clients, "GET", "/bugle/retained", &bearer, "").await;
    assert!(read.text().contains(&value));
    drop(wires);
}

#[tokio::test]
async fn a_post_with_ten_thousand_connects_is_answered_with_few_packets() {
    let server = TestServer::start().await;
    for revision in REVISIONS {
        let poller = Poller::open(&server, revision).await;
        let connects = vec!["40{\"token\":\"none\"}"; 10_000];
        assert_eq!(poller.post(&connects).await.status, 400, "{revision:?}");
        poller.ended().await;
    }
}

#[tokio::test]
async fn devices_that_were_left_without_a_poll_do_not_delay_a_stop() {
    const SESSIONS: usize = 200;
    let mut server = TestServer::start_with(|config| {
        config.drain.pace = 10;
        config.drain.deadline = Duration::from_secs(30);
    })
    .await;
    let mut pollers = Vec::new();
    for _ in 0..SESSIONS {
        pollers.push(Poller::connected(&server, REVISIONS[0], "42").await);
    }
    let held = pollers[0].held_poll().await;
    // A device between two polls is not one that was left.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    server.stop();
    server.stopped().await.expect("it stops");
    let after = begun.elapsed();
    assert!(after < Duration::from_secs(3), "{SESSIONS} sessions at 10 a second: {after:?}");
    drop(held);
}

#[tokio::test]
async fn a_poll_whose_connection_closes_as_it_arrives_counts_as_cancelled() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut pollers = Vec::new();
    for _ in 0..40 {
        pollers.push(Poller::connected(&server, REVISIONS[0], "42").await);
    }
    for poller in &pollers {
        drop(poller.begin_poll().await);
    }
    online(&backend, 0).await;
}

#[tokio::test]
async fn a_device_that_upgrades_before_its_connect_is_no_stranger_afterwards() {
    const STRANGERS: usize = 10;
    let server = TestServer::start_with(|config| {
        config.limits.unauthenticated.connections_per_address = STRANGERS;
    })
    .await;
    let backend = server.backend().await;
    // In revision 3 a device is connected by the request that opens its session.
    let poller = Poller::open(&server, Revision::Four).await;
    let mut socket = poller.probed().await;
    poller.post(&[&connect_packet("42")]).await;
    poller.poll_for(r#"42["connected""#).await;
    socket.send_text("5").await;
    let strangers = join_all((0..2 * STRANGERS).map(|_| Wire::websocket(server.clients(), WEBSOCKET))).await;
    backend.emit_to_user("42", "still", "1").await;
    assert_eq!(socket.receive().await, text(r#"42["still",1]"#));
    drop(strangers);
}

#[tokio::test]
async fn a_stored_message_behind_a_heartbeat_has_a_ping_of_its_own() {
    let server = TestServer::start_with(|config| {
        config.socketio.ping_interval = Duration::from_secs(1);
        config.websocket = vec![endpoint("/plain", &["*"])];
    })
    .await;
    let backend = server.backend().await;
    let open = async || {
        let mut wire = Wire::websocket(server.clients(), "/plain").await;
        wire.send(frame(0x81, auth_message(&token("42")).as_bytes())).await;
        online(&backend, 1).await;
        wire
    };
    let mut wire = open().await;
    let heartbeat = wire.frame().await.expect("it is asked whether it is there");
    assert_eq!(heartbeat.first, PING);
    emit_stored(&backend, "42", "1").await;
    assert_eq!(wire.frame().await.expect("the message").first, 0x81);
    assert!(wire.frame_within(Duration::from_millis(200)).await.is_none(), "one ping is on its way");
    wire.send(frame(PONG, &heartbeat.payload)).await;
    // The next heartbeat is a second away.
    let ping = wire.frame_within(Duration::from_millis(700)).await.flatten().expect("a ping for the message");
    assert_eq!(ping.first, PING);
    wire.send(frame(PONG, &ping.payload)).await;
    // Its answer comes when the pong was heard.
    wire.send(frame(PING, b"heard?")).await;
    while wire.frame().await.expect("a pong").first != PONG {}
    drop(wire);
    online(&backend, 0).await;
    let mut next = open().await;
    assert_eq!(next.frame().await.expect("a heartbeat, and no message").first, PING);
}
