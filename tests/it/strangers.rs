//! Strangers who mean no good, with and without a token: what they can make the server hold is bounded, and others do not notice.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::{
    devices::{WEBSOCKET, connect_packet, session_id},
    harness::{
        Answer, Device, ServerProcess, TestServer, Wire, announced, ask, auth_message, frame, http_request,
        request_head, token,
    },
};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const PLAIN: &str = "[[websocket]]\npath = \"/plain\"\nevents = [\"*\"]\n";
/// What a request may hold, and what one of these sends of it.
const DECLARED: usize = 1_000_000;

/// Asks whether the process lives, which has to be answered whatever others do.
async fn livez(server: &ServerProcess) -> u16 {
    ask(server.admin, "GET", "/livez", "").await.status
}

/// A POST whose last byte never comes.
async fn unfinished_post(clients: SocketAddr) -> Wire {
    let opened = ask(clients, "GET", POLLING, "").await;
    let target = format!("{POLLING}&sid={}", session_id(&opened.text()));
    let mut wire = Wire::open(clients).await;
    wire.send(request_head("POST", &target, &[], DECLARED)).await;
    wire.send(vec![b'4'; DECLARED - 1]).await;
    wire
}

#[tokio::test]
async fn posts_that_never_end_are_ended_and_hold_little() {
    let server = ServerProcess::start("[limits.unauthenticated]\nbody_bytes_per_address = 4_000_000\n");
    let before = server.memory();
    let mut posts = join_all((0..40).map(|_| unfinished_post(server.clients))).await;
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 24, "40 MB of which 4 may be held: {grown} MiB");
    assert_eq!(livez(&server).await, 200);
    // Sessions whose device never connects end after five seconds, and a body without a byte after ten.
    let ended = join_all(posts.iter_mut().map(|post| post.ends_within(Duration::from_secs(13)))).await;
    assert!(ended.iter().all(|ended| *ended), "{ended:?}");
}

#[tokio::test]
async fn heads_that_never_end_hold_little() {
    const CONNECTIONS: usize = 400;
    let server = ServerProcess::start("");
    let before = server.memory();
    let heads = (0..CONNECTIONS).map(async |_| {
        let mut wire = Wire::open(server.clients).await;
        wire.send([&b"GET / HTTP/1.1\r\nx: "[..], &vec![b'x'; 60_000]].concat()).await;
        wire
    });
    let wires = join_all(heads).await;
    assert_eq!(livez(&server).await, 200);
    let grown = server.memory().saturating_sub(before);
    // 4 MiB of them may be held, and the connections take 8. All of them would take 31.
    assert!(grown < 22, "{grown} MiB");
    drop(wires);
}

#[tokio::test]
async fn a_post_of_a_device_that_stops_in_its_middle_is_ended_too() {
    let server = ServerProcess::start("");
    let opened = ask(server.clients, "GET", POLLING, "").await;
    let target = format!("{POLLING}&sid={}", session_id(&opened.text()));
    assert_eq!(ask(server.clients, "POST", &target, connect_packet("42")).await.status, 200);
    let mut wire = Wire::open(server.clients).await;
    wire.send(request_head("POST", &target, &[], 1_000)).await;
    wire.send("4").await;
    let begun = Instant::now();
    let answer = wire.answer_within(Duration::from_secs(13)).await;
    let after = begun.elapsed();
    assert!(answer.is_none_or(|answer| matches!(answer.status, 400 | 408)), "it is not accepted");
    assert!((Duration::from_secs(8)..Duration::from_secs(12)).contains(&after), "{after:?}");
}

#[tokio::test]
async fn connections_that_say_nothing_end_after_five_seconds_on_every_port() {
    let server = ServerProcess::start("");
    let begun = Instant::now();
    let ports = [server.clients, server.grpc, server.admin];
    let mut silent = join_all(ports.into_iter().flat_map(|port| (0..10).map(move |_| Wire::open(port)))).await;
    let ended = join_all(silent.iter_mut().map(|wire| wire.ends_within(Duration::from_secs(8)))).await;
    assert!(ended.iter().all(|ended| *ended), "clients, grpc, admin: {ended:?}");
    assert!(begun.elapsed() > Duration::from_secs(4), "a slow line has its time: {:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_fill_the_file_table() {
    const FILES: u32 = 200;
    let server = ServerProcess::start_with_files("", FILES);
    let mut silent = Vec::new();
    for port in [server.clients, server.grpc] {
        // Some may be cut at once.
        silent.extend(join_all((0..FILES).map(|_| TcpStream::connect(port))).await);
        for _ in 0..5 {
            assert_eq!(livez(&server).await, 200);
        }
    }
    drop(silent);
    let answered = async { while ask(server.clients, "GET", POLLING, "").await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), answered).await.expect("devices are served again");
    server.backend().await;
}

#[tokio::test]
async fn an_address_fills_the_places_of_strangers_and_its_oldest_go_first() {
    let server = ServerProcess::start("[limits.unauthenticated]\nconnections_per_address = 20\n");
    let mut honest = Device::builder(server.clients).token(token("42")).connect().await.expect("it is let in");
    let mut strangers = Vec::new();
    for _ in 0..30 {
        strangers.push(Wire::websocket(server.clients, WEBSOCKET).await);
    }
    let (oldest, others) = strangers.split_at_mut(5);
    assert!(
        join_all(oldest.iter_mut().map(|wire| wire.ends_within(Duration::from_secs(2)))).await.iter().all(|it| *it)
    );
    let newest = others.last_mut().expect("there are more");
    newest.send(frame(0x81, connect_packet("43").as_bytes())).await;
    let welcomed =
        async { while !newest.frame().await.expect("it goes on").payload.starts_with(b"42[\"connected\"") {} };
    tokio::time::timeout(Duration::from_secs(2), welcomed).await.expect("a newcomer has its time");
    assert_eq!(server.backend().await.emit_to_user("42", "still", "1").await.enqueued, 1);
    honest.expect_event("still").await;
}

#[tokio::test]
async fn sessions_that_are_opened_and_left_are_forgotten() {
    const SESSIONS: usize = 3_000;
    let server = ServerProcess::start("[socketio]\nconnect_timeout = \"1s\"\n");
    let before = server.memory();
    let mut wire = Wire::open(server.clients).await;
    for _ in 0..SESSIONS {
        wire.send(http_request("GET", POLLING, &[], b"")).await;
        assert_eq!(wire.answer().await.status, 200);
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 24, "{SESSIONS} sessions: {grown} MiB");
    let last = async {
        let opened = ask(server.clients, "GET", POLLING, "").await;
        let target = format!("{POLLING}&sid={}", session_id(&opened.text()));
        while ask(server.clients, "GET", &target, "").await.status == 200 {}
    };
    tokio::time::timeout(Duration::from_secs(3), last).await.expect("a session without a device ends");
}

#[tokio::test]
async fn what_the_first_requests_of_sessions_say_holds_little() {
    const SESSIONS: usize = 3_000;
    let large = "x".repeat(50_000);
    let headers = [("content-type", large.as_str()), ("authorization", large.as_str())];
    for (what, target, headers) in [
        ("a header", POLLING.to_owned(), &headers[..1]),
        ("a token in a header", POLLING.to_owned(), &headers[1..]),
        ("a token", format!("{POLLING}&token={}", &large[..8_000]), &[]),
        ("positions", format!("{POLLING}&resume=%7B%22{large}%22:1%7D"), &[]),
    ] {
        let server = ServerProcess::start("");
        let before = server.memory();
        let mut wire = Wire::open(server.clients).await;
        for _ in 0..SESSIONS {
            wire.send(http_request("GET", &target, headers, b"")).await;
            assert_eq!(wire.answer().await.status, 200);
        }
        let grown = server.memory().saturating_sub(before);
        assert!(grown < 56, "{what}: {grown} MiB");
    }
}

/// A call over HTTP/2 without a key, and with 12,000 bytes in a header.
fn call_without_key(stream: u32) -> Vec<u8> {
    const HEADERS: u8 = 1;
    const END_STREAM_AND_HEADERS: u8 = 5;
    let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("a short text")], text].concat();
    let field = |name: &[u8], value: &[u8]| [vec![0], text(name), text(value)].concat();
    let block = [
        field(b":method", b"POST"),
        field(b":scheme", b"http"),
        field(b":path", b"/bugle.v1.Notify/EmitToUser"),
        field(b"content-type", b"application/grpc"),
        // 12,000 as an integer with a prefix of 7 bits (RFC 7541, section 5.1).
        [&[0, 1][..], b"x", &[0x7f, 0xe1, 0x5c], &[b'x'; 12_000]].concat(),
    ]
    .concat();
    let length = block.len().to_be_bytes();
    [&length[length.len() - 3..], &[HEADERS, END_STREAM_AND_HEADERS], &stream.to_be_bytes(), &block].concat()
}

#[tokio::test]
async fn calls_without_a_key_hold_little_whether_their_answers_are_read_or_not() {
    const CONNECTIONS: usize = 16;
    const CALLS: u32 = 400;
    let server = ServerProcess::start("");
    let backend = server.backend().await;
    let before = server.memory();
    let calls: Vec<_> = (0..CALLS).flat_map(|call| call_without_key(2 * call + 1)).collect();
    let calling = (0..CONNECTIONS).map(async |_| {
        let mut wire = Wire::open(server.grpc).await;
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        wire.send_while_read(&calls, calls.len(), Duration::from_millis(700)).await;
        wire
    });
    let wires = join_all(calling).await;
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 16, "{CONNECTIONS} connections, each with {CALLS} calls of 12 kB: {grown} MiB");
    backend.emit_to_user("42", "e", "1").await;
    // Nor does a new backend wait for them.
    server.backend().await.emit_to_user("42", "e", "1").await;
    drop(wires);
}

/// Sends for as long as the server reads, and reads nothing; how much memory that takes.
async fn flood(server: &ServerProcess, wire: &mut Wire, bytes: &[u8]) -> usize {
    const MOST: usize = 60_000_000;
    let before = server.memory();
    wire.send_while_read(bytes, MOST, Duration::from_millis(700)).await;
    server.memory().saturating_sub(before)
}

#[tokio::test]
async fn pings_of_who_never_reads_do_not_pile_up() {
    let server = ServerProcess::start(PLAIN);
    let old = format!("/socket.io/?EIO=3&transport=websocket&token={}", token("42"));
    let pings = |kind: u8, payload: &[u8]| frame(kind, payload).repeat(400);
    for (what, target, first, bytes) in [
        ("a stranger", WEBSOCKET, String::new(), pings(0x89, &[b'x'; 125])),
        ("a device", WEBSOCKET, connect_packet("42"), pings(0x89, &[b'x'; 125])),
        ("a stranger, plain", "/plain", String::new(), pings(0x89, &[b'x'; 125])),
        ("a device, plain", "/plain", auth_message(&token("42")), pings(0x89, &[b'x'; 125])),
        ("empty pings", WEBSOCKET, String::new(), pings(0x89, b"")),
        ("pings of revision 3", &old, String::new(), pings(0x81, &[&b"2"[..], &[b'x'; 1_000]].concat())),
        ("events that are answered", WEBSOCKET, connect_packet("42"), pings(0x81, br#"421["unknown"]"#)),
    ] {
        let mut wire = Wire::websocket(server.clients, target).await;
        if !first.is_empty() {
            wire.send(frame(0x81, first.as_bytes())).await;
            wire.frame_within(Duration::from_millis(300)).await;
        }
        let grown = flood(&server, &mut wire, &bytes).await;
        assert!(grown < 10, "{what}: {grown} MiB");
        assert_eq!(livez(&server).await, 200);
    }
}

#[tokio::test]
async fn connects_to_unknown_namespaces_do_not_pile_up() {
    let server = ServerProcess::start("");
    let mut wire = Wire::websocket(server.clients, WEBSOCKET).await;
    let connects: Vec<u8> =
        (0..400).flat_map(|number| frame(0x81, format!("40/{}{number},", "x".repeat(100)).as_bytes())).collect();
    let grown = flood(&server, &mut wire, &connects).await;
    assert!(grown < 10, "{grown} MiB");
}

#[tokio::test]
async fn attachments_that_never_end_are_bounded_by_the_largest_message() {
    const DEVICES: usize = 15;
    let server = ServerProcess::start("");
    let before = server.memory();
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        let mut wire = Wire::websocket(server.clients, WEBSOCKET).await;
        wire.send(frame(0x81, connect_packet("42").as_bytes())).await;
        wire.frame_within(Duration::from_millis(300)).await;
        wire.send(frame(0x81, br#"4510000-["x",{"_placeholder":true,"num":0}]"#)).await;
        for _ in 0..10 {
            wire.send(frame(0x82, &vec![0; 999_000])).await;
        }
        devices.push(wire);
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 45, "{DEVICES} devices: {grown} MiB");
}

#[tokio::test]
async fn a_message_that_is_announced_holds_nothing_before_it_comes() {
    let server = ServerProcess::start(PLAIN);
    let before = server.memory();
    let mut wires = Vec::new();
    for _ in 0..100 {
        let mut wire = Wire::websocket(server.clients, WEBSOCKET).await;
        wire.send(announced(0x82, 999_000)).await;
        wires.push(wire);
    }
    assert_eq!(livez(&server).await, 200);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 16, "{grown} MiB");
}

#[tokio::test]
async fn a_server_with_all_of_these_stops_in_order() {
    let server = ServerProcess::start(PLAIN);
    let posts = join_all((0..5).map(|_| unfinished_post(server.clients))).await;
    let listeners = [server.clients, server.grpc, server.admin];
    let silent = join_all(listeners.into_iter().flat_map(|port| (0..5).map(move |_| Wire::open(port)))).await;
    let mut others = Vec::new();
    for target in [WEBSOCKET, "/plain"] {
        let mut wire = Wire::websocket(server.clients, target).await;
        wire.send_while_read(&frame(0x89, &[b'x'; 125]).repeat(400), 5_000_000, Duration::from_millis(300)).await;
        others.push(wire);
    }
    let mut half = Wire::open(server.clients).await;
    half.send("GET /socket.io/?EIO=4&tr").await;
    let mut preface = Wire::open(server.grpc).await;
    preface.send("PRI * HTTP/2.0\r\n\r\n").await;
    let opened = ask(server.clients, "GET", POLLING, "").await;
    let mut held = Wire::open(server.clients).await;
    held.send(http_request("GET", &format!("{POLLING}&sid={}", session_id(&opened.text())), &[], b"")).await;
    let ended = server.stop().await;
    assert!(ended.is_good && ended.last_message() == "stopped", "{ended:?}");
    drop((posts, silent, others, half, preface, held));
}

#[tokio::test]
async fn descriptors_come_back() {
    let server = ServerProcess::start(PLAIN);
    let before = server.descriptors();
    let mut wires = join_all((0..20).map(|_| unfinished_post(server.clients))).await;
    for target in [WEBSOCKET, "/plain"] {
        for _ in 0..20 {
            wires.push(Wire::websocket(server.clients, target).await);
        }
    }
    assert!(server.descriptors() >= before + 40);
    wires.into_iter().for_each(Wire::reset);
    let back = async { while server.descriptors() > before + 5 || livez(&server).await != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("descriptors come back");
}

#[tokio::test]
async fn the_root_of_each_http_port_says_what_it_is() {
    let server = TestServer::start().await;
    for port in [server.clients(), server.admin()] {
        let Answer { status, headers, body } = ask(port, "GET", "/", "").await;
        let kind = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
        assert_eq!(status, 200);
        assert!(kind.is_some_and(|kind| kind.starts_with("text/plain")), "{kind:?}");
        let text = std::str::from_utf8(&body).expect("it is text");
        assert!(text.to_lowercase().contains("bugle") && text.trim_end().lines().count() == 1, "{text}");
    }
}
