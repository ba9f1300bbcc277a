//! The edge for backends.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::auth::ApiKeyConfig;

/// `[grpc]`: where backends call.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to listen at.
    pub listen: SocketAddr,
    /// Listening beyond loopback without TLS is meant.
    pub plaintext_public: bool,
    /// Who may call, and what they may do.
    pub api_keys: Vec<ApiKeyConfig>,
}
