use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[clients]`: where devices connect.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to listen at.
    pub listen: SocketAddr,
    /// Origins (`https://app.example.com`) whose pages may connect, besides the request's own host.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-…` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Answers of this many bytes or more are compressed; 0: none.
    pub compress_from: u64,
    /// Listening beyond loopback without TLS is intended.
    pub plaintext_public: bool,
    /// Bytes in the write queues of all devices together.
    pub queue_bytes_total: u64,
    /// Bytes of requests and messages of all devices that have not arrived whole.
    pub incoming_bytes_total: usize,
    /// Bytes of answers to all devices' requests, besides polls, that have not left whole.
    pub answer_bytes_total: usize,
}
