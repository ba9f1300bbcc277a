//! Packets as the engine queues them: each is a whole WebSocket frame as it goes out on a WebSocket. An answer to a poll is made of the
//! frames' payloads.

use bytes::Bytes;
use engineioxide_core::ProtocolVersion;
use transport::websocket::{Opcode, frame, frame_of, split};

use crate::payload::Packet;

/// The type of a message packet in text.
const MESSAGE: &[u8] = b"4";
/// The type of a message packet in the binary encoding of Engine.IO 3.
const MESSAGE_V3: &[u8] = &[4];

/// A text message: the packet `4` with the parts one after the other.
pub fn text_message(parts: &[&[u8]]) -> Bytes {
    frame_of(Opcode::Text, MESSAGE, parts)
}

/// A binary message. In Engine.IO 3 the type of the packet stands before the bytes.
pub fn binary_message(protocol: ProtocolVersion, data: &[u8]) -> Bytes {
    match protocol {
        ProtocolVersion::V3 => frame_of(Opcode::Binary, MESSAGE_V3, &[data]),
        ProtocolVersion::V4 => frame(Opcode::Binary, data),
    }
}

/// Any packet in text, such as `2` or `3probe`.
pub(crate) fn packet(text: &str) -> Bytes {
    frame(Opcode::Text, text.as_bytes())
}

/// A queued frame as a packet of an answer to a poll.
pub(crate) fn polled(frame: &Bytes) -> Packet {
    let (opcode, payload) = split(frame);
    Packet { is_binary: opcode == Opcode::Binary, payload }
}
