use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, StatusCode, header},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use transport::{Pages, Serving};

use super::{Addresses, vital};
use crate::auth::{ApiKeys, Expiry};
use crate::clock::Clock;
use crate::command::Commands;
use crate::config::Config;
use crate::http::{self, console};
use crate::lifecycle::Lifecycle;
use crate::limits::Connections;
use crate::socketio;
use crate::websocket;

/// Rooms full of retained payloads that a device may join at one time without being slow.
const ROOMS_ON_JOIN: usize = 4;

/// A path may be added with the next configuration, so no cache may keep the answer.
async fn not_found() -> (StatusCode, [(HeaderName, &'static str); 1]) {
    (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")])
}

/// The routes of the operators' port.
pub(super) fn operator_routes(
    config: &mut Config,
    addresses: Addresses,
    api_keys: ApiKeys,
    commands: &Commands,
    lifecycle: &Lifecycle,
    metrics: PrometheusHandle,
) -> Router {
    let deps = http::Deps { commands: commands.clone(), lifecycle: lifecycle.clone(), metrics };
    let routes = http::admin_routes(deps);
    if !config.console.enabled {
        return routes;
    }
    config.clients.cors_origins.extend(console::origins(addresses.admin));
    routes.merge(console::routes(console::Deps {
        config: config.console.clone(),
        api_keys,
        clients: addresses.clients,
        socketio_path: config.socketio.path.clone(),
        commands: commands.clone(),
        lifecycle: lifecycle.clone(),
    }))
}

/// The routes of the devices' port, and what counts their transports.
pub(super) fn device_routes(
    config: Config,
    clock: Clock,
    pages: Pages,
    commands: Commands,
    lifecycle: &Lifecycle,
    serving: &Serving,
) -> (Router, Arc<Connections>) {
    let compression = transport::compression(config.clients.compress_from);
    let greeting = format!("Bugle, for devices: Socket.IO at {}\n", config.socketio.path);
    let connections = Connections::new(config.limits);
    let messages = Some(&*config.messages.path).filter(|_| config.messages.enabled);
    let rest = http::device_routes(&config.rest, messages, commands.clone(), &pages, serving.answers.clone());
    let expiry = Expiry::new(&config.auth, clock.clone());
    let (clock_jumps, looking) = clock.watch_jumps();
    let done = serving.done.clone();
    lifecycle.spawn_vital("clock", async move { _ = done.run_until_cancelled(looking).await });
    let websocket = websocket::routes(websocket::Deps {
        endpoints: config.websocket,
        ping_interval: config.socketio.ping_interval,
        ping_timeout: config.socketio.ping_timeout,
        max_message: config.socketio.max_message,
        queue_bytes: config.socketio.queue_bytes,
        on_join_bytes: ROOMS_ON_JOIN * config.retain.max_room_bytes,
        expiry: Expiry { notice: Duration::ZERO, ..expiry.clone() },
        commands: commands.clone(),
        connections: connections.clone(),
        pages: pages.clone(),
        clock: clock.clone(),
        clock_jumps: clock_jumps.clone(),
        lifecycle: lifecycle.clone(),
        flushers: serving.flushers.clone(),
        done: serving.done.clone(),
    });
    // A CONNECT is answered when its rooms are joined.
    let accepted_within = config.socketio.connect_timeout + config.cluster.longest_join();
    let socketio = socketio::routes(socketio::Deps {
        accepted_within,
        on_join_bytes: ROOMS_ON_JOIN * config.retain.max_room_bytes,
        connections: connections.clone(),
        pages,
        expiry,
        config: config.socketio,
        commands,
        clock,
        clock_jumps,
        lifecycle: lifecycle.clone(),
        flushers: serving.flushers.clone(),
        unfinished: serving.incoming.clone(),
        spawn: serving.spawn.clone(),
        spawn_vital: vital(lifecycle, "engine"),
        done: serving.done.clone(),
    });
    let routes = socketio.merge(websocket).merge(rest).route("/", get(async || greeting)).fallback(not_found);
    let routes = match compression {
        Some(compression) => routes.layer(compression),
        None => routes,
    };
    (routes, connections)
}
