//! Engine.IO packets: <https://socket.io/docs/v4/engine-io-protocol/>, and what was different in revision 3.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::Deserialize;

/// The revision of Engine.IO: what a client's version decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As clients 2.x speak it (`EIO=3`, Socket.IO protocol v4).
    V3,
    /// As clients 3.x and 4.x speak it (`EIO=4`, Socket.IO protocol v5).
    V4,
}

impl Protocol {
    pub fn revision(self) -> u8 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

/// What the server says of a new session.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handshake {
    pub sid: String,
    /// In milliseconds.
    ping_interval: u64,
}

impl Handshake {
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval)
    }
}

#[derive(Clone, Debug)]
pub enum Packet {
    Open(Handshake),
    Close,
    Ping(String),
    Pong(String),
    Message(String),
    Binary(Bytes),
    Upgrade,
    Noop,
}

const SEPARATOR: char = '\u{1e}';

/// What precedes the bytes of a binary message in revision 3.
const V3_BINARY_MESSAGE: u8 = 4;

impl Packet {
    /// Reads a packet that came as text.
    pub fn from_text(protocol: Protocol, text: &str) -> Self {
        let mut characters = text.chars();
        let kind = characters.next();
        let rest = characters.as_str();
        match kind {
            Some('0') => Self::Open(serde_json::from_str(rest).expect("the open packet is a handshake")),
            Some('1') => Self::Close,
            Some('2') => Self::Ping(rest.into()),
            Some('3') => Self::Pong(rest.into()),
            Some('4') => Self::Message(rest.into()),
            Some('5') => Self::Upgrade,
            Some('6') => Self::Noop,
            Some('b') => Self::Binary(decode_base64(match protocol {
                Protocol::V3 => rest.strip_prefix('4').unwrap_or_else(|| panic!("no binary message: {text}")),
                Protocol::V4 => rest,
            })),
            Some(_) | None => panic!("the server sent no Engine.IO packet: {text:?}"),
        }
    }

    /// Reads a packet that came as a binary WebSocket message.
    pub fn from_binary(protocol: Protocol, mut bytes: Bytes) -> Self {
        if protocol == Protocol::V3 {
            let kind = bytes.split_to(1);
            assert_eq!(kind[0], V3_BINARY_MESSAGE, "the server sent a binary packet of another type");
        }
        Self::Binary(bytes)
    }

    /// The bytes of a binary message on WebSocket.
    pub fn binary_message(protocol: Protocol, bytes: Bytes) -> Bytes {
        match protocol {
            Protocol::V3 => [&[V3_BINARY_MESSAGE], bytes.as_ref()].concat().into(),
            Protocol::V4 => bytes,
        }
    }

    /// The packet as text; bytes in base64.
    pub fn to_text(&self, protocol: Protocol) -> String {
        match self {
            Self::Open(_) => unreachable!("a client opens no session"),
            Self::Close => "1".into(),
            Self::Ping(data) => format!("2{data}"),
            Self::Pong(data) => format!("3{data}"),
            Self::Message(text) => format!("4{text}"),
            Self::Upgrade => "5".into(),
            Self::Noop => "6".into(),
            Self::Binary(bytes) => {
                let prefix = if protocol == Protocol::V3 { "b4" } else { "b" };
                format!("{prefix}{}", BASE64.encode(bytes))
            }
        }
    }
}

fn decode_base64(text: &str) -> Bytes {
    BASE64.decode(text).unwrap_or_else(|error| panic!("the server sent bad base64 ({error}): {text}")).into()
}

/// Packets as the body of a polling request.
pub fn encode_payload(protocol: Protocol, packets: &[Packet]) -> String {
    let texts = packets.iter().map(|packet| packet.to_text(protocol));
    match protocol {
        Protocol::V3 => {
            texts.map(|text| format!("{}:{text}", text.encode_utf16().count())).collect::<Vec<_>>().concat()
        }
        Protocol::V4 => texts.collect::<Vec<_>>().join(&SEPARATOR.to_string()),
    }
}

/// The packets in the body of a polling response.
pub fn decode_payload(protocol: Protocol, payload: &str) -> Vec<Packet> {
    let texts = match protocol {
        Protocol::V3 => split_by_lengths(payload),
        Protocol::V4 => payload.split(SEPARATOR).filter(|text| !text.is_empty()).collect(),
    };
    texts.into_iter().map(|text| Packet::from_text(protocol, text)).collect()
}

/// Splits `5:4abcd1:2`. Lengths count UTF-16 code units, as JavaScript does.
fn split_by_lengths(mut payload: &str) -> Vec<&str> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = payload.split_once(':') {
        let mut left: usize = length.parse().unwrap_or_else(|_| panic!("the server sent a bad payload: {payload:?}"));
        let end = rest.char_indices().find(|(_, character)| {
            let is_end = left == 0;
            left = left.saturating_sub(character.len_utf16());
            is_end
        });
        let (text, rest) = rest.split_at(end.map_or(rest.len(), |(position, _)| position));
        texts.push(text);
        payload = rest;
    }
    assert!(payload.is_empty(), "the server sent a payload with a tail: {payload:?}");
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(protocol: Protocol, payload: &str) -> Vec<String> {
        decode_payload(protocol, payload).iter().map(|packet| packet.to_text(protocol)).collect()
    }

    #[test]
    fn payloads_of_revision_3_count_utf16_units() {
        let packets =
            [Packet::Message("é😀:".into()), Packet::Ping(String::new()), Packet::Binary(Bytes::from_static(b"abc"))];
        let payload = encode_payload(Protocol::V3, &packets);
        assert_eq!(payload, "5:4é😀:1:26:b4YWJj");
        assert_eq!(texts(Protocol::V3, &payload), ["4é😀:", "2", "b4YWJj"]);
    }

    #[test]
    fn payloads_of_revision_4_are_separated() {
        let packets = [Packet::Message("a".into()), Packet::Binary(Bytes::from_static(b"abc"))];
        let payload = encode_payload(Protocol::V4, &packets);
        assert_eq!(payload, "4a\u{1e}bYWJj");
        assert_eq!(texts(Protocol::V4, &payload), ["4a", "bYWJj"]);
        assert!(texts(Protocol::V4, "").is_empty());
    }
}
