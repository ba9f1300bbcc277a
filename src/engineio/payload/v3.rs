//! The payloads of Engine.IO 3.
//!
//! - Text: `<length>:<packet>` for each packet. The length counts UTF-16 code units, as JavaScript's strings do. Binary
//!   packets are `b`, the type's digit and Base64.
//! - Binary: for each packet `0x00` (text) or `0x01` (binary), the length in bytes as decimal digits of one byte each
//!   (`0x01 0x02` is 12), `0xff`, and the packet. Text is UTF-8; a binary packet begins with the type as a byte.

use base64::Engine;
use bytes::Bytes;
use engineioxide_core::Str;

use super::packet::{BASE64, BASE64_PREFIX, Inbound, Packet, Packets, PayloadError, text, text_packet};

/// The type of a binary message, as the first byte of a binary packet.
const MESSAGE: u8 = 4;
const LENGTH_END: u8 = b':';
const IS_TEXT: u8 = 0;
const IS_BINARY: u8 = 1;
const BINARY_LENGTH_END: u8 = 0xff;
/// Longer lengths are beyond any body, and would not fit into a number.
const MAX_LENGTH_DIGITS: usize = 15;

pub(super) fn encode_text(packets: &[Packet]) -> Bytes {
    if packets.is_empty() {
        // Node writes this for no packets.
        return Bytes::from_static(b"0:");
    }
    let mut body = Vec::with_capacity(packets.iter().map(|packet| encoded_len(false, packet)).sum());
    for packet in packets {
        if packet.is_binary {
            let data = BASE64.encode(packet.payload.get(1..).unwrap_or_default());
            body.extend_from_slice((data.len() + 2).to_string().as_bytes());
            body.extend_from_slice(&[LENGTH_END, BASE64_PREFIX, b'0' + MESSAGE]);
            body.extend_from_slice(data.as_bytes());
        } else {
            body.extend_from_slice(utf16_len(&packet.payload).to_string().as_bytes());
            body.push(LENGTH_END);
            body.extend_from_slice(&packet.payload);
        }
    }
    body.into()
}

pub(super) fn encode_binary(packets: &[Packet]) -> Bytes {
    let mut body = Vec::with_capacity(packets.iter().map(|packet| encoded_len(true, packet)).sum());
    for packet in packets {
        body.push(if packet.is_binary { IS_BINARY } else { IS_TEXT });
        body.extend(packet.payload.len().to_string().bytes().map(|digit| digit - b'0'));
        body.push(BINARY_LENGTH_END);
        body.extend_from_slice(&packet.payload);
    }
    body.into()
}

pub(super) fn encoded_len(supports_binary: bool, packet: &Packet) -> usize {
    let len = packet.payload.len();
    let data_len = if packet.is_binary && !supports_binary { 2 + len.div_ceil(3) * 4 } else { len };
    // The length, and the two bytes around it in a binary payload.
    2 + decimal_digits(data_len) + data_len
}

pub(super) fn decode_text(body: &Str, mut packets: Packets) -> Result<Vec<Inbound>, PayloadError> {
    let mut start = 0;
    while start < body.len() {
        let (length, header) = read_length(&body.as_bytes()[start..], LENGTH_END, b'0')?;
        start += header;
        let end = start + end_of_utf16(&body[start..], length)?;
        // `0:` is no packet but the payload without any.
        if length > 0 {
            packets.push(text_packet(&body.slice(start..end), base64_packet)?)?;
        }
        start = end;
    }
    Ok(packets.found)
}

pub(super) fn decode_binary(body: &Bytes, mut packets: Packets) -> Result<Vec<Inbound>, PayloadError> {
    let mut rest = body.clone();
    while let Some(&kind) = rest.first() {
        if !matches!(kind, IS_TEXT | IS_BINARY) {
            return Err(PayloadError::UnknownType(kind));
        }
        let (length, header) = read_length(&rest[1..], BINARY_LENGTH_END, 0)?;
        let mut data = rest.split_off(1 + header);
        if data.len() < length {
            return Err(PayloadError::Truncated);
        }
        rest = data.split_off(length);
        let packet = if kind == IS_TEXT { text_packet(&text(data)?, base64_packet)? } else { binary_packet(&data)? };
        packets.push(packet)?;
    }
    Ok(packets.found)
}

/// A packet whose type is a byte before its data.
pub(super) fn binary_packet(packet: &Bytes) -> Result<Inbound, PayloadError> {
    let kind = *packet.first().ok_or(PayloadError::EmptyPacket)?;
    packet_of(kind, packet.slice(1..)).unwrap_or(Err(PayloadError::UnknownType(kind)))
}

/// A packet whose type is a digit before its data in Base64: what follows the `b`.
pub(super) fn base64_packet(packet: &[u8]) -> Result<Inbound, PayloadError> {
    let (&digit, data) = packet.split_first().ok_or(PayloadError::EmptyPacket)?;
    let data = BASE64.decode(data).map_err(|_| PayloadError::InvalidBase64)?;
    packet_of(digit.wrapping_sub(b'0'), data.into()).unwrap_or(Err(PayloadError::UnknownType(digit)))
}

/// A packet that came as bytes. A client sends no other than messages in this way, but the specification allows it.
fn packet_of(kind: u8, data: Bytes) -> Option<Result<Inbound, PayloadError>> {
    if kind == MESSAGE { Some(Ok(Inbound::Binary(data))) } else { Inbound::of_type(kind, || text(data)) }
}

/// Reads a decimal number up to `end`, whose digits count from `zero`. Returns it, and how many bytes that took with `end`.
fn read_length(bytes: &[u8], end: u8, zero: u8) -> Result<(usize, usize), PayloadError> {
    let mut length = 0_usize;
    for (index, &byte) in bytes.iter().take(MAX_LENGTH_DIGITS + 1).enumerate() {
        if byte == end && index > 0 {
            return Ok((length, index + 1));
        }
        let digit = byte.wrapping_sub(zero);
        if digit > 9 || index == MAX_LENGTH_DIGITS {
            return Err(PayloadError::InvalidLength);
        }
        length = length.saturating_mul(10).saturating_add(digit.into());
    }
    Err(PayloadError::Truncated)
}

/// How many UTF-16 code units a text in UTF-8 has: one for each character, two where its UTF-8 has four bytes.
fn utf16_len(utf8: &[u8]) -> usize {
    utf8.iter().map(|&byte| code_units(byte)).sum()
}

/// How many bytes of the text its first `length` code units take.
fn end_of_utf16(text: &str, length: usize) -> Result<usize, PayloadError> {
    let mut units = 0;
    for (at, byte) in text.bytes().enumerate() {
        // The end of the character before, whose further bytes count nothing.
        if units >= length && text.is_char_boundary(at) {
            return if units == length { Ok(at) } else { Err(PayloadError::InvalidLength) };
        }
        units += code_units(byte);
    }
    match units {
        units if units < length => Err(PayloadError::Truncated),
        units if units > length => Err(PayloadError::InvalidLength),
        _ => Ok(text.len()),
    }
}

/// How many code units the character has that begins with this byte of UTF-8; 0 for the bytes inside of one.
fn code_units(byte: u8) -> usize {
    match byte {
        0x80..=0xbf => 0,
        0xf0.. => 2,
        _ => 1,
    }
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}
