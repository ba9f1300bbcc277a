use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use engineioxide_core::Str;

/// Begins a binary packet in a text payload, or one that is sent as a text message.
pub(super) const BASE64_PREFIX: u8 = b'b';

/// Writes padding, as Node does, and reads Base64 with and without.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
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

impl Inbound {
    /// The packet of a type's number, unless there is no such type. `data` is called where the packet has any: Node
    /// reads over the data of the others, too.
    pub(super) fn of_type(
        kind: u8,
        data: impl FnOnce() -> Result<Str, PayloadError>,
    ) -> Option<Result<Self, PayloadError>> {
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

/// Decodes a packet in text; a message's text shares its memory. `base64` decodes a binary one without its prefix.
pub(super) fn text_packet(
    text: &Str,
    base64: impl FnOnce(&[u8]) -> Result<Inbound, PayloadError>,
) -> Result<Inbound, PayloadError> {
    match text.as_bytes().first() {
        None => Err(PayloadError::EmptyPacket),
        Some(&BASE64_PREFIX) => base64(&text.as_bytes()[1..]),
        Some(&kind) => Inbound::of_type(kind.wrapping_sub(b'0'), || Ok(text.slice(1..)))
            .unwrap_or(Err(PayloadError::UnknownType(kind))),
    }
}

/// The packets of a payload that were decoded so far.
pub(super) struct Packets {
    pub(super) found: Vec<Inbound>,
    pub(super) max: usize,
}

impl Packets {
    pub(super) fn push(&mut self, packet: Inbound) -> Result<(), PayloadError> {
        if self.found.len() == self.max {
            return Err(PayloadError::TooManyPackets { max: self.max });
        }
        self.found.push(packet);
        Ok(())
    }
}

/// The bytes as text, without a copy unless they are shared.
pub(super) fn text(bytes: Bytes) -> Result<Str, PayloadError> {
    String::from_utf8(bytes.into()).map(Str::from).map_err(|_| PayloadError::InvalidUtf8)
}
