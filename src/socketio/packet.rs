//! A look at a device's Socket.IO packet before the library's parser reads it (Socket.IO protocol 5 and 4,
//! "Packet encoding").
//!
//! The library takes an event's name as a slice of the packet, and closes the transport if the name has an escape
//! (`["\u00e9"]`, `["a\"b"]`) or is a number, although both are valid. Clients in PHP, Java and Python escape what is not
//! ASCII. [`inspect`] gives such a packet a name that the library can read.

use std::ops::Range;

use serde::de::IgnoredAny;

/// What a packet is, and how to hand it to the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inspected<'a> {
    pub(super) kind: Kind,
    /// Begins with `/`; `/` if the packet names none. A query (`/admin?a=b`, Socket.IO 2) belongs to it.
    pub(super) namespace: &'a str,
    pub(super) rewrite: Rewrite,
}

/// The type of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    /// Only a server sends it: the library closes the transport, where Node ignores it.
    ConnectError,
    BinaryEvent {
        attachments: usize,
    },
    BinaryAck {
        attachments: usize,
    },
}

/// Whether the library can read an event's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// It can, or the packet is no event.
    Unneeded,
    /// The packet with the same name, written without escapes.
    Unescaped(String),
    /// The packet with an empty name put *before* its own, as in `["","a\"b",1]`: the name is a number, is empty, or
    /// cannot be written without escapes (quotes, backslashes, control characters, lone surrogates). The handler of
    /// events finds the name behind the empty one, or refuses the event. A packet that comes with an empty name is marked
    /// too, so that an empty name in front always is this mark.
    Marked(String),
}

/// Why a packet is invalid: the transport is to be closed, as Node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the packet does not begin with a packet type")]
    Type,
    #[error("the number of attachments is missing or invalid")]
    Attachments,
    #[error("the acknowledgement has no valid id")]
    AckId,
    #[error("the event is no array that begins with a name")]
    Event,
}

/// Reads a packet's type, its namespace and, of an event, the name. Takes time in proportion to what stands before the
/// arguments, which are not read.
pub(super) fn inspect(text: &str) -> Result<Inspected<'_>, Malformed> {
    let digit = *text.as_bytes().first().ok_or(Malformed::Type)?;
    let mut at = 1;
    let kind = match digit {
        b'0' => Kind::Connect,
        b'1' => Kind::Disconnect,
        b'2' => Kind::Event,
        b'3' => Kind::Ack,
        b'4' => Kind::ConnectError,
        b'5' => Kind::BinaryEvent { attachments: read_attachments(text, &mut at)? },
        b'6' => Kind::BinaryAck { attachments: read_attachments(text, &mut at)? },
        _ => return Err(Malformed::Type),
    };
    let namespace = read_namespace(text, &mut at);
    let has_ack_id = read_ack_id(text, &mut at);
    let rewrite = match kind {
        Kind::Event | Kind::BinaryEvent { .. } => rewrite(text, at)?,
        Kind::Ack | Kind::BinaryAck { .. } if !has_ack_id => return Err(Malformed::AckId),
        Kind::Connect | Kind::Disconnect | Kind::Ack | Kind::BinaryAck { .. } | Kind::ConnectError => Rewrite::Unneeded,
    };
    Ok(Inspected { kind, namespace, rewrite })
}

/// `<number>-`
fn read_attachments(text: &str, at: &mut usize) -> Result<usize, Malformed> {
    let digits = digits_at(text, *at);
    if text.as_bytes().get(digits.end) != Some(&b'-') {
        return Err(Malformed::Attachments);
    }
    *at = digits.end + 1;
    text[digits].parse().map_err(|_| Malformed::Attachments)
}

/// `/name,`, or `/name` at the end of the packet.
fn read_namespace<'a>(text: &'a str, at: &mut usize) -> &'a str {
    let rest = &text[*at..];
    if !rest.starts_with('/') {
        return "/";
    }
    let (namespace, separator) = rest.find(',').map_or((rest, 0), |comma| (&rest[..comma], 1));
    *at += namespace.len() + separator;
    namespace
}

/// The digits before the payload. The library takes them for an id if the payload follows at once and they fit a number
/// of 64 bits; else it reads over them.
fn read_ack_id(text: &str, at: &mut usize) -> bool {
    let digits = digits_at(text, *at);
    *at = digits.end;
    let is_before_payload = matches!(text.as_bytes().get(digits.end), Some(b'[' | b'{'));
    is_before_payload && text[digits].parse::<i64>().is_ok()
}

fn digits_at(text: &str, start: usize) -> Range<usize> {
    let count = text.as_bytes()[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    start..start + count
}

/// Reads the name of the event whose payload begins at `payload`.
fn rewrite(text: &str, payload: usize) -> Result<Rewrite, Malformed> {
    let array = after_whitespace(text, payload);
    if text.as_bytes().get(array) != Some(&b'[') {
        return Err(Malformed::Event);
    }
    let start = after_whitespace(text, array + 1);
    let marked = || Rewrite::Marked([&text[..=array], r#""","#, &text[start..]].concat());
    let literal = match text.as_bytes().get(start) {
        Some(b'"') => string_at(text, start).ok_or(Malformed::Event)?,
        Some(b'-' | b'0'..=b'9') => return is_number_at(text, start).then(marked).ok_or(Malformed::Event),
        _ => return Err(Malformed::Event),
    };
    let quoted = &text[literal.clone()];
    if !quoted.contains('\\') {
        return match quoted {
            r#""""# => Ok(marked()),
            name if name.contains(needs_escape) => Err(Malformed::Event),
            _ => Ok(Rewrite::Unneeded),
        };
    }
    match serde_json::from_str::<String>(quoted) {
        Ok(name) if name.contains(['"', '\\']) || name.contains(needs_escape) => Ok(marked()),
        Ok(name) => {
            let (before, after) = (&text[..=literal.start], &text[literal.end - 1..]);
            Ok(Rewrite::Unescaped([before, &name, after].concat()))
        }
        // A lone surrogate is valid JSON, but no text in UTF-8.
        Err(_) if serde_json::from_str::<IgnoredAny>(quoted).is_ok() => Ok(marked()),
        Err(_) => Err(Malformed::Event),
    }
}

fn needs_escape(character: char) -> bool {
    matches!(character, '\0'..='\x1f')
}

/// The string literal that begins at `start`, with its quotes, unless it does not end.
fn string_at(text: &str, start: usize) -> Option<Range<usize>> {
    let mut is_escaped = false;
    let inside = text.as_bytes()[start + 1..].iter();
    let length = inside.into_iter().position(|&byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    Some(start..start + length + 2)
}

fn is_number_at(text: &str, start: usize) -> bool {
    let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = text.as_bytes()[start..].iter().take_while(|byte| is_of_number(byte)).count();
    serde_json::from_str::<IgnoredAny>(&text[start..start + length]).is_ok()
}

fn after_whitespace(text: &str, start: usize) -> usize {
    let is_whitespace = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    start + text.as_bytes()[start..].iter().take_while(is_whitespace).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json, value::RawValue};

    use super::*;

    fn inspected(text: &str) -> Inspected<'_> {
        inspect(text).unwrap_or_else(|malformed| panic!("{text}: {malformed}"))
    }

    fn kind(text: &str) -> Kind {
        inspected(text).kind
    }

    /// The event's name as the library reads it: a slice of the payload.
    fn name_for_library(payload: &str) -> Option<&str> {
        let elements: Vec<&RawValue> = serde_json::from_str(payload).ok()?;
        serde_json::from_str(elements.first()?.get()).ok()
    }

    #[test]
    fn each_type_is_told_with_its_namespace() {
        let event = |text| (kind(text), inspected(text).namespace);
        assert_eq!(event("0"), (Kind::Connect, "/"));
        assert_eq!(event("0{\"token\":\"/a,\"}"), (Kind::Connect, "/"));
        assert_eq!(event("0/admin,{}"), (Kind::Connect, "/admin"));
        assert_eq!(event("0/admin?token=a,"), (Kind::Connect, "/admin?token=a"));
        assert_eq!(event("1"), (Kind::Disconnect, "/"));
        assert_eq!(event("1/admin"), (Kind::Disconnect, "/admin"));
        assert_eq!(event("1/\u{e9},"), (Kind::Disconnect, "/\u{e9}"));
        assert_eq!(event("2[\"a\",\"/b,\"]"), (Kind::Event, "/"));
        assert_eq!(event("2/admin,12[\"a\"]"), (Kind::Event, "/admin"));
        assert_eq!(event("312[]"), (Kind::Ack, "/"));
        assert_eq!(event("3/admin,12[1]"), (Kind::Ack, "/admin"));
        assert_eq!(event("4{\"message\":\"x\"}"), (Kind::ConnectError, "/"));
        assert_eq!(event("52-/admin,[\"a\"]"), (Kind::BinaryEvent { attachments: 2 }, "/admin"));
        assert_eq!(event("60-/admin,7[]"), (Kind::BinaryAck { attachments: 0 }, "/admin"));
    }

    #[test]
    fn what_the_library_would_close_the_transport_for_is_malformed() {
        let malformed = [
            ("", Malformed::Type),
            ("7[\"a\"]", Malformed::Type),
            ("\u{e9}", Malformed::Type),
            ("5[\"a\"]", Malformed::Attachments),
            ("5-[\"a\"]", Malformed::Attachments),
            ("51[\"a\"]", Malformed::Attachments),
            ("51", Malformed::Attachments),
            ("599999999999999999999-[\"a\"]", Malformed::Attachments),
            ("6x-1[]", Malformed::Attachments),
            ("3[]", Malformed::AckId),
            ("3/admin,[]", Malformed::AckId),
            ("312", Malformed::AckId),
            ("399999999999999999999[]", Malformed::AckId),
            ("61-[]", Malformed::AckId),
            ("2", Malformed::Event),
            ("2/admin", Malformed::Event),
            ("2[]", Malformed::Event),
            ("2[", Malformed::Event),
            ("2{\"a\":1}", Malformed::Event),
            ("2\"a\"", Malformed::Event),
            ("2[null]", Malformed::Event),
            ("2[[\"a\"]]", Malformed::Event),
            ("2[\"a", Malformed::Event),
            ("2[\"a\\\"]", Malformed::Event),
            ("2[\"a\n\"]", Malformed::Event),
            ("2[\"\\x41\"]", Malformed::Event),
            ("2[\"\\u00\"]", Malformed::Event),
            ("2[-]", Malformed::Event),
            ("2[1.]", Malformed::Event),
        ];
        for (text, expected) in malformed {
            assert_eq!(inspect(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn names_that_the_library_reads_stay_as_they_are() {
        for text in ["2[\"a\"]", "2/a,1 [ \"\u{e9}\u{7f} b\" , 1]", "21[\"a\",\"\\u00e9\"]", "51-[\"a/b\",{}]"] {
            assert_eq!(inspected(text).rewrite, Rewrite::Unneeded, "{text}");
        }
    }

    #[test]
    fn names_with_needless_escapes_are_written_without() {
        let cases = [
            ("2[\"\\u00e9\"]", "2[\"\u{e9}\"]"),
            ("2/admin,12[\"a\\/b\",{\"c\":\"\\/\"}]", "2/admin,12[\"a/b\",{\"c\":\"\\/\"}]"),
            ("51-[ \"\\ud83d\\ude00\\u0041\" ,1]", "51-[ \"\u{1f600}A\" ,1]"),
        ];
        for (text, expected) in cases {
            assert_eq!(inspected(text).rewrite, Rewrite::Unescaped(expected.into()), "{text}");
        }
    }

    #[test]
    fn names_that_cannot_be_written_for_the_library_are_marked() {
        let cases = [
            ("2[\"a\\\"b\"]", "2[\"\",\"a\\\"b\"]"),
            ("2/x,7[\"\\\\\",1]", "2/x,7[\"\",\"\\\\\",1]"),
            ("51-[\"\\n\",{}]", "51-[\"\",\"\\n\",{}]"),
            ("2[\"\\u0000\"]", "2[\"\",\"\\u0000\"]"),
            ("2[\"\\ud800\"]", "2[\"\",\"\\ud800\"]"),
            ("2[\"\"]", "2[\"\",\"\"]"),
            ("2[ 5,1]", "2[\"\",5,1]"),
            ("2[-1.5e3]", "2[\"\",-1.5e3]"),
        ];
        for (text, expected) in cases {
            assert_eq!(inspected(text).rewrite, Rewrite::Marked(expected.into()), "{text}");
        }
    }

    #[test]
    fn deep_and_large_arguments_are_not_read() {
        let deep = format!("2[\"\\u00e9\",{}", "[".repeat(1_000_000));
        assert!(matches!(inspected(&deep).rewrite, Rewrite::Unescaped(_)));
        let long = format!("2[\"{}\"]", "\\u00e9".repeat(200_000));
        assert!(matches!(inspected(&long).rewrite, Rewrite::Unescaped(text) if text.len() == 400_005));
    }

    /// The text as a JSON string, with every character escaped or only those that must be.
    fn literal(name: &str, escape_all: bool) -> String {
        if escape_all {
            let units = name.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            format!("\"{}\"", units.collect::<String>())
        } else {
            json!(name).to_string()
        }
    }

    proptest! {
        #[test]
        fn an_events_array_stays_the_same_or_is_marked(
            name in "[a-z\"\\\\/\u{e9}\u{1f600}\u{0}-\u{1f}]{0,8}|\\PC{0,8}",
            argument in ".{0,8}",
            head in "2(/[a-z]{1,3},)?[0-9]{0,3}|51-[0-9]{0,3}",
            escape_all: bool,
        ) {
            let array = format!("[{},{}]", literal(&name, escape_all), json!([argument]));
            let text = format!("{head}{array}");
            let sent: Value = serde_json::from_str(&array).unwrap();
            match inspect(&text).unwrap().rewrite {
                Rewrite::Unneeded => prop_assert_eq!(name_for_library(&array), Some(&*name)),
                Rewrite::Unescaped(rewritten) => {
                    let rewritten = rewritten.strip_prefix(&head).unwrap();
                    prop_assert_eq!(name_for_library(rewritten), Some(&*name));
                    prop_assert_eq!(serde_json::from_str::<Value>(rewritten).unwrap(), sent);
                }
                Rewrite::Marked(rewritten) => {
                    let rewritten = rewritten.strip_prefix(&head).unwrap();
                    prop_assert_eq!(name_for_library(rewritten), Some(""));
                    let mut elements: Vec<Value> = serde_json::from_str(rewritten).unwrap();
                    elements.remove(0);
                    prop_assert_eq!(Value::from(elements), sent);
                }
            }
        }

        #[test]
        fn random_text_never_panics(text in "([0-6]|-|/|,|\\[|\"|\\\\|u00|\\PC){0,24}") {
            let _ = inspect(&text);
        }
    }
}
