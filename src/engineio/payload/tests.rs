use bytes::Bytes;
use engineioxide_core::ProtocolVersion::{self, V3, V4};
use proptest::prelude::*;

use super::*;

const NO_LIMIT: usize = usize::MAX;

fn text(packet: &str) -> Packet {
    Packet { is_binary: false, payload: Bytes::copy_from_slice(packet.as_bytes()) }
}

fn binary(payload: &[u8]) -> Packet {
    Packet { is_binary: true, payload: Bytes::copy_from_slice(payload) }
}

fn decode_of(protocol: ProtocolVersion, body: impl AsRef<[u8]>) -> Result<Vec<Inbound>, PayloadError> {
    decode(protocol, false, Bytes::copy_from_slice(body.as_ref()), NO_LIMIT)
}

fn decode_octets(body: impl AsRef<[u8]>) -> Result<Vec<Inbound>, PayloadError> {
    decode(V3, true, Bytes::copy_from_slice(body.as_ref()), NO_LIMIT)
}

fn message(text: &'static str) -> Inbound {
    Inbound::Message(text.into())
}

/// What Node's engine.io-parser (5.x for version 4, 2.x for version 3) makes of the same packets.
mod as_node_writes_them {
    use super::*;

    fn plain() -> [Packet; 3] {
        [text("42[\"h\u{e9} \u{1f600}\",1]"), text("3probe"), text("6")]
    }

    /// An event with an attachment, then one without.
    fn with_attachment(attachment: &[u8]) -> [Packet; 3] {
        [text("451-[\"f\",{\"_placeholder\":true,\"num\":0}]"), binary(attachment), text("42[\"\u{20ac}\"]")]
    }

    #[test]
    fn version_4_joins_packets_by_a_separator() {
        let body = "42[\"h\u{e9} \u{1f600}\",1]\x1e3probe\x1e6";
        assert_eq!(encode(V4, true, &plain()), ("text/plain; charset=UTF-8", body.into()));
    }

    #[test]
    fn version_4_writes_binary_as_base64_whatever_the_client_supports() {
        let body = "451-[\"f\",{\"_placeholder\":true,\"num\":0}]\x1ebAQIDBP8=\x1e42[\"\u{20ac}\"]";
        for supports_binary in [false, true] {
            let encoded = encode(V4, supports_binary, &with_attachment(&[1, 2, 3, 4, 255]));
            assert_eq!(encoded, ("text/plain; charset=UTF-8", body.into()));
        }
    }

    #[test]
    fn version_3_counts_the_code_units_of_text() {
        let body = "13:42[\"h\u{e9} \u{1f600}\",1]6:3probe1:6";
        for supports_binary in [false, true] {
            assert_eq!(encode(V3, supports_binary, &plain()), ("text/plain; charset=UTF-8", body.into()));
        }
        assert_eq!(encode(V3, false, &[]).1, "0:");
    }

    #[test]
    fn version_3_writes_binary_as_base64_for_a_client_without_binary() {
        let body = "39:451-[\"f\",{\"_placeholder\":true,\"num\":0}]10:b4AQIDBP8=7:42[\"\u{20ac}\"]";
        let encoded = encode(V3, false, &with_attachment(&[4, 1, 2, 3, 4, 255]));
        assert_eq!(encoded, ("text/plain; charset=UTF-8", body.into()));
    }

    #[test]
    fn version_3_has_a_binary_payload_of_text_and_binary_packets() {
        let body = b"\x00\x03\x09\xff451-[\"f\",{\"_placeholder\":true,\"num\":0}]\
            \x01\x06\xff\x04\x01\x02\x03\x04\xff\
            \x00\x09\xff42[\"\xe2\x82\xac\"]";
        let encoded = encode(V3, true, &with_attachment(&[4, 1, 2, 3, 4, 255]));
        assert_eq!(encoded, ("application/octet-stream", Bytes::from_static(body)));
    }

    #[test]
    fn version_3_writes_lengths_in_bytes_of_decimal_digits() {
        let mut body = b"\x00\x01\x02\x01\xff4".to_vec();
        body.extend([b'x'; 120]);
        body.extend(b"\x01\x03\x00\x01\xff\x04");
        body.extend([7; 300]);
        let packets = [text(&format!("4{}", "x".repeat(120))), binary(&[&[4][..], &[7; 300]].concat())];
        assert_eq!(encode(V3, true, &packets).1, body);
        let decoded = decode_octets(&body).unwrap();
        assert_eq!(decoded, [Inbound::Message("x".repeat(120).into()), Inbound::Binary(vec![7; 300].into())]);
    }
}

#[test]
fn each_type_of_packet_is_read() {
    for protocol in [V3, V4] {
        assert_eq!(packet(protocol, "0{}"), Ok(Inbound::Open));
        assert_eq!(packet(protocol, "1"), Ok(Inbound::Close));
        assert_eq!(packet(protocol, "2"), Ok(Inbound::Ping("".into())));
        assert_eq!(packet(protocol, "2probe"), Ok(Inbound::Ping("probe".into())));
        assert_eq!(packet(protocol, "3"), Ok(Inbound::Pong("".into())));
        assert_eq!(packet(protocol, "4"), Ok(message("")));
        assert_eq!(packet(protocol, "42[\"\u{e9}\"]"), Ok(message("2[\"\u{e9}\"]")));
        assert_eq!(packet(protocol, "5"), Ok(Inbound::Upgrade));
        assert_eq!(packet(protocol, "6"), Ok(Inbound::Noop));
    }
}

#[test]
fn what_is_no_packet_is_refused() {
    for protocol in [V3, V4] {
        assert_eq!(packet(protocol, ""), Err(PayloadError::EmptyPacket));
        assert_eq!(packet(protocol, "7"), Err(PayloadError::UnknownType(b'7')));
        assert_eq!(packet(protocol, "/"), Err(PayloadError::UnknownType(b'/')));
        assert_eq!(packet(protocol, "\u{e9}"), Err(PayloadError::UnknownType(0xc3)));
        assert_eq!(packet(protocol, "{}"), Err(PayloadError::UnknownType(b'{')));
        assert_eq!(decode_of(protocol, ""), Err(PayloadError::EmptyPayload));
        assert_eq!(decode_of(protocol, b"4\xff"), Err(PayloadError::InvalidUtf8));
    }
}

#[test]
fn a_binary_message_is_its_bytes_in_version_4_and_begins_with_its_type_in_version_3() {
    let bytes = Bytes::from_static(&[4, 1, 2]);
    assert_eq!(binary_packet(V4, bytes.clone()), Ok(Inbound::Binary(bytes.clone())));
    assert_eq!(binary_packet(V4, Bytes::new()), Ok(Inbound::Binary(Bytes::new())));
    assert_eq!(binary_packet(V3, bytes), Ok(Inbound::Binary(Bytes::from_static(&[1, 2]))));
    assert_eq!(binary_packet(V3, Bytes::from_static(&[4])), Ok(Inbound::Binary(Bytes::new())));
    assert_eq!(binary_packet(V3, Bytes::new()), Err(PayloadError::EmptyPacket));
    assert_eq!(binary_packet(V3, Bytes::from_static(&[7])), Err(PayloadError::UnknownType(7)));
    assert_eq!(binary_packet(V3, Bytes::from_static(b"4text")), Err(PayloadError::UnknownType(b'4')));
    assert_eq!(binary_packet(V3, Bytes::from_static(b"\x02probe")), Ok(Inbound::Ping("probe".into())));
    assert_eq!(binary_packet(V3, Bytes::from_static(b"\x02\xff")), Err(PayloadError::InvalidUtf8));
    assert_eq!(binary_packet(V3, Bytes::from_static(b"\x01\xff")), Ok(Inbound::Close));
}

#[test]
fn base64_is_read_with_and_without_padding_and_refused_if_invalid() {
    let three_and_two = [Inbound::Binary(vec![1, 2, 3].into()), Inbound::Binary(vec![1, 2].into())];
    assert_eq!(decode_of(V4, "bAQID\x1ebAQI\x1ebAQI=").unwrap()[..2], three_and_two);
    assert_eq!(decode_of(V3, "6:b4AQID5:b4AQI6:b4AQI=").unwrap()[..2], three_and_two);
    assert_eq!(packet(V4, "b"), Ok(Inbound::Binary(Bytes::new())));
    assert_eq!(packet(V3, "b4"), Ok(Inbound::Binary(Bytes::new())));
    assert_eq!(packet(V3, "b2cHJvYmU="), Ok(Inbound::Ping("probe".into())));
    assert_eq!(packet(V3, "b"), Err(PayloadError::EmptyPacket));
    assert_eq!(packet(V3, "b7AQID"), Err(PayloadError::UnknownType(b'7')));
    for invalid in ["!!", "A", "AQ=D", "AQID\u{e9}", "AQID\n"] {
        assert_eq!(packet(V4, &format!("b{invalid}")), Err(PayloadError::InvalidBase64));
        assert_eq!(packet(V3, &format!("b4{invalid}")), Err(PayloadError::InvalidBase64));
    }
}

#[test]
fn a_payload_of_version_4_has_no_empty_packets() {
    for body in ["\x1e", "4a\x1e", "\x1e4a", "4a\x1e\x1e4b"] {
        assert_eq!(decode_of(V4, body), Err(PayloadError::EmptyPacket), "{body:?}");
    }
    assert_eq!(decode_of(V4, "4a\x1e8"), Err(PayloadError::UnknownType(b'8')));
    assert_eq!(decode(V4, true, Bytes::from_static(b"4a"), NO_LIMIT), Err(PayloadError::BinaryPayload));
}

#[test]
fn lengths_of_version_3_must_be_decimal_and_end_with_a_packet() {
    use PayloadError::{InvalidLength, Truncated, UnknownType};
    let invalid = [
        ("1", Truncated),
        ("1:", Truncated),
        ("3:4a", Truncated),
        (":4", InvalidLength),
        (" 1:4", InvalidLength),
        ("-1:4", InvalidLength),
        ("1x:4", InvalidLength),
        ("4a", InvalidLength),
        ("1:4x", InvalidLength),
        ("1:4\u{1f600}", InvalidLength),
        ("1:7", UnknownType(b'7')),
        ("9999999999999999999:4", InvalidLength),
        ("999999999999999:4", Truncated),
    ];
    for (body, error) in invalid {
        assert_eq!(decode_of(V3, body), Err(error), "{body:?}");
    }
    assert_eq!(decode_of(V3, "1:42:4a"), Ok(vec![message(""), message("a")]));
    assert_eq!(decode_of(V3, "0:"), Ok(vec![]));
    assert_eq!(decode_of(V3, "01:4"), Ok(vec![message("")]));
}

#[test]
fn a_length_of_version_3_may_not_end_inside_a_character() {
    assert_eq!(decode_of(V3, "3:4\u{1f600}1:2"), Ok(vec![message("\u{1f600}"), Inbound::Ping("".into())]));
    assert_eq!(decode_of(V3, "2:4\u{1f600}1:2"), Err(PayloadError::InvalidLength));
    assert_eq!(decode_of(V3, "2:4\u{1f600}"), Err(PayloadError::InvalidLength));
    assert_eq!(decode_of(V3, "2:4\u{e9}1:2"), Ok(vec![message("\u{e9}"), Inbound::Ping("".into())]));
    assert_eq!(decode_of(V3, "4:4\u{20ac}\u{e9}x"), Ok(vec![message("\u{20ac}\u{e9}x")]));
}

#[test]
fn a_binary_payload_of_version_3_is_read_strictly() {
    use PayloadError::{EmptyPacket, EmptyPayload, InvalidLength, InvalidUtf8, Truncated, UnknownType};
    let invalid: [(&[u8], _); 12] = [
        (b"", EmptyPayload),
        (b"\x02\x01\xff4", UnknownType(2)),
        (b"1:4", UnknownType(b'1')),
        (b"\x00", Truncated),
        (b"\x00\x01", Truncated),
        (b"\x00\xff4", InvalidLength),
        (b"\x00\x0a\xff4", InvalidLength),
        (b"\x00\x02\xff4", Truncated),
        (b"\x00\x00\xff", EmptyPacket),
        (b"\x01\x00\xff", EmptyPacket),
        (b"\x00\x02\xff4\xff", InvalidUtf8),
        (b"\x00\x01\xff4\x07", UnknownType(7)),
    ];
    for (body, error) in invalid {
        assert_eq!(decode_octets(body), Err(error), "{body:?}");
    }
    assert_eq!(decode_octets(b"\x00\x01\x00\xff42[\"e\",12]"), Ok(vec![message("2[\"e\",12]")]));
    assert_eq!(decode_octets(b"\x00\x06\xffb4AQID"), Ok(vec![Inbound::Binary(vec![1, 2, 3].into())]));
    assert_eq!(decode_octets(b"\x01\x02\xff\x04\xff"), Ok(vec![Inbound::Binary(vec![255].into())]));
}

#[test]
fn more_packets_than_the_limit_are_refused() {
    let bodies: [(_, _, &[u8]); 3] =
        [(V4, false, b"2\x1e2\x1e2"), (V3, false, b"1:21:21:2"), (V3, true, &[0, 1, 255, b'2'].repeat(3))];
    for (protocol, is_binary, body) in bodies {
        let decode = |max| decode(protocol, is_binary, Bytes::copy_from_slice(body), max);
        assert_eq!(decode(3).map(|packets| packets.len()), Ok(3));
        assert_eq!(decode(2), Err(PayloadError::TooManyPackets { max: 2 }));
    }
}

fn any_packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        "4[^\\x1e]{0,12}".prop_map(|packet| text(&packet)),
        "[23](probe)?|1|5|6".prop_map(|packet| text(&packet)),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|payload| binary(&payload)),
    ]
}

fn inbound(protocol: ProtocolVersion, packet: &Packet) -> Inbound {
    if packet.is_binary {
        Inbound::Binary(packet.payload.clone())
    } else {
        super::packet(protocol, std::str::from_utf8(&packet.payload).unwrap()).unwrap()
    }
}

/// As it is queued: version 3 puts the type before the bytes.
fn queued(protocol: ProtocolVersion, packet: &Packet) -> Packet {
    match protocol {
        V3 if packet.is_binary => binary(&[&[4], &*packet.payload].concat()),
        V3 | V4 => packet.clone(),
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_back(
        packets in prop::collection::vec(any_packet(), 1..20),
        supports_binary: bool,
        is_v4: bool,
    ) {
        let protocol = if is_v4 { V4 } else { V3 };
        let queue: Vec<_> = packets.iter().map(|packet| queued(protocol, packet)).collect();
        let (content_type, body) = encode(protocol, supports_binary, &queue);
        let bound: usize = queue.iter().map(|packet| encoded_len(protocol, supports_binary, packet)).sum();
        prop_assert!(body.len() <= bound, "{} > {bound}", body.len());
        let decoded = decode(protocol, content_type == OCTETS, body, packets.len());
        let expected = packets.iter().map(|packet| inbound(protocol, packet)).collect();
        prop_assert_eq!(decoded, Ok(expected));
    }

    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..400), is_binary: bool, is_v4: bool) {
        let protocol = if is_v4 { V4 } else { V3 };
        let _ = binary_packet(protocol, Bytes::copy_from_slice(&body));
        let _ = decode(protocol, is_binary, body.into(), 100);
    }

    #[test]
    fn nearly_valid_payloads_never_panic(text in "([0-9]{1,2}:|\\x1e|b|b4|[0-9a-z\u{e9}\u{20ac}\u{1f600}=]){0,30}", is_v4: bool) {
        let _ = decode_of(if is_v4 { V4 } else { V3 }, text);
    }

    #[test]
    fn nearly_valid_binary_payloads_never_panic(bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255), 2..10_u8, Just(b'4')], 0..60)) {
        let _ = decode_octets(bytes);
    }
}
