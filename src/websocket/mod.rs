//! The edge for devices that speak plain WebSocket (RFC 6455).
//!
//! A request passes the gate (origin, limits, draining) before it is upgraded, since a device that was turned away before
//! that comes back later. The first message authenticates; from then on the connection is one like any other, but that it
//! gets nothing but the payloads of the events that its endpoint lists: whatever else there is to say, a close code says.
//!
//! Each socket has one task, which holds nothing but what was read of a message and a queue that takes no room while it is empty. The
//! timers of all sockets are driven by another.

mod config;
pub use config::EndpointConfig;

mod timers;

mod endpoint;
pub use endpoint::Deps;

mod closing;

mod inbound;

mod heartbeat;

mod phase;

mod device;

mod peer;

mod authentication;

mod gate;

use std::sync::Arc;

use axum::{Router, routing::any};

use self::{endpoint::Endpoint, timers::Timers};

/// The routes of all `[[websocket]]` paths.
pub fn routes(mut deps: Deps) -> Router {
    let endpoints = std::mem::take(&mut deps.endpoints);
    if endpoints.is_empty() {
        return Router::new();
    }
    let (deps, timers) = (Arc::new(deps), Arc::<Timers>::default());
    let (driven, done) = (timers.clone(), deps.done.clone());
    let driving = async move { _ = done.run_until_cancelled(driven.run()).await };
    deps.lifecycle.spawn_vital("websocket timers", driving);
    let (following, done, jumps) = (timers.clone(), deps.done.clone(), deps.clock_jumps.clone());
    let following = async move { _ = done.run_until_cancelled(following.follow_clock(jumps)).await };
    deps.lifecycle.spawn_vital("websocket clock", following);
    endpoints.into_iter().fold(Router::new(), |routes, config| {
        let path = config.path.clone();
        let endpoint = Arc::new(Endpoint { config, deps: deps.clone(), timers: timers.clone() });
        routes.route(&path, any(gate::pass).with_state(endpoint))
    })
}
