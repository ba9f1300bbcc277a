//! Accepting connections: socket options, a table of file descriptors that is full, the peer's address behind proxies,
//! compression of answers, and, for devices, a handle that counts what a stream has written and can cut it.

mod accept;
pub use accept::Acceptor;

mod stream;
pub use stream::{By, DeviceStream, Sent, StreamHandle};

mod shared;

mod outbox;

mod flusher;

mod packets;
pub use packets::polled_packets;

mod backlog;
pub use backlog::{Backlog, websocket_frame_size};

mod serve;
pub use serve::{TcpPeer, Upgrade, serve};

mod peer;
pub use peer::{ClientAddress, Proxies, user_agent};

mod pages;
pub use pages::Pages;

mod origin;
pub use origin::Origins;

mod compress;
pub use compress::compression;

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
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
    /// From how many bytes on answers are compressed; 0: never.
    pub compress_from: u64,
    /// Listening beyond loopback without TLS is meant.
    pub plaintext_public: bool,
}
