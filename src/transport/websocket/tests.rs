use bytes::Bytes;
use proptest::prelude::*;

use super::{header::unmask, *};

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LIMIT: usize = 1000;
const FIN: u8 = 0x80;

/// A masked frame with the first byte as it is given.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    put_header(&mut header, Opcode::Text, payload.len());
    header[0] = first;
    header[1] |= 0x80;
    header.extend_from_slice(&KEY);
    let mut payload = payload.to_vec();
    unmask(&mut payload, KEY, 0);
    [header, payload].concat()
}

fn client_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    masked(FIN | opcode as u8, payload)
}

fn fragment(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    masked(opcode as u8, payload)
}

/// Reads all of the bytes in portions of at most `portion` bytes.
fn read_in_portions(bytes: &[u8], portion: usize) -> Result<Vec<Event>, Violation> {
    let mut reader = FrameReader::new(LIMIT);
    let mut events = Vec::new();
    for mut input in bytes.chunks(portion) {
        while let Some(event) = reader.read(&mut input)? {
            events.push(event);
        }
        assert!(input.is_empty(), "None means that the input is used up");
    }
    Ok(events)
}

/// Reads the bytes whole and one by one, which gives the same.
fn read(bytes: &[u8]) -> Result<Vec<Event>, Violation> {
    let whole = read_in_portions(bytes, usize::MAX);
    assert_eq!(read_in_portions(bytes, 1), whole);
    whole
}

fn is_protocol_violation(bytes: &[u8]) -> bool {
    matches!(read(bytes), Err(violation @ Violation::Protocol(_)) if violation.close_code() == 1002)
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

#[test]
fn the_rfcs_masked_hello_is_read() {
    // RFC 6455, section 5.7.
    let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(read(&hello), Ok(vec![text("Hello")]));
}

#[test]
fn messages_of_every_length_encoding_are_read() {
    for length in [0, 1, 125, 126, 127, 999, LIMIT] {
        let payload = vec![b'a'; length];
        let binary = read(&client_frame(Opcode::Binary, &payload));
        assert_eq!(binary, Ok(vec![Event::Binary(payload.into())]), "{length}");
    }
}

#[test]
fn a_length_need_not_have_its_shortest_encoding() {
    let frame = [&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1][..], &KEY, &[b'a' ^ KEY[0]]].concat();
    assert_eq!(read(&frame), Ok(vec![text("a")]));
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let bytes = [
        fragment(Opcode::Text, b"on"),
        client_frame(Opcode::Ping, b"now"),
        fragment(Opcode::Continuation, b""),
        client_frame(Opcode::Pong, b""),
        client_frame(Opcode::Continuation, b"e"),
        client_frame(Opcode::Binary, b"two"),
    ];
    let events = [
        Event::Ping(Bytes::from_static(b"now")),
        Event::Pong(Bytes::new()),
        text("one"),
        Event::Binary(Bytes::from_static(b"two")),
    ];
    assert_eq!(read(&bytes.concat()), Ok(events.to_vec()));
}

#[test]
fn unmasked_frames_are_refused() {
    assert!(is_protocol_violation(&frame(Opcode::Text, b"hello")));
}

#[test]
fn rsv_bits_are_refused() {
    for rsv in [0x10, 0x20, 0x40, 0x70] {
        assert!(is_protocol_violation(&masked(0x81 | rsv, b"hello")), "{rsv}");
    }
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert!(is_protocol_violation(&masked(FIN | opcode, b"")), "{opcode}");
    }
}

#[test]
fn long_or_fragmented_control_frames_are_refused() {
    for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
        assert!(is_protocol_violation(&client_frame(opcode, &[0; 126])));
        assert!(is_protocol_violation(&fragment(opcode, &[])));
    }
    assert!(read(&client_frame(Opcode::Ping, &[0; 125])).is_ok());
}

#[test]
fn fragments_out_of_order_are_refused() {
    assert!(is_protocol_violation(&client_frame(Opcode::Continuation, b"a")));
    assert!(is_protocol_violation(&fragment(Opcode::Continuation, b"a")));
    for second in [Opcode::Text, Opcode::Binary] {
        let bytes = [fragment(Opcode::Text, b"a"), client_frame(second, b"b")].concat();
        assert!(is_protocol_violation(&bytes));
    }
    let ended = [fragment(Opcode::Text, b"a"), client_frame(Opcode::Continuation, b"b")].concat();
    assert!(is_protocol_violation(&[ended, client_frame(Opcode::Continuation, b"c")].concat()));
}

#[test]
fn a_length_with_its_top_bit_set_is_refused() {
    let frame = [&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1][..], &KEY].concat();
    assert!(is_protocol_violation(&frame));
}

#[test]
fn a_message_over_the_limit_is_refused_at_its_header() {
    let announced = [&[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF][..], &KEY].concat();
    assert_eq!(read(&announced), Err(Violation::TooLarge));
    let barely = client_frame(Opcode::Binary, &[0; LIMIT + 1]);
    assert_eq!(read(&barely[..8]), Err(Violation::TooLarge));
    let in_fragments = [fragment(Opcode::Text, &[b'a'; LIMIT]), client_frame(Opcode::Continuation, b"b")].concat();
    assert_eq!(read(&in_fragments), Err(Violation::TooLarge));
    assert_eq!(Violation::TooLarge.close_code(), 1009);
}

#[test]
fn a_message_of_endless_empty_fragments_is_refused() {
    let mut bytes = fragment(Opcode::Text, b"");
    bytes.extend(fragment(Opcode::Continuation, b"").repeat(4095));
    assert_eq!(read(&bytes), Ok(vec![]));
    bytes.extend(fragment(Opcode::Continuation, b""));
    assert!(is_protocol_violation(&bytes));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    // Invalid bytes, overlong forms, surrogates, beyond U+10FFFF, and a character without its end.
    for wrong in [&b"\xFF"[..], b"\xC0\xAF", b"\xE0\x80\xAF", b"\xED\xA0\x80", b"\xF4\x90\x80\x80", b"a\xE2\x82"] {
        assert_eq!(read(&client_frame(Opcode::Text, wrong)), Err(Violation::NotUtf8), "{wrong:?}");
        let binary = read(&client_frame(Opcode::Binary, wrong));
        assert_eq!(binary, Ok(vec![Event::Binary(Bytes::copy_from_slice(wrong))]));
    }
    assert_eq!(Violation::NotUtf8.close_code(), 1007);
}

#[test]
fn text_that_cannot_become_utf8_is_refused_before_its_end() {
    assert_eq!(read(&fragment(Opcode::Text, b"a\xFF")), Err(Violation::NotUtf8));
    let frame = client_frame(Opcode::Text, &[&b"\xF4\x90"[..], &[b'a'; 100]].concat());
    assert_eq!(read_in_portions(&frame[..8], usize::MAX), Err(Violation::NotUtf8));
}

#[test]
fn a_character_may_be_cut_by_fragments() {
    let bytes = [
        fragment(Opcode::Text, b"1 \xE2"),
        fragment(Opcode::Continuation, b"\x82"),
        client_frame(Opcode::Continuation, b"\xAC"),
    ];
    assert_eq!(read(&bytes.concat()), Ok(vec![text("1 €")]));
}

#[test]
fn close_codes_are_checked() {
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999_u16] {
        let payload = [&code.to_be_bytes()[..], b"bye"].concat();
        let close = Event::Close(Some(CloseFrame { code, reason: "bye".to_owned() }));
        assert_eq!(read(&client_frame(Opcode::Close, &payload)), Ok(vec![close]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        assert!(is_protocol_violation(&client_frame(Opcode::Close, &code.to_be_bytes())), "{code}");
    }
}

#[test]
fn the_payload_of_a_close_frame_is_empty_or_a_code_and_utf8() {
    assert_eq!(read(&client_frame(Opcode::Close, b"")), Ok(vec![Event::Close(None)]));
    assert!(is_protocol_violation(&client_frame(Opcode::Close, b"\x03")));
    assert_eq!(read(&client_frame(Opcode::Close, b"\x03\xE8\xFF")), Err(Violation::NotUtf8));
}

#[test]
fn a_reader_that_found_a_violation_stays_failed() {
    let mut reader = FrameReader::new(LIMIT);
    let wrong = masked(0xFF, b"");
    let violation = reader.read(&mut &wrong[..]).unwrap_err();
    assert_eq!(reader.read(&mut &client_frame(Opcode::Text, b"a")[..]), Err(violation));
}

#[test]
fn what_a_header_announces_is_not_allocated() {
    let mut reader = FrameReader::new(usize::MAX);
    let header = [&[0x82, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0][..], &KEY, b"abc"].concat();
    assert_eq!(reader.read(&mut &header[..]), Ok(None));
    assert!(reader.capacity() < 64, "{}", reader.capacity());
    for _ in 0..100 {
        assert_eq!(reader.read(&mut &[0; 100][..]), Ok(None));
    }
    assert!(reader.capacity() <= 2 * 10_003, "{}", reader.capacity());
}

#[test]
fn a_reader_between_frames_has_no_buffer() {
    let mut reader = FrameReader::new(LIMIT);
    let bytes = [client_frame(Opcode::Text, &[b'a'; 500]), client_frame(Opcode::Ping, &[0; 100]), vec![0x81]].concat();
    let mut input = &bytes[..];
    while reader.read(&mut input).unwrap().is_some() {}
    assert_eq!(reader.capacity(), 0);
    assert!(size_of::<FrameReader>() <= 120, "{}", size_of::<FrameReader>());
}

#[test]
fn frames_have_the_shortest_header() {
    for (length, header) in [
        (0, &b"\x82\x00"[..]),
        (125, b"\x82\x7D"),
        (126, b"\x82\x7E\x00\x7E"),
        (65_535, b"\x82\x7E\xFF\xFF"),
        (65_536, b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00"),
    ] {
        let frame = frame(Opcode::Binary, &vec![7; length]);
        assert_eq!(&frame[..header.len()], header);
        assert_eq!(frame.len(), header_length(length) + length);
        assert_eq!(split(&frame), (Opcode::Binary, Bytes::from(vec![7; length])));
    }
}

#[test]
fn a_frame_is_built_from_parts() {
    assert_eq!(frame_of(Opcode::Text, b"4", &[b"", b"2[]"]), frame(Opcode::Text, b"42[]"));
    assert_eq!(frame_of(Opcode::Ping, b"", &[]), frame(Opcode::Ping, b""));
}

#[test]
fn a_close_reason_is_cut_between_characters() {
    let long = "€".repeat(50);
    let (opcode, payload) = split(&close_frame(4000, &long));
    assert_eq!((opcode, &payload[..2]), (Opcode::Close, &4000_u16.to_be_bytes()[..]));
    assert_eq!(std::str::from_utf8(&payload[2..]), Ok(&long[..123]));
    let uneven = close_frame(1000, &format!("a{long}"));
    assert_eq!(uneven.len(), 2 + 2 + 121);
}

fn messages() -> impl Strategy<Value = Vec<Event>> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..=max).prop_map(Bytes::from);
    let event = prop_oneof![
        "\\PC{0,40}".prop_map(Event::Text),
        bytes(LIMIT).prop_map(Event::Binary),
        bytes(125).prop_map(Event::Ping),
        bytes(125).prop_map(Event::Pong),
        "\\PC{0,30}".prop_map(|reason| Event::Close(Some(CloseFrame { code: 1000, reason }))),
    ];
    prop::collection::vec(event, 0..8)
}

/// The frames of an event; a message has a fragment for each part of `cut` bytes, and a ping after each.
fn encode(event: &Event, cut: usize, bytes: &mut Vec<u8>, expected: &mut Vec<Event>) {
    let (opcode, payload) = match event {
        Event::Text(text) => (Opcode::Text, text.as_bytes().to_vec()),
        Event::Binary(payload) => (Opcode::Binary, payload.to_vec()),
        Event::Ping(payload) => (Opcode::Ping, payload.to_vec()),
        Event::Pong(payload) => (Opcode::Pong, payload.to_vec()),
        Event::Close(close) => {
            let close = close.as_ref().unwrap();
            (Opcode::Close, split(&close_frame(close.code, &close.reason)).1.to_vec())
        }
    };
    if opcode.is_control() {
        bytes.extend(client_frame(opcode, &payload));
    } else {
        let mut opcode = opcode;
        for part in payload.chunks(cut) {
            bytes.extend(fragment(opcode, part));
            bytes.extend(client_frame(Opcode::Ping, b"between"));
            expected.push(Event::Ping(Bytes::from_static(b"between")));
            opcode = Opcode::Continuation;
        }
        bytes.extend(client_frame(opcode, b""));
    }
    expected.push(event.clone());
}

proptest! {
    #[test]
    fn messages_cut_anyhow_are_read_as_they_were(events in messages(), cut in 1..200_usize, portion in 1..300_usize) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for event in &events {
            encode(event, cut, &mut bytes, &mut expected);
        }
        prop_assert_eq!(read_in_portions(&bytes, portion), Ok(expected));
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), portion in 1..50_usize) {
        let whole = read_in_portions(&bytes, usize::MAX);
        prop_assert_eq!(read_in_portions(&bytes, portion), whole);
    }

    #[test]
    fn unmasking_in_portions_is_unmasking_at_once(
        mut payload in prop::collection::vec(any::<u8>(), 0..100), key: [u8; 4], cut in 0..100_usize,
    ) {
        let expected: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let cut = cut.min(payload.len());
        let (start, end) = payload.split_at_mut(cut);
        unmask(start, key, 0);
        unmask(end, key, cut as u64);
        prop_assert_eq!(payload, expected);
    }
}
