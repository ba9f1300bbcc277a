use std::sync::Arc;

/// Why Bugle closes a connection: the closed list of codes that devices see in `bugle:disconnect`, and that logs and
/// metrics use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// A backend called `DisconnectUser`. The device should not come back by itself.
    Disconnected,
    /// The token expired. The device may come back with a fresh one.
    Expired,
    /// The device gave a token that is no good in place of the one that it came with. Plain WebSocket alone closes for this,
    /// since it has no other way to say so.
    Token,
    /// The device took too little for too long and its queue is full. It may come back.
    Slow,
    /// The device sent too much. It may come back after a while.
    Rate,
    /// The server is stopping. The device should come back, to another one or later.
    Draining,
    /// The connection did not become ready in time. Never announced.
    Unready,
}

impl CloseCode {
    /// The code as devices, logs and metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Expired => "expired",
            Self::Token => "token",
            Self::Slow => "slow",
            Self::Rate => "rate",
            Self::Draining => "draining",
            Self::Unready => "unready",
        }
    }

    /// Whether the device is told why.
    pub fn is_announced(self) -> bool {
        self != Self::Unready
    }

    /// Whether the device should come back by itself.
    pub fn retry(self) -> bool {
        !matches!(self, Self::Disconnected | Self::Token)
    }
}

/// A code and what to tell the device about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// Which of the closed list.
    pub code: CloseCode,
    /// A text for people; no secret, no payload.
    pub text: Arc<str>,
}

impl CloseReason {
    /// A reason with its own text.
    pub fn new(code: CloseCode, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}

impl From<CloseCode> for CloseReason {
    fn from(code: CloseCode) -> Self {
        let text = match code {
            CloseCode::Disconnected => "disconnected by the backend",
            CloseCode::Expired => "the token expired",
            CloseCode::Token => "the new token is no good",
            CloseCode::Slow => "the device did not keep up",
            CloseCode::Rate => "the device sent too much",
            CloseCode::Draining => "the server is stopping",
            CloseCode::Unready => "the connection did not become ready in time",
        };
        Self::new(code, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_of_every_reason_but_that_it_was_not_ready() {
        for code in [
            CloseCode::Disconnected,
            CloseCode::Expired,
            CloseCode::Token,
            CloseCode::Slow,
            CloseCode::Rate,
            CloseCode::Draining,
        ] {
            assert!(code.is_announced(), "{code:?}");
        }
        assert!(!CloseCode::Unready.is_announced());
    }
}
