//! Group 2: pings and pongs.

use super::{Case, EDGES, Expected, PING, PONG, PROTOCOL_ERROR, check, server};
use crate::harness::{WireFrame, announced, frame};

#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    let payloads: [&[u8]; 5] = [b"", b"hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 124], &[0xfe; 125]];
    let mut cases = Vec::new();
    for payload in payloads {
        let expected = || Expected::Frames(vec![WireFrame::pong(payload)]);
        let name = format!("{} bytes", payload.len());
        cases.push(Case::new(name.as_str(), frame(PING, payload), expected()));
        cases.push(Case::new(name, frame(PING, payload), expected()).chopped());
    }
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_control_frame_is_at_most_125_bytes_long() {
    let cases = [
        Case::closes("a ping of 126 bytes", frame(PING, &[0xfe; 126]), PROTOCOL_ERROR),
        Case::closes("a pong of 126 bytes", frame(PONG, &[0xfe; 126]), PROTOCOL_ERROR),
        Case::closes("a close of 126 bytes", frame(0x88, &[0x03; 126]), PROTOCOL_ERROR),
        Case::closes("a ping of a gigabyte, announced", announced(PING, 1 << 30), PROTOCOL_ERROR),
    ];
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_pong_that_nobody_asked_for_is_ignored() {
    let cases = [
        Case::is_ignored("a pong without a payload", frame(PONG, b"")),
        Case::is_ignored("a pong with one", frame(PONG, b"unasked")),
        Case::new(
            "a pong before a ping",
            [frame(PONG, b"unasked"), frame(PING, b"asked")].concat(),
            Expected::Frames(vec![WireFrame::pong(b"asked")]),
        ),
    ];
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

/// RFC 6455, 5.5.3: the latest of several pings may be answered alone.
#[tokio::test]
async fn of_many_pings_the_last_is_answered() {
    for edge in EDGES {
        let server = server().await;
        for is_chopped in [false, true] {
            let mut wire = edge.open(&server).await;
            let pings: Vec<_> = (0..10).flat_map(|number| frame(PING, format!("{number}").as_bytes())).collect();
            if is_chopped {
                for byte in pings {
                    wire.send([byte]).await;
                }
            } else {
                wire.send(pings).await;
            }
            let mut last = None;
            while last != Some(9) {
                let pong = wire.frame().await.expect("the connection goes on");
                assert_eq!(pong.first, PONG, "{edge:?}: {pong:?}");
                let number: u8 = std::str::from_utf8(&pong.payload).expect("text").parse().expect("a number");
                assert!(last < Some(number), "{edge:?}: in their order");
                last = Some(number);
            }
            edge.is_alive(&mut wire, "ten pings").await;
        }
    }
}
