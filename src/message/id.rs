use std::{fmt, str::FromStr};

use jiff::Timestamp;
use uuid::{NoContext, Uuid};

use super::Invalid;

/// Names one live connection, for backends, devices and logs. It is Bugle's own and no secret: the id of the Engine.IO session,
/// which is one, is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    /// An id that no other connection has.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as bytes, as nodes tell it each other.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Reads what [`ConnectionId::as_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ConnectionId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.parse().map(Self).map_err(|_| {
            Invalid::new("is not a connection id: those are UUIDs, as in the welcome event and in Presence")
        })
    }
}

/// Names one emit: a UUID of version 7 (RFC 9562), so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(Uuid);

impl MessageId {
    /// A new id for an emit that was accepted at this time.
    pub fn at(time: Timestamp) -> Self {
        let seconds = u64::try_from(time.as_second()).unwrap_or(0);
        let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos)))
    }

    /// The id as bytes, as nodes tell it each other.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Reads what [`MessageId::as_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl FromStr for MessageId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let problem = || Invalid::new("is not a message id: those are UUIDs, as in receipts");
        text.parse().map(Self).map_err(|_| problem())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
