//! The edge for devices that speak plain WebSocket (RFC 6455).
//!
//! A request passes the gate (origin, limits, draining) before it is upgraded, since a device that was turned away before
//! that comes back later. The first message authenticates; from then on the connection is one like any other, but that it
//! gets nothing but the payloads of the events that its endpoint lists: whatever else there is to say, a close code says.
//!
//! Each socket has one task with one timer, and a queue that takes no room while it is empty.

mod config;
pub use config::EndpointConfig;

mod gate;

mod authentication;

mod inbound;

mod connection;

mod device;

mod heartbeat;

mod closing;

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::any};
use transport::{Flushers, Pages};

use crate::auth::OnExpiry;
use crate::clock::Clock;
use crate::command::Commands;
use crate::lifecycle::Lifecycle;
use crate::limits::Connections;

/// What the edge works with.
pub struct Parameters {
    /// `[[websocket]]`.
    pub endpoints: Vec<EndpointConfig>,
    /// How often a device is asked whether it is still there.
    pub ping_interval: Duration,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
    /// The largest message that a device may send, in bytes.
    pub max_message: usize,
    /// What may wait for a device, in bytes; past it, the device is slow.
    pub queue_bytes: usize,
    /// What is retained in rooms that a device joins may wait besides, up to so many bytes.
    pub on_join_bytes: usize,
    /// What happens when tokens expire.
    pub on_expiry: OnExpiry,
    /// Runs what devices ask for.
    pub commands: Commands,
    /// Counts sockets.
    pub connections: Arc<Connections>,
    /// Which pages may connect.
    pub pages: Pages,
    /// The time of day.
    pub clock: Clock,
    /// Runs tasks.
    pub lifecycle: Lifecycle,
    /// Write the queues of sockets.
    pub flushers: Flushers,
}

/// One path, and what is to be had there.
struct Endpoint {
    config: EndpointConfig,
    parameters: Arc<Parameters>,
}

/// The routes of all `[[websocket]]` paths.
pub fn routes(mut parameters: Parameters) -> Router {
    let endpoints = std::mem::take(&mut parameters.endpoints);
    let parameters = Arc::new(parameters);
    endpoints.into_iter().fold(Router::new(), |routes, config| {
        let path = config.path.clone();
        let endpoint = Arc::new(Endpoint { config, parameters: parameters.clone() });
        routes.route(&path, any(gate::pass).with_state(endpoint))
    })
}
