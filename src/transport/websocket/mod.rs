//! WebSocket framing of a server (RFC 6455): the opening handshake, reading masked frames, writing unmasked ones.
//!
//! [`FrameReader`] turns bytes into events; the functions [`frame`], [`frame_of`] and [`close_frame`]
//! turn payloads into bytes. No extension is negotiated, so the RSV bits are always 0.

pub mod handshake;

mod opcode;
pub use opcode::Opcode;

mod close;
pub use close::{CloseFrame, close_frame};

mod encode;
pub use encode::{frame, frame_of, header_length, put_header, split};

mod violation;
pub use violation::Violation;

mod header;

mod event;
pub use event::Event;

mod message;

mod reader;
pub use reader::FrameReader;

mod connection;
pub use connection::{Ended, MAX_CONTROL_FRAMES_PER_SECOND, Message, WebSocket};

mod task;
pub use task::{End, Leave, Peer, Step, Task};

#[cfg(test)]
mod tests;
