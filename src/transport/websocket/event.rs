use bytes::Bytes;

use super::CloseFrame;

/// What a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A complete text message.
    Text(String),
    /// A complete binary message.
    Binary(Bytes),
    /// A ping. It has to be answered with a pong of the same payload.
    Ping(Bytes),
    /// A pong, asked for or not.
    Pong(Bytes),
    /// The beginning of the closing handshake, or its answer, with what the client says of it. Nothing that follows counts.
    Close(Option<CloseFrame>),
}
