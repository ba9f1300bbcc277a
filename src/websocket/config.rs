use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::EventPattern;

/// `[[websocket]]`: a path for devices that speak plain WebSocket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// The path, which a request must name exactly.
    pub path: String,
    /// The events whose payloads arrive here.
    pub events: Vec<EventPattern>,
    /// From the request to the message that authenticates.
    #[serde(default = "auth_timeout", with = "humantime_serde")]
    pub auth_timeout: Duration,
}

fn auth_timeout() -> Duration {
    Duration::from_secs(5)
}
