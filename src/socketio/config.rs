use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[socketio]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The path that clients name in their `path` option.
    pub path: String,
    /// Which transports are open.
    pub transports: Vec<TransportName>,
    /// How often a device is asked whether it is still there.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long it may take to answer.
    #[serde(with = "humantime_serde")]
    pub ping_timeout: Duration,
    /// From the transport to the accepted CONNECT.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The largest message that a device may send, in bytes.
    pub max_message: usize,
    /// What may wait for a device, in bytes; past it, the device is slow.
    pub queue_bytes: usize,
    /// The event that greets a device; empty: none.
    pub welcome: String,
}

/// A Socket.IO transport, by its name.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportName {
    /// HTTP long polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

impl Config {
    /// How many packets may wait for a device: many enough for the bound in bytes to be met first, since a queue that is full
    /// of packets is also too full for the next ping, and reads as a device that is gone. What is retained does not count there.
    pub(super) fn queue_packets(&self) -> usize {
        const SMALLEST_PACKET: usize = 16;
        const MAX_ON_JOIN: usize = 65_536;
        (self.queue_bytes / SMALLEST_PACKET).max(MAX_ON_JOIN)
    }
}
