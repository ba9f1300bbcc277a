//! The edge for what is asked over plain HTTP: health, metrics and the test console for operators, REST for devices.

mod rest;
pub use rest::{RestConfig, device_routes};

pub mod console;

use std::net::SocketAddr;

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};

use crate::command::Commands;
use crate::lifecycle::Lifecycle;
use crate::telemetry;

/// `[admin]`: where operators and their probes ask. Nothing here wants a key, so keep it private.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to listen at.
    pub listen: SocketAddr,
}

/// What the edge works with.
#[derive(Clone)]
pub struct Deps {
    /// Counts what there is.
    pub commands: Commands,
    /// Knows whether the server is ready.
    pub lifecycle: Lifecycle,
    /// Where metrics are kept.
    pub metrics: PrometheusHandle,
}

/// A node that does not hear the others for so long is not ready.
const UNREADY_AFTER: Duration = Duration::from_secs(5);

/// What operators' paths are, besides the console's.
pub const OPERATORS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// `/livez`: the process answers. `/readyz`: it takes devices and calls, and reaches its store and the engine between the nodes; 503 if not. `/metrics`: in the Prometheus text format.
pub fn admin_routes(deps: Deps) -> Router {
    Router::new()
        .route("/", get(async || "Bugle, for operators: /livez, /readyz, /metrics\n"))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(deps)
}

async fn readyz(State(deps): State<Deps>) -> (StatusCode, String) {
    let unavailable = |why: &dyn std::fmt::Display| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    match deps.commands.store_status() {
        _ if deps.lifecycle.is_stopping() => unavailable(&"stopping"),
        _ if !deps.lifecycle.is_ready() => unavailable(&"starting"),
        _ if deps.commands.unready_for().is_some_and(|unready| unready >= UNREADY_AFTER) => {
            unavailable(&"the engine between the nodes (cluster.redis) cannot be reached")
        }
        Some(status) if !status.can_write() => unavailable(&status),
        Some(_) | None => (StatusCode::OK, "ok\n".into()),
    }
}

async fn metrics(State(deps): State<Deps>) -> ([(&'static str, &'static str); 1], String) {
    let stats = deps.commands.own_stats();
    let text = telemetry::render(&deps.metrics, stats.connections, stats.users, stats.rooms);
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
}
