//! Group 7: how a connection is closed, with which codes.

use std::time::Duration;

use super::{CLOSE, Case, EDGES, Expected, NOT_UTF8, PING, PROTOCOL_ERROR, TEXT, TEXT_BEGINS, check, server};
use crate::{
    devices::online,
    harness::{WireFrame, frame},
};

/// A close frame.
fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
    let mut cases: Vec<_> =
        codes.into_iter().map(|code| Case::closes(format!("{code}"), close(code, b""), code)).collect();
    cases.push(Case::closes("with a reason", close(1000, "tschüß".as_bytes()), 1000));
    cases.push(Case::closes("with the longest reason", close(1000, &[b'*'; 123]), 1000));
    cases.push(Case::closes("with a reason", close(1000, b"bye"), 1000).chopped());
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_close_without_a_code_is_answered() {
    for edge in EDGES {
        let server = server().await;
        let mut wire = edge.open(&server).await;
        wire.send(frame(CLOSE, b"")).await;
        let last = wire.frame().await.expect("a close frame");
        assert!(last.first == CLOSE && matches!(last.close_code(), None | Some(1000)), "{edge:?}: {last:?}");
        assert!(wire.ends_within(Duration::from_secs(2)).await, "{edge:?}");
    }
}

#[tokio::test]
async fn codes_that_nobody_may_send_are_an_error() {
    let codes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    let mut cases = Vec::new();
    for code in codes {
        cases.push(Case::closes(format!("{code}"), close(code, b""), PROTOCOL_ERROR));
        cases.push(Case::closes(format!("{code} with a reason"), close(code, b"reason"), PROTOCOL_ERROR));
    }
    cases.push(Case::closes("half a code", frame(CLOSE, &[0x03]), PROTOCOL_ERROR));
    cases.push(Case::closes("too long a reason", close(1000, &[b'*'; 124]), PROTOCOL_ERROR));
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_reason_is_utf8() {
    let cases = [
        Case::closes("no UTF-8", close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80"), NOT_UTF8),
        Case::closes("half a code point", close(1000, b"\xf0\x9f\x9a"), NOT_UTF8),
    ];
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn after_a_close_nothing_more_is_heard() {
    for edge in EDGES {
        let (text, _) = edge.echo(b"late");
        let (before, first) = edge.echo(b"in time");
        let goodbye = || close(1000, b"");
        let silence = || Expected::Close(Vec::new(), 1000);
        let cases = [
            Case::new("a ping", [goodbye(), frame(PING, b"late")].concat(), silence()),
            Case::new("a text", [goodbye(), frame(TEXT, &text)].concat(), silence()),
            Case::new("another close", [goodbye(), close(1001, b"")].concat(), silence()),
            Case::new("an error", [goodbye(), frame(0xff, b"late")].concat(), silence()),
            Case::new(
                "the rest of a text",
                [frame(TEXT_BEGINS, &text), goodbye(), frame(0x80, b"x")].concat(),
                silence(),
            ),
            Case::new("a text before it", [frame(TEXT, &before), goodbye()].concat(), Expected::Close(first, 1000)),
        ];
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_user_whose_device_closed_is_offline() {
    for edge in EDGES {
        let server = server().await;
        let backend = server.backend().await;
        let mut wire = edge.open(&server).await;
        online(&backend, 1).await;
        wire.send(close(1001, b"the page is gone")).await;
        assert_eq!(wire.frame().await.as_ref().and_then(WireFrame::close_code), Some(1001));
        online(&backend, 0).await;
        let wire = edge.open(&server).await;
        wire.reset();
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn an_end_of_the_stream_without_a_close_is_the_end() {
    for edge in EDGES {
        let server = server().await;
        let backend = server.backend().await;
        for unfinished in [frame(TEXT_BEGINS, b"2begun"), frame(TEXT, b"2cut")[..4].to_vec(), vec![TEXT]] {
            let mut wire = edge.open(&server).await;
            online(&backend, 1).await;
            wire.send(unfinished).await;
            drop(wire);
            online(&backend, 0).await;
        }
    }
}
