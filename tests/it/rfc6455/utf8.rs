//! Group 6: texts are UTF-8, wherever they are cut.

use super::{Case, EDGES, Expected, NOT_UTF8, TEXT, TEXT_BEGINS, check, fragments};
use crate::harness::frame;

/// Around each change of how a code point is written, and around those that none may be.
const VALID: [&str; 16] = [
    "",
    "\u{0}",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\u{7f}",
    "\u{80}",
    "\u{7ff}",
    "\u{800}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{fffe}\u{ffff}",
    "\u{10000}",
    "\u{1f680}\u{2028}",
    "\u{fdd0}\u{1fffe}\u{10fffe}",
    "\u{10ffff}",
];

const INVALID: [(&str, &[u8]); 22] = [
    ("a lone continuation", b"\x80"),
    ("the last continuation", b"\xbf"),
    ("two continuations", b"\x80\xbf"),
    ("a beginning of two alone", b"\xc2"),
    ("a beginning of two and a blank", b"\xc2 "),
    ("a beginning of three alone", b"\xe2\x82"),
    ("a beginning of three and a letter", b"\xe2\x82a"),
    ("a beginning of four alone", b"\xf0\x9f\x9a"),
    ("a beginning of four and a letter", b"\xf0\x9f\x9aa"),
    ("an overlong slash of two", b"\xc0\xaf"),
    ("an overlong slash of three", b"\xe0\x80\xaf"),
    ("an overlong slash of four", b"\xf0\x80\x80\xaf"),
    ("an overlong NUL", b"\xc0\x80"),
    ("the longest overlong of two", b"\xc1\xbf"),
    ("the longest overlong of three", b"\xe0\x9f\xbf"),
    ("the longest overlong of four", b"\xf0\x8f\xbf\xbf"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("a pair of surrogates", b"\xed\xa0\xbd\xed\xba\x80"),
    ("beyond the last code point", b"\xf4\x90\x80\x80"),
    ("a sequence of five", b"\xf8\x88\x80\x80\x80"),
    ("FE", b"\xfe"),
    ("FF", b"\xff"),
];

#[tokio::test]
async fn every_code_point_may_be_in_a_text() {
    for edge in EDGES {
        let mut cases = Vec::new();
        for valid in VALID {
            let (text, answer) = edge.echo(valid.as_bytes());
            let name = format!("{valid:?}");
            cases.push(Case::new(name.as_str(), frame(TEXT, &text), Expected::Frames(answer.clone())));
            cases.push(Case::new(name.as_str(), frame(TEXT, &text), Expected::Frames(answer)).chopped());
        }
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn a_text_may_be_cut_within_a_code_point() {
    for edge in EDGES {
        let mut cases = Vec::new();
        for valid in &VALID[2..] {
            let (text, answer) = edge.echo(valid.as_bytes());
            for cut in 1..text.len() {
                let (before, after) = text.split_at(cut);
                let sends = fragments(TEXT_BEGINS, &[before, after]);
                cases.push(Case::new(format!("{valid:?} at {cut}"), sends, Expected::Frames(answer.clone())));
            }
        }
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn what_is_not_utf8_is_an_error() {
    for edge in EDGES {
        let mut cases = Vec::new();
        for (name, invalid) in INVALID {
            let (text, _) = edge.echo(&[b"before ", invalid, b" after"].concat());
            let (last, _) = edge.echo(&[b"before ", invalid].concat());
            cases.push(Case::closes(format!("{name} within"), frame(TEXT, &text), NOT_UTF8));
            cases.push(Case::closes(format!("{name} at the end"), frame(TEXT, &last), NOT_UTF8));
            cases.push(Case::closes(format!("{name} within"), frame(TEXT, &text), NOT_UTF8).chopped());
        }
        check(edge, &cases).await;
    }
}

#[tokio::test]
async fn what_is_not_utf8_is_an_error_in_any_fragment() {
    for edge in EDGES {
        let mut cases = Vec::new();
        for (name, invalid) in INVALID {
            let (first, _) = edge.echo(b"good");
            let bytes: Vec<&[u8]> = [first.as_slice()].into_iter().chain(invalid.chunks(1)).collect();
            let ends = [&[first.as_slice(), invalid][..], &[b""]].concat();
            cases.push(Case::closes(format!("{name} byte for byte"), fragments(TEXT_BEGINS, &bytes), NOT_UTF8));
            cases.push(Case::closes(format!("{name} before the end"), fragments(TEXT_BEGINS, &ends), NOT_UTF8));
        }
        check(edge, &cases).await;
    }
}
