//! The edge for operators: health and metrics.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[admin]`: where operators and their probes ask. Nothing here wants a key, so keep it private.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to listen at.
    pub listen: SocketAddr,
}
