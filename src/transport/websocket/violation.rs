/// How a peer broke the protocol. The connection has to be closed with [`Violation::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A rule of RFC 6455 was broken: the text says which.
    #[error("the WebSocket protocol was violated: {0}")]
    Protocol(&'static str),
    /// A text message or the reason of a close frame is not UTF-8.
    #[error("a WebSocket text is not UTF-8")]
    NotUtf8,
    /// A message is larger than the reader's limit.
    #[error("a WebSocket message is larger than the limit")]
    TooLarge,
}

impl Violation {
    /// Returns the status code to close the connection with: 1002, 1007 or 1009 (RFC 6455, section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }
}
