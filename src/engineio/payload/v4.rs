//! The payload of Engine.IO 4: text packets joined by the record separator; binary ones are `b` and Base64.

use base64::Engine;
use bytes::Bytes;
use engineioxide_core::Str;

use super::packet::{BASE64, BASE64_PREFIX, Inbound, Packet, Packets, PayloadError, text_packet};

const SEPARATOR: u8 = 0x1e;

pub(super) fn encode(packets: &[Packet]) -> Bytes {
    let mut body = Vec::with_capacity(packets.iter().map(encoded_len).sum());
    for (index, packet) in packets.iter().enumerate() {
        if index > 0 {
            body.push(SEPARATOR);
        }
        if packet.is_binary {
            body.push(BASE64_PREFIX);
            body.extend_from_slice(BASE64.encode(&packet.payload).as_bytes());
        } else {
            body.extend_from_slice(&packet.payload);
        }
    }
    body.into()
}

pub(super) fn encoded_len(packet: &Packet) -> usize {
    let len = packet.payload.len();
    // A separator, and the prefix of a binary packet.
    if packet.is_binary { 2 + len.div_ceil(3) * 4 } else { 1 + len }
}

pub(super) fn decode(body: &Str, mut packets: Packets) -> Result<Vec<Inbound>, PayloadError> {
    let mut start = 0;
    for packet in body.split(char::from(SEPARATOR)) {
        let end = start + packet.len();
        packets.push(text_packet(&body.slice(start..end), base64_packet)?)?;
        start = end + 1;
    }
    Ok(packets.found)
}

/// A binary message in Base64: what follows the `b`.
pub(super) fn base64_packet(data: &[u8]) -> Result<Inbound, PayloadError> {
    let data = BASE64.decode(data).map_err(|_| PayloadError::InvalidBase64)?;
    Ok(Inbound::Binary(data.into()))
}
