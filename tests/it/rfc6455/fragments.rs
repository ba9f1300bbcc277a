//! Group 5: messages in fragments, and control frames among them.

use super::{
    BINARY, BINARY_BEGINS, Case, EDGES, ENDS, Edge, Expected, GOES_ON, PING, PONG, PROTOCOL_ERROR, TEXT, TEXT_BEGINS,
    check, fragments,
};
use crate::{
    devices::online,
    harness::{Wire, WireFrame, auth_message, frame, token},
};

#[tokio::test]
async fn a_text_in_fragments_is_one_text() {
    for edge in EDGES {
        let (text, answer) = edge.echo(b"fragment1fragment2fragment3");
        let expected = || Expected::Frames(answer.clone());
        let (first, rest) = text.split_at(10);
        let (second, third) = rest.split_at(9);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        let cases = [
            Case::new("two", fragments(TEXT_BEGINS, &[first, rest]), expected()),
            Case::new("three", fragments(TEXT_BEGINS, &[first, second, third]), expected()),
            Case::new("three", fragments(TEXT_BEGINS, &[first, second, third]), expected()).chopped(),
            Case::new("empty ones among them", fragments(TEXT_BEGINS, &[b"", first, b"", rest, b""]), expected()),
            Case::new("one byte each", fragments(TEXT_BEGINS, &bytes), expected()),
        ];
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn control_frames_among_fragments_are_answered_at_once() {
    for edge in EDGES {
        let (text, answer) = edge.echo(b"fragment1fragment2fragment3");
        let part = |number: usize| &text[number * 7..(number * 7 + 7).min(text.len())];
        let pong = |payload: &[u8]| WireFrame::pong(payload);
        let (begins, goes_on) = (frame(TEXT_BEGINS, part(0)), frame(GOES_ON, part(1)));
        let ends = frame(ENDS, &text[14..]);
        let one = [begins.clone(), frame(PING, b"ping"), goes_on.clone(), ends.clone()].concat();
        let two = [begins, frame(PING, b"one"), goes_on, frame(PONG, b"none"), frame(PING, b"two"), ends].concat();
        let with = |pongs: Vec<WireFrame>| Expected::Frames([pongs, answer.clone()].concat());
        check(edge, &[Case::new("one", one.clone(), with(vec![pong(b"ping")]))]).await;
        check(edge, &[Case::new("one", one, with(vec![pong(b"ping")])).chopped()]).await;
        check(edge, &[Case::new("several", two, with(vec![pong(b"one"), pong(b"two")])).chopped()]).await;
    }
}

#[tokio::test]
async fn what_cannot_follow_is_an_error() {
    let begun = || frame(TEXT_BEGINS, b"2begun");
    let cases = [
        Case::closes("a fragmented ping", [frame(0x09, b"a"), frame(ENDS, b"b")].concat(), PROTOCOL_ERROR),
        Case::closes("a fragmented pong", [frame(0x0a, b"a"), frame(ENDS, b"b")].concat(), PROTOCOL_ERROR),
        Case::closes("a fragmented close", frame(0x08, &[0x03, 0xe8]), PROTOCOL_ERROR),
        Case::closes("an end without a beginning", frame(ENDS, b"nothing"), PROTOCOL_ERROR),
        Case::closes("a part without a beginning", frame(GOES_ON, b"nothing"), PROTOCOL_ERROR),
        Case::closes("an end without a beginning", frame(ENDS, b""), PROTOCOL_ERROR).chopped(),
        Case::closes("a text among fragments", [begun(), frame(TEXT, b"2x")].concat(), PROTOCOL_ERROR),
        Case::closes("a beginning among fragments", [begun(), begun()].concat(), PROTOCOL_ERROR),
        Case::closes("bytes among fragments", [begun(), frame(BINARY, b"x")].concat(), PROTOCOL_ERROR),
        Case::closes("a reserved opcode among fragments", [begun(), frame(0x83, b"x")].concat(), PROTOCOL_ERROR),
    ];
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn an_end_after_the_end_is_an_error() {
    for edge in EDGES {
        let (text, answer) = edge.echo(b"whole");
        let sends = [fragments(TEXT_BEGINS, &[&text, b""]), frame(ENDS, b"more")].concat();
        check(edge, &[Case::new("one more", sends, Expected::Close(answer, PROTOCOL_ERROR))]).await;
    }
}

#[tokio::test]
async fn bytes_in_fragments_are_ignored_on_the_plain_edge() {
    let cases = [
        Case::is_ignored("two", fragments(BINARY_BEGINS, &[&[0xff; 300], &[0xfe; 300]])),
        Case::is_ignored("many", fragments(BINARY_BEGINS, &[&[0xff; 1_300][..]; 50])),
    ];
    check(Edge::Plain, &cases).await;
}

#[tokio::test]
async fn a_token_in_fragments_authenticates() {
    let server = super::server().await;
    let backend = server.backend().await;
    let message = auth_message(&token("42"));
    for size in [1, 7, 100] {
        let parts: Vec<&[u8]> = message.as_bytes().chunks(size).collect();
        let mut wire = Wire::websocket(server.clients(), "/plain").await;
        wire.send(fragments(TEXT_BEGINS, &parts)).await;
        Edge::Plain.is_alive(&mut wire, "a token").await;
        assert!(backend.get_user("42").await.online, "in parts of {size}");
        wire.reset();
        online(&backend, 0).await;
    }
}

#[tokio::test]
async fn a_packet_in_fragments_is_one_packet() {
    let server = super::server().await;
    let packet = br#"427["unknown",{"a":"b"}]"#;
    let mut wire = Edge::SocketIo.open(&server).await;
    let parts: Vec<&[u8]> = packet.chunks(5).collect();
    wire.send(fragments(TEXT_BEGINS, &parts)).await;
    let answer = wire.frame().await.expect("an acknowledgement");
    assert!(answer.payload.starts_with(b"437["), "{answer:?}");
}
