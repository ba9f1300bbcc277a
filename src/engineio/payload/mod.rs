//! The payloads of HTTP long-polling: several packets in one body.
//!
//! Engine.IO 4 joins the packets with a separator (`v4`; Engine.IO protocol 4, "Packet encoding", "HTTP long-polling").
//! Engine.IO 3 puts a length before each (`v3`; Engine.IO protocol 3, "Encoding", "Payload"). Both agree with Node's
//! `engine.io-parser` (5 and 2) on what valid input means. Where Node repairs invalid input (bad Base64, bad UTF-8,
//! a length beyond the end), these decoders return an error.
//!
//! A packet to encode is the payload of the WebSocket message that would carry it: text is an Engine.IO packet
//! (`42["e"]`); binary is the bytes alone in version 4, and `0x04` and the bytes in version 3.

mod packet;
pub use packet::{Inbound, Packet, PayloadError};

mod v3;
mod v4;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str};

use self::packet::{Packets, text, text_packet};

const TEXT: &str = "text/plain; charset=UTF-8";
const OCTETS: &str = "application/octet-stream";

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
    match protocol {
        ProtocolVersion::V4 => text_packet(text, v4::base64_packet),
        ProtocolVersion::V3 => text_packet(text, v3::base64_packet),
    }
}

/// Decodes a WebSocket binary message, or a binary packet of a payload.
pub fn binary_packet(protocol: ProtocolVersion, data: Bytes) -> Result<Inbound, PayloadError> {
    match protocol {
        ProtocolVersion::V4 => Ok(Inbound::Binary(data)),
        ProtocolVersion::V3 => v3::binary_packet(&data),
    }
}
