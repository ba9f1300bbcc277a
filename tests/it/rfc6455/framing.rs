//! Groups 1, 3 and 4: lengths of messages, reserved bits, reserved opcodes.

use super::{BINARY, Case, EDGES, Edge, Expected, PROTOCOL_ERROR, TEXT, check};
use crate::harness::frame;

/// Around each change of how a length is written.
const LENGTHS: [usize; 9] = [0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536];

#[tokio::test]
async fn texts_of_every_length_are_heard() {
    for edge in EDGES {
        let cases = LENGTHS.map(|length| {
            let (text, answer) = edge.echo(&vec![b'*'; length]);
            Case::new(format!("a text of {length} bytes"), frame(TEXT, &text), Expected::Frames(answer))
        });
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_text_may_come_in_any_pieces_of_the_stream() {
    for edge in EDGES {
        let cases = [0, 125, 126, 1_000].map(|length| {
            let (text, answer) = edge.echo(&vec![b'*'; length]);
            Case::new(format!("a text of {length} bytes"), frame(TEXT, &text), Expected::Frames(answer)).chopped()
        });
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn several_frames_may_come_at_once() {
    for edge in EDGES {
        let (mut sends, mut answers) = (Vec::new(), Vec::new());
        for number in 0..50 {
            let (text, answer) = edge.echo(format!("{number}").as_bytes());
            sends.extend(frame(TEXT, &text));
            answers.extend(answer);
        }
        check(edge, &[Case::new("fifty texts", sends, Expected::Frames(answers))]).await;
    }
}

#[tokio::test]
async fn bytes_of_every_length_are_heard_and_ignored_on_the_plain_edge() {
    let cases = LENGTHS.map(|length| Case::is_ignored(format!("{length} bytes"), frame(BINARY, &vec![0xfe; length])));
    check(Edge::Plain, &cases).await;
}

#[tokio::test]
async fn reserved_bits_are_an_error() {
    let mut cases = Vec::new();
    for bits in 1..=7 {
        for (kind, first) in [("text", TEXT), ("binary", BINARY), ("close", 0x88), ("ping", 0x89), ("pong", 0x8a)] {
            let name = format!("{kind} with the bits {bits:03b}");
            cases.push(Case::closes(name, frame(first | bits << 4, b"hello"), PROTOCOL_ERROR));
        }
    }
    cases.push(Case::closes("text with a bit", frame(TEXT | 0x40, b""), PROTOCOL_ERROR).chopped());
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn what_comes_before_an_error_is_answered_first() {
    for edge in EDGES {
        let (text, answer) = edge.echo(b"hello");
        let sends = [frame(TEXT, &text), frame(TEXT | 0x70, b"hello"), frame(0x89, b"late")].concat();
        check(edge, &[Case::new("an error after a text", sends, Expected::Close(answer, PROTOCOL_ERROR))]).await;
    }
}

#[tokio::test]
async fn reserved_opcodes_are_an_error() {
    let mut cases = Vec::new();
    for opcode in (3..=7).chain(11..=15) {
        for payload in [&b""[..], b"hello"] {
            let name = format!("opcode {opcode} with {} bytes", payload.len());
            cases.push(Case::closes(name, frame(0x80 | opcode, payload), PROTOCOL_ERROR));
        }
        cases.push(Case::closes(format!("opcode {opcode}, a part"), frame(opcode, b"hello"), PROTOCOL_ERROR));
    }
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_frame_that_is_not_masked_is_an_error() {
    let cases = [
        Case::closes("text", [&[TEXT, 5][..], b"2ello"].concat(), PROTOCOL_ERROR),
        Case::closes("an empty text", [TEXT, 0], PROTOCOL_ERROR),
        Case::closes("ping", [0x89, 0], PROTOCOL_ERROR),
        Case::closes("close", [0x88, 2, 0x03, 0xe8], PROTOCOL_ERROR),
    ];
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_mask_of_zeros_is_a_mask() {
    for edge in EDGES {
        let (text, answer) = edge.echo(b"hello");
        let length = u8::try_from(text.len()).expect("it is short");
        let sends = [&[TEXT, 0x80 | length, 0, 0, 0, 0][..], &text].concat();
        check(edge, &[Case::new("zeros", sends, Expected::Frames(answer))]).await;
    }
}
