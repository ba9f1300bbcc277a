use serde_json::value::RawValue;

/// A WebSocket's text frame (RFC 6455, section 5.2) with an event: a message of Engine.IO, an EVENT packet of Socket.IO in the main
/// namespace, `42["event",payload,meta]`. A meta comes second, and `null` is before it if there is no payload.
pub(super) fn event_frame(event: &str, payload: Option<&RawValue>, meta: Option<&RawValue>) -> Vec<u8> {
    // Texts always serialise.
    let event = serde_json::to_string(event).unwrap_or_default();
    let first = payload.map(RawValue::get).or(meta.map(|_| "null"));
    let arguments: Vec<_> = std::iter::once(&*event).chain(first).chain(meta.map(RawValue::get)).collect();
    let packet = arguments.iter().map(|argument| argument.len() + 1).sum::<usize>() + "42[".len();
    let mut frame = Vec::with_capacity(LONGEST_HEADER + packet);
    put_header(&mut frame, packet);
    frame.extend(b"42[");
    for argument in arguments {
        frame.extend(argument.as_bytes());
        frame.push(b',');
    }
    frame.pop();
    frame.push(b']');
    frame
}

const LONGEST_HEADER: usize = 10;

fn put_header(frame: &mut Vec<u8>, length: usize) {
    const LAST: u8 = 0x80;
    const TEXT: u8 = 1;
    frame.push(LAST | TEXT);
    let length = length as u64;
    match length {
        0..126 => frame.extend(&length.to_be_bytes()[7..]),
        126..65_536 => {
            frame.push(126);
            frame.extend(&length.to_be_bytes()[6..]);
        }
        _ => {
            frame.push(127);
            frame.extend(length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

    use super::*;

    #[test]
    fn an_event_is_one_text_frame_with_its_arguments_in_order() {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        let (payload, meta, large) = (raw("1.10"), raw(r#"{"id":"m"}"#), raw(&format!(r#""{}""#, "x".repeat(200))));
        let huge = raw(&format!(r#""{}""#, "x".repeat(70_000)));
        for (event, payload, meta, text) in [
            ("e", None, None, r#"42["e"]"#.to_owned()),
            ("e", Some(&payload), None, r#"42["e",1.10]"#.to_owned()),
            ("e", Some(&payload), Some(&meta), r#"42["e",1.10,{"id":"m"}]"#.to_owned()),
            ("e", None, Some(&meta), r#"42["e",null,{"id":"m"}]"#.to_owned()),
            ("say \"a\\b\"", None, None, r#"42["say \"a\\b\""]"#.to_owned()),
            ("e", Some(&large), None, format!(r#"42["e",{}]"#, large.get())),
            ("e", Some(&huge), None, format!(r#"42["e",{}]"#, huge.get())),
        ] {
            let frame = event_frame(event, payload.map(|raw| &**raw), meta.map(|raw| &**raw));
            let mut expected = Vec::new();
            let header = FrameHeader { opcode: 1.into(), ..FrameHeader::default() };
            Frame::from_payload(header, text.into_bytes().into()).format(&mut expected).unwrap();
            assert_eq!(frame, expected);
        }
    }
}
