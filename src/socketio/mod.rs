//! The edge for devices that speak Socket.IO.
//!
//! A request passes the gate (origin, limits, draining) before it becomes a session. The session's CONNECT is answered in a
//! connect *middleware*: there the token is verified, the connection enters the hub and its handlers are registered, so that
//! nothing is reachable without a token and no early event is lost. The connect handler lets the connection go live.

mod config;
pub use config::{Config, TransportName};

mod session;

mod resume;

mod gate;

mod connect;

mod ack;

mod connection;

mod encoding;

mod closing;

mod inbound;

mod token_watch;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, routing::any};
use dashmap::DashMap;
use socketioxide::{SocketIo, TransportType, handler::ConnectHandler, service::SocketIoService, socket::Sid};

use self::token_watch::TokenWatch;
use crate::auth::OnExpiry;
use crate::clock::Clock;
use crate::command::Commands;
use crate::lifecycle::Lifecycle;
use crate::limits::Connections;
use crate::listener::{Pages, StreamHandle};

/// What happens to live connections when their tokens expire.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// `auth.on_expiry`.
    pub on_expiry: OnExpiry,
    /// `auth.expiring_notice`.
    pub notice: Duration,
    /// `auth.jwt.leeway`.
    pub leeway: Duration,
}

/// What the edge works with.
pub struct Parameters {
    /// `[socketio]`.
    pub config: Config,
    /// What is retained in rooms that a device joins may wait besides `queue_bytes`, up to so many bytes.
    pub on_join_bytes: usize,
    /// What happens when tokens expire.
    pub expiry: Expiry,
    /// Runs what devices ask for.
    pub commands: Commands,
    /// Counts transports.
    pub connections: Arc<Connections>,
    /// Which pages may connect.
    pub pages: Pages,
    /// The time of day.
    pub clock: Clock,
    /// Runs tasks.
    pub lifecycle: Lifecycle,
}

/// The inner service answers what is not Socket.IO's: never reached, since the router asks for the exact path.
type Service = SocketIoService<Router>;

struct Edge {
    parameters: Parameters,
    /// The streams of sessions that upgraded from polling: the session itself knows its first request alone.
    upgrades: DashMap<Sid, StreamHandle>,
    service: OnceLock<Service>,
    token_watch: TokenWatch,
}

/// The routes of `socketio.path`.
pub fn routes(parameters: Parameters) -> Router {
    let path = parameters.config.path.clone();
    let token_watch = TokenWatch::default();
    let edge = Arc::new(Edge { parameters, upgrades: DashMap::new(), service: OnceLock::new(), token_watch });
    let watching = edge.clone();
    edge.parameters.lifecycle.spawn(async move { watching.token_watch.run(&watching.parameters.lifecycle).await });
    let (service, io) = builder(&edge.parameters.config).build_with_inner_svc(Router::new());
    let authenticating = edge.clone();
    let authenticate = move |socket, auth| connect::authenticate(authenticating, socket, auth);
    io.ns("/", connect::go_live.with(authenticate));
    let gate = gate::Gate::new(edge.clone(), service.clone(), io);
    // The edge closes polling sessions through the service, which holds the edge in its handlers: both live as long as
    // the process.
    let _ = edge.service.set(service);
    Router::new()
        .route(&path, any(gate::pass))
        .route(&format!("{path}/"), any(gate::pass))
        .with_state(gate)
        .layer(edge.parameters.pages.cors())
}

fn builder(config: &Config) -> socketioxide::SocketIoBuilder {
    let builder = SocketIo::builder()
        .req_path(config.path.clone())
        .ping_interval(config.ping_interval)
        .ping_timeout(config.ping_timeout)
        .connect_timeout(config.connect_timeout)
        .max_payload(config.max_message as u64)
        .ws_max_message_size(config.max_message)
        .ws_max_frame_size(config.max_message)
        // Most messages of devices are small, and each connection has a buffer of its own. Larger ones take several reads.
        .ws_read_buffer_size(512)
        .max_buffer_size(config.queue_packets());
    let polling = config.transports.contains(&TransportName::Polling);
    let websocket = config.transports.contains(&TransportName::WebSocket);
    match (polling, websocket) {
        (true, false) => builder.transports([TransportType::Polling]),
        (false, true) => builder.transports([TransportType::Websocket]),
        (true, true) | (false, false) => builder.transports([TransportType::Polling, TransportType::Websocket]),
    }
}
