//! Groups 9 and 10: how large a message may be, whole and in fragments.

use super::{Case, EDGES, Expected, GOES_ON, MAX, PROTOCOL_ERROR, TEXT, TEXT_BEGINS, TOO_LARGE, check, fragments};
use crate::harness::{announced, frame};

#[tokio::test]
async fn the_largest_message_is_heard_whole_and_in_fragments() {
    for edge in EDGES {
        let overhead = edge.echo(b"").0.len();
        let (text, answer) = edge.echo(&vec![b'*'; MAX - overhead]);
        let parts: Vec<&[u8]> = text.chunks(1_300).collect();
        let cases = [
            Case::new("whole", frame(TEXT, &text), Expected::Frames(answer.clone())),
            Case::new("in fragments", fragments(TEXT_BEGINS, &parts), Expected::Frames(answer)),
        ];
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_larger_one_is_closed_as_soon_as_it_is_known() {
    let overflow = [frame(TEXT_BEGINS, &vec![b'2'; MAX / 2]), frame(GOES_ON, &vec![b'*'; MAX / 2])].concat();
    let cases = [
        Case::closes("by one byte", frame(TEXT, &vec![b'2'; MAX + 1]), TOO_LARGE),
        Case::closes("announced alone", announced(TEXT, MAX as u64 + 1), TOO_LARGE),
        Case::closes("by far, announced alone", announced(TEXT, 1 << 40), TOO_LARGE),
        Case::closes("its last fragment, announced alone", [overflow, announced(0x80, 1)].concat(), TOO_LARGE),
    ];
    for edge in EDGES {
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_length_beyond_63_bits_is_an_error() {
    for edge in EDGES {
        let server = super::server().await;
        let mut wire = edge.open(&server).await;
        wire.send(announced(TEXT, 1 << 63)).await;
        let code = wire.frame().await.and_then(|last| last.close_code());
        assert!(matches!(code, Some(PROTOCOL_ERROR | TOO_LARGE)), "{edge:?}: {code:?}");
    }
}

#[tokio::test]
async fn many_small_messages_are_heard_in_their_order() {
    for edge in EDGES {
        let (mut sends, mut answers) = (Vec::new(), Vec::new());
        for number in 0..1_000 {
            let (text, answer) = edge.echo(format!("{number:016}").as_bytes());
            sends.extend(frame(TEXT, &text));
            answers.extend(answer);
        }
        check(edge, &[Case::new("a thousand", sends, Expected::Frames(answers))]).await;
    }
}
