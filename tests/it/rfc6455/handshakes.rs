//! Section 4: which requests open a WebSocket.

use super::{EDGES, Edge, server};
use crate::harness::{ACCEPT, Answer, HANDSHAKE, TestServer, Wire, http_request};

type Headers = Vec<(&'static str, &'static str)>;

/// The headers of a good handshake, one of them changed; None: left out.
fn with(name: &str, value: Option<&'static str>) -> Headers {
    let others = HANDSHAKE.into_iter().filter(|(known, _)| *known != name);
    let changed = HANDSHAKE.into_iter().find(|(known, _)| *known == name).zip(value);
    others.chain(changed.map(|((name, _), value)| (name, value))).collect()
}

async fn answer(server: &TestServer, edge: Edge, method: &str, headers: &[(&str, &str)]) -> Answer {
    let mut wire = Wire::open(server.clients()).await;
    wire.send(http_request(method, &edge.target("42"), headers, b"")).await;
    wire.answer().await
}

#[tokio::test]
async fn a_good_handshake_is_accepted_however_it_is_written() {
    let server = server().await;
    for edge in EDGES {
        for headers in [
            HANDSHAKE.to_vec(),
            with("connection", Some("keep-alive, Upgrade")),
            with("connection", Some("UPGRADE")),
            with("connection", Some("close,upgrade")),
            with("upgrade", Some("WebSocket")),
        ] {
            let answer = answer(&server, edge, "GET", &headers).await;
            assert_eq!(answer.status, 101, "{edge:?}: {headers:?}: {}", answer.text());
            assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT), "{edge:?}");
            let has = |name: &str, wanted: &str| {
                answer
                    .header(name)
                    .is_some_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
            };
            assert!(has("upgrade", "websocket") && has("connection", "upgrade"), "{edge:?}: {:?}", answer.headers);
        }
    }
}

#[tokio::test]
async fn another_version_is_told_which_one_there_is() {
    let server = server().await;
    for edge in EDGES {
        for version in [None, Some("8"), Some("12"), Some("14"), Some("013"), Some("x"), Some("")] {
            let answer = answer(&server, edge, "GET", &with("sec-websocket-version", version)).await;
            assert_eq!(answer.status, 426, "{edge:?}: {version:?}");
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{edge:?}: {version:?}");
        }
    }
}

#[tokio::test]
async fn a_key_is_sixteen_bytes_in_base64() {
    let server = server().await;
    let keys = [
        None,
        Some(""),
        Some("x"),
        Some("dGhlIHNhbXBsZSBub25j"),
        Some("dGhlIHNhbXBsZSBub25jZQ"),
        Some("dGhlIHNhbXBsZSBub25jZWE="),
        Some("!!!!IHNhbXBsZSBub25jZQ=="),
    ];
    for edge in EDGES {
        for key in keys {
            let answer = answer(&server, edge, "GET", &with("sec-websocket-key", key)).await;
            assert_eq!(answer.status, 400, "{edge:?}: {key:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_ask_for_an_upgrade_gets_none() {
    let server = server().await;
    for edge in EDGES {
        for headers in [
            with("connection", None),
            with("connection", Some("keep-alive")),
            with("connection", Some("upgraded")),
            with("upgrade", None),
            with("upgrade", Some("h2c")),
            with("upgrade", Some("websockets")),
        ] {
            let answer = answer(&server, edge, "GET", &headers).await;
            assert!(matches!(answer.status, 400 | 426), "{edge:?}: {headers:?}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn only_a_get_opens_a_websocket() {
    let server = server().await;
    for edge in EDGES {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = answer(&server, edge, method, &HANDSHAKE).await;
            assert!((400..500).contains(&answer.status), "{edge:?}: {method}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn http_1_0_opens_no_websocket() {
    let server = server().await;
    for edge in EDGES {
        let request = String::from_utf8(http_request("GET", &edge.target("42"), &HANDSHAKE, b"")).expect("it is text");
        let mut wire = Wire::open(server.clients()).await;
        wire.send(request.replace("HTTP/1.1", "HTTP/1.0")).await;
        let status = wire.answer().await.status;
        assert!(matches!(status, 400..=599), "{edge:?}: {status}");
    }
}

#[tokio::test]
async fn no_extension_and_no_protocol_is_agreed_to() {
    let server = server().await;
    for edge in EDGES {
        let wishes =
            [("sec-websocket-extensions", "permessage-deflate"), ("sec-websocket-protocol", "chat, superchat")];
        let headers: Headers = HANDSHAKE.into_iter().chain(wishes).collect();
        let answer = answer(&server, edge, "GET", &headers).await;
        assert_eq!(answer.status, 101, "{edge:?}");
        for (name, _) in wishes {
            assert_eq!(answer.header(name), None, "{edge:?}");
        }
    }
}
