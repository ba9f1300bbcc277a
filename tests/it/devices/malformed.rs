//! What no client would send.

use std::{
    sync::{Mutex, Once},
    thread::{self, ThreadId},
    time::Duration,
};

use bytes::Bytes;

use super::{POLLING, WEBSOCKET, connect_packet, online, raw_device, request, session_id, status};
use crate::harness::{RawMessage, RawSocket, TestServer};

/// Panics and where they were. A test and its server share a thread.
static PANICS: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

fn watch_panics() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Ok(mut panics) = PANICS.lock() {
                panics.push((thread::current().id(), info.to_string()));
            }
            usual(info);
        }));
    });
}

/// Fails if this test's server panicked anywhere.
fn assert_calm(sent: &str) {
    let panics = PANICS.lock().expect("nobody panics here");
    let own = panics.iter().find(|(thread, _)| *thread == thread::current().id());
    assert!(own.is_none(), "{sent:?} made the server panic: {own:?}");
}

const PACKETS: [&str; 62] = [
    "",
    "x",
    "9",
    "0",
    "1",
    "3",
    "3probe",
    "2probe",
    "5",
    "6",
    "b",
    "bAAAA",
    "b!",
    "4",
    "47",
    "4x",
    "4-1",
    "40",
    "40{}",
    "41",
    "41/other,",
    "41/other",
    "42",
    "42[]",
    "42{}",
    "42\"x\"",
    "42null",
    "42[",
    "42[1]",
    "42[null,1]",
    "42[[],1]",
    "42[{},1]",
    "42[\"x\"",
    "42[\"x\",",
    "42[\"x\",1]]",
    "42/other,[\"x\"]",
    "42/é,[\"x\"]",
    "42/",
    "42é",
    "42-1[\"x\"]",
    "4299999999999999999999[\"x\"]",
    "429223372036854775808[\"x\"]",
    "4200000000000000000001[\"x\"]",
    "427",
    "427{}",
    "427null",
    "43",
    "43[1]",
    "4399[1]",
    "4399999999999999999999[1]",
    "43-1[1]",
    "44",
    "44{}",
    "44{\"message\":\"x\"}",
    "45",
    "45[\"x\"]",
    "45-[\"x\"]",
    "450-[\"x\"]",
    "4599999999999999999999-[\"x\"]",
    "46",
    "461-[1]",
    "4699999999-1[1]",
];

#[tokio::test]
async fn packets_that_make_no_sense_end_their_connection_at_most() {
    watch_panics();
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut bystander = server.connect("43").await;
    for packet in PACKETS {
        let mut before = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
        before.send_text(packet).await;
        before.send_text(connect_packet("42")).await;
        let mut after = raw_device(&server, "42").await;
        after.send_text(packet).await;
        after.send_text(r#"421["unknown"]"#).await;
        answered_or_ended(&mut after).await;
        before.abort();
        after.abort();
        assert_calm(packet);
    }
    online(&backend, 1).await;
    assert_eq!(backend.broadcast("still", "1").await.enqueued, 1);
    bystander.expect_event("still").await;
}

async fn answered_or_ended(socket: &mut RawSocket) {
    while let Some(message) = socket.receive_within(Duration::from_secs(1)).await {
        match message {
            RawMessage::Text(text) if text.starts_with("431") => return,
            RawMessage::Text(_) | RawMessage::Binary(_) => {}
            RawMessage::Closed(_) => return,
        }
    }
}

#[tokio::test]
async fn bytes_that_belong_to_nothing_end_their_connection_at_most() {
    watch_panics();
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let headers = [
        r#"451-["x",{"_placeholder":true,"num":0}]"#,
        r#"451-["x",{"_placeholder":true,"num":5}]"#,
        r#"451-["x",{"_placeholder":true,"num":-1}]"#,
        r#"451-["x",{"_placeholder":true,"num":99999999999999999999}]"#,
        r#"451-["x",{"_placeholder":true}]"#,
        r#"451-[{"_placeholder":true,"num":0}]"#,
        r#"451-[{"_placeholder":true,"num":0},"x"]"#,
        r#"452-["x",{"_placeholder":true,"num":0}]"#,
        r#"451-["x"]"#,
        "451-[]",
        "451-{}",
        "451-",
        "461-1[{\"_placeholder\":true,\"num\":0}]",
        "45999999999-[\"x\"]",
    ];
    for header in headers {
        let mut socket = raw_device(&server, "42").await;
        socket.send_text(header).await;
        socket.send_binary(&b"\x00"[..]).await;
        socket.send_binary(Bytes::new()).await;
        socket.send_text(r#"421["unknown"]"#).await;
        answered_or_ended(&mut socket).await;
        socket.abort();
        assert_calm(header);
    }
    for bytes in [Bytes::new(), Bytes::from_static(b"\x04"), Bytes::from_static(b"40{}")] {
        for target in [WEBSOCKET, "/socket.io/?EIO=3&transport=websocket&token=x"] {
            let mut socket = RawSocket::connect(server.clients(), target).await.expect("the WebSocket opens");
            socket.send_binary(bytes.clone()).await;
            socket.abort();
            assert_calm("bytes before a CONNECT");
        }
    }
    online(&backend, 0).await;
    raw_device(&server, "42").await;
}

#[tokio::test]
async fn posts_that_make_no_sense_end_their_session_at_most() {
    watch_panics();
    let server = TestServer::start().await;
    let clients = server.clients();
    for old in [false, true] {
        let opening = if old { "/socket.io/?EIO=3&transport=polling" } else { POLLING };
        for body in [
            "",
            "x",
            "4",
            "40",
            "\u{1e}",
            "40\u{1e}\u{1e}40",
            "b",
            "b!!",
            "bAAAA",
            "1:4",
            "9999999:4",
            "-1:4",
            ":",
            "3:é",
        ] {
            let opened = request(clients, "GET", opening, &[], "").await;
            let session = format!("{opening}&sid={}", session_id(&opened));
            for content in ["text/plain;charset=UTF-8", "application/octet-stream", "nonsense"] {
                let answer = request(clients, "POST", &session, &[("content-type", content)], body).await;
                assert!(matches!(status(&answer), 200 | 400..=499), "{body:?}: {answer}");
            }
            assert_calm(body);
        }
    }
    raw_device(&server, "42").await;
}

#[tokio::test]
async fn a_session_cannot_be_asked_for_behind_an_escape() {
    let server = TestServer::start().await;
    let opened = request(server.clients(), "GET", POLLING, &[], "").await;
    let sid = session_id(&opened);
    let hidden = [
        format!("/socket.io/?EIO=4&transport=polling%26sid%3D{sid}"),
        format!("/socket.io/?transport=polling&EIO=4%26sid%3D{sid}"),
        format!("/socket.io/?EIO=4&transport=polling&b64=1%26sid%3D{sid}"),
    ];
    for target in hidden {
        let posted = request(server.clients(), "POST", &target, &[], "1").await;
        assert_ne!(status(&posted), 200, "{posted}");
        let websocket = target.replace("polling", "websocket");
        if let Ok(mut socket) = RawSocket::connect(server.clients(), &websocket).await {
            socket.send_text("2probe").await;
            let answer = socket.receive().await;
            assert_ne!(answer, RawMessage::Text("3probe".into()), "the session upgrades unseen: {target}");
        }
    }
    let session = format!("{POLLING}&sid={sid}");
    assert_eq!(status(&request(server.clients(), "POST", &session, &[], "3").await), 200, "it is still there");
}

#[tokio::test]
async fn a_websocket_is_not_agreed_to_without_the_headers_of_an_upgrade() {
    let server = TestServer::start().await;
    let headers = [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let handshake = request(server.clients(), "GET", POLLING, &[], "").await;
    let upgrade = format!("{WEBSOCKET}&sid={}", session_id(&handshake));
    for target in [WEBSOCKET, &upgrade] {
        let answer = request(server.clients(), "GET", target, &headers, "").await;
        assert_eq!(status(&answer), 400, "{answer}");
        assert!(answer.ends_with(r#"{"code":3,"message":"Bad request"}"#), "{answer}");
    }
}
