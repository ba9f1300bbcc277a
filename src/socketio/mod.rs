//! The edge for devices that speak Socket.IO.
//!
//! A request passes the gate (origin, limits, draining) before it becomes a session. The session's CONNECT is answered in a
//! connect *middleware*: there the token is verified, the connection enters the hub and its handlers are registered, so that
//! nothing is reachable without a token and no early event is lost. The connect handler lets the connection go live.

mod config;
pub use config::{Config, TransportName};

mod attachments;

mod session;

mod observer;

mod resume;

mod gate;

mod packet;

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

use axum::{
    Router,
    http::{HeaderValue, header},
    middleware::map_response,
    response::Response,
    routing::any,
};
use engineioxide::engine::{Attachment, Engine};
use socketioxide::{SocketIo, TransportType, handler::ConnectHandler, service::SocketIoService};
use tokio_util::sync::CancellationToken;
use transport::{Flushers, Pages, Spawn, Unfinished};

use self::token_watch::TokenWatch;
use crate::auth::OnExpiry;
use crate::clock::Clock;
use crate::command::Commands;
use crate::lifecycle::Lifecycle;
use crate::limits::Connections;

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
    /// Write the queues of all WebSocket connections.
    pub flushers: Flushers,
    /// Counts packets whose attachments have not all arrived.
    pub unfinished: Unfinished,
    /// Runs the engine's tasks.
    pub spawn: Spawn,
    /// Runs the task of the engine's timers.
    pub spawn_vital: Spawn,
    /// Sessions end when this is cancelled.
    pub done: CancellationToken,
}

/// The inner service answers what is not Socket.IO's: never reached, since the router asks for the exact path.
type Service = SocketIoService<Router>;

struct Edge {
    parameters: Parameters,
    engine: OnceLock<Engine>,
    token_watch: TokenWatch,
}

impl Edge {
    /// The engine; none before the first request.
    fn engine(&self) -> Option<&Engine> {
        self.engine.get()
    }
}

/// The routes of `socketio.path`.
pub fn routes(parameters: Parameters) -> Router {
    let path = parameters.config.path.clone();
    let edge = Arc::new(Edge { parameters, engine: OnceLock::new(), token_watch: TokenWatch::default() });
    let watching = edge.clone();
    edge.parameters.lifecycle.spawn(async move { watching.token_watch.run(&watching.parameters.lifecycle).await });
    let (service, io) = builder(&edge.parameters.config).build_with_inner_svc(Router::new());
    let engine = service.clone().into_make_service().engine().clone();
    engine.attach(attachment(&edge));
    // The handlers hold the edge, and the edge the engine with its handlers: all of them live as long as the process.
    let _ = edge.engine.set(engine);
    let (authenticating, going_live) = (edge.clone(), edge.clone());
    let authenticate = move |socket, auth| connect::authenticate(authenticating, socket, auth);
    let go_live = async move |socket| connect::go_live(&going_live, &socket);
    io.ns("/", go_live.with(authenticate));
    let gate = gate::Gate::new(edge.clone(), service);
    Router::new()
        .route(&path, any(gate::pass))
        .route(&format!("{path}/"), any(gate::pass))
        .with_state(gate)
        .layer(edge.parameters.pages.cors())
        .layer(map_response(forbid_storing))
}

/// Answers are of one device alone, the browsers' preflights included.
async fn forbid_storing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn attachment(edge: &Arc<Edge>) -> Attachment {
    let parameters = &edge.parameters;
    Attachment {
        observer: Arc::new(observer::Watch(edge.clone())),
        speak_within: Some(parameters.config.connect_timeout),
        max_unread_backlog: parameters.config.queue_bytes / 2,
        flushers: parameters.flushers.clone(),
        spawn: parameters.spawn.clone(),
        spawn_vital: parameters.spawn_vital.clone(),
        done: parameters.done.clone(),
    }
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
        .max_buffer_size(config.queue_packets());
    let polling = config.transports.contains(&TransportName::Polling);
    let websocket = config.transports.contains(&TransportName::WebSocket);
    match (polling, websocket) {
        (true, false) => builder.transports([TransportType::Polling]),
        (false, true) => builder.transports([TransportType::Websocket]),
        (true, true) | (false, false) => builder.transports([TransportType::Polling, TransportType::Websocket]),
    }
}
