//! The payloads of HTTP long-polling: several packets in one body.
//!
//! Engine.IO 4 joins the packets with a separator (`v4`; Engine.IO protocol 4, "Packet encoding", "HTTP long-polling").
//! Engine.IO 3 puts a length before each (`v3`; Engine.IO protocol 3, "Encoding", "Payload"). Both agree with Node's
//! `engine.io-parser` (5 and 2) on what valid input means. Where Node repairs invalid input (bad Base64, bad UTF-8,
//! a length beyond the end), these decoders return an error.
//!
//! A packet to encode is the payload of the WebSocket message that would carry it: text is an Engine.IO packet
//! (`42["e"]`); binary is the bytes alone in version 4, and `0x04` and the bytes in version 3.

mod v3;
mod v4;

#[cfg(test)]
mod tests;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str};

const TEXT: &str = "text/plain; charset=UTF-8";
const OCTETS: &str = "application/octet-stream";

/// Begins a binary packet in a text payload, or one that is sent as a text message.
const BASE64_PREFIX: u8 = b'b';

/// Writes padding, as Node does, and reads Base64 with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A queued packet: the payload of the WebSocket message that would carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whether it is a binary message.
    pub is_binary: bool,
    /// The message without the frame's header. Text is UTF-8.
    pub payload: Bytes,
}

/// A packet from the client.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound {
    /// `0`: only a server sends it.
    Open,
    /// `1`: ends the session.
    Close,
    /// `2` and its data: in version 3 the heartbeat, in both versions `probe` on a new WebSocket.
    Ping(Str),
    /// `3` and its data: in version 4 the answer to a heartbeat.
    Pong(Str),
    /// `4` and a text.
    Message(Str),
    /// A binary message.
    Binary(Bytes),
    /// `5`: completes an upgrade.
    Upgrade,
    /// `6`: only a server sends it.
    Noop,
}

/// Why a body or a message is not valid Engine.IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The body is empty.
    #[error("the payload is empty")]
    EmptyPayload,
    /// A packet is empty.
    #[error("a packet is empty")]
    EmptyPacket,
    /// A packet begins with a byte that is no packet type.
    #[error("0x{0:02x} is no packet type")]
    UnknownType(u8),
    /// Text, or the data of a packet that carries text, is not UTF-8.
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// A binary packet in text is not Base64.
    #[error("the binary packet is not valid Base64")]
    InvalidBase64,
    /// Version 3: a packet's length is missing, is no decimal number, or ends inside a character.
    #[error("a packet's length is invalid")]
    InvalidLength,
    /// Version 3: the payload ends before the packet does.
    #[error("the payload ends inside a packet")]
    Truncated,
    /// Version 4: the body is declared to be binary.
    #[error("Engine.IO 4 has no binary payloads")]
    BinaryPayload,
    /// The payload has more packets than the limit.
    #[error("the payload has more than {max} packets")]
    TooManyPackets {
        /// The limit.
        max: usize,
    },
}

/// Encodes the answer to a poll: its content type and its body.
///
/// `supports_binary` is false if the client asked for Base64 (`b64=1`). Only version 3 heeds it: its payload is binary if
/// the client supports that and one of the packets is binary.
pub fn encode(protocol: ProtocolVersion, supports_binary: bool, packets: &[Packet]) -> (&'static str, Bytes) {
    match protocol {
        ProtocolVersion::V4 => (TEXT, v4::encode(packets)),
        ProtocolVersion::V3 if supports_binary && packets.iter().any(|packet| packet.is_binary) => {
            (OCTETS, v3::encode_binary(packets))
        }
        ProtocolVersion::V3 => (TEXT, v3::encode_text(packets)),
    }
}

/// Returns how many bytes a packet adds to an answer at most, whichever other packets are in it.
pub fn encoded_len(protocol: ProtocolVersion, supports_binary: bool, packet: &Packet) -> usize {
    match protocol {
        ProtocolVersion::V4 => v4::encoded_len(packet),
        ProtocolVersion::V3 => v3::encoded_len(supports_binary, packet),
    }
}

/// Decodes the body of a POST request of at most `max_packets` packets.
///
/// `is_binary` says that the request's content type is `application/octet-stream`. The text of messages shares the
/// body's memory.
///
/// # Errors
///
/// One invalid packet makes the whole body invalid.
pub fn decode(
    protocol: ProtocolVersion,
    is_binary: bool,
    body: Bytes,
    max_packets: usize,
) -> Result<Vec<Inbound>, PayloadError> {
    if is_binary && protocol == ProtocolVersion::V4 {
        return Err(PayloadError::BinaryPayload);
    }
    if body.is_empty() {
        return Err(PayloadError::EmptyPayload);
    }
    let packets = Packets { found: Vec::new(), max: max_packets };
    match protocol {
        ProtocolVersion::V3 if is_binary => v3::decode_binary(&body, packets),
        ProtocolVersion::V3 => v3::decode_text(&text(body)?, packets),
        ProtocolVersion::V4 => v4::decode(&text(body)?, packets),
    }
}

/// Decodes a WebSocket text message.
pub fn packet(protocol: ProtocolVersion, text: &str) -> Result<Inbound, PayloadError> {
    shared_packet(protocol, &Str::copy_from_slice(text))
}

/// Decodes a WebSocket text message; a message's text shares its memory.
pub fn shared_packet(protocol: ProtocolVersion, text: &Str) -> Result<Inbound, PayloadError> {
    match text.as_bytes().first() {
        None => Err(PayloadError::EmptyPacket),
        Some(&BASE64_PREFIX) => match protocol {
            ProtocolVersion::V4 => v4::base64_packet(&text.as_bytes()[1..]),
            ProtocolVersion::V3 => v3::base64_packet(&text.as_bytes()[1..]),
        },
        Some(&kind) => Inbound::of_type(kind.wrapping_sub(b'0'), || Ok(text.slice(1..)))
            .unwrap_or(Err(PayloadError::UnknownType(kind))),
    }
}

/// Decodes a WebSocket binary message, or a binary packet of a payload.
pub fn binary_packet(protocol: ProtocolVersion, data: Bytes) -> Result<Inbound, PayloadError> {
    match protocol {
        ProtocolVersion::V4 => Ok(Inbound::Binary(data)),
        ProtocolVersion::V3 => v3::binary_packet(&data),
    }
}

impl Inbound {
    /// The packet of a type's number, unless there is no such type. `data` is called where the packet has any: Node
    /// reads over the data of the others, too.
    fn of_type(kind: u8, data: impl FnOnce() -> Result<Str, PayloadError>) -> Option<Result<Self, PayloadError>> {
        Some(match kind {
            0 => Ok(Self::Open),
            1 => Ok(Self::Close),
            2 => data().map(Self::Ping),
            3 => data().map(Self::Pong),
            4 => data().map(Self::Message),
            5 => Ok(Self::Upgrade),
            6 => Ok(Self::Noop),
            _ => return None,
        })
    }
}

/// The packets of a payload that were decoded so far.
struct Packets {
    found: Vec<Inbound>,
    max: usize,
}

impl Packets {
    fn push(&mut self, packet: Inbound) -> Result<(), PayloadError> {
        if self.found.len() == self.max {
            return Err(PayloadError::TooManyPackets { max: self.max });
        }
        self.found.push(packet);
        Ok(())
    }
}

/// The bytes as text, without a copy unless they are shared.
fn text(bytes: Bytes) -> Result<Str, PayloadError> {
    String::from_utf8(bytes.into()).map(Str::from).map_err(|_| PayloadError::InvalidUtf8)
}
