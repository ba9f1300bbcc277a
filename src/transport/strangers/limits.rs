use serde::{Deserialize, Serialize};

/// Limits of the connections from which no accepted token has been seen. When one is exceeded, the oldest such connections are
/// closed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StrangerLimits {
    /// How many there may be.
    pub connections: usize,
    /// How many of one client's address there may be. An IPv6 network of 64 bits counts as one address.
    pub connections_per_address: usize,
    /// How many bytes of request bodies and of unfinished messages they may hold in memory, all together.
    pub body_bytes: usize,
    /// How many such bytes those of one client's address may hold.
    pub body_bytes_per_address: usize,
}

/// A limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Connections,
    ConnectionsPerAddress,
    BodyBytes,
    BodyBytesPerAddress,
}

impl Limit {
    /// Returns its key in the configuration, which is also the reason in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::BodyBytes => "body_bytes",
            Self::BodyBytesPerAddress => "body_bytes_per_address",
        }
    }
}

impl StrangerLimits {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        connections: usize::MAX,
        connections_per_address: usize::MAX,
        body_bytes: usize::MAX,
        body_bytes_per_address: usize::MAX,
    };
}
