//! The edge for devices that speak Socket.IO.
//!
//! A request passes the gate (origin, limits, draining) before it becomes a session. The session's CONNECT is answered in a
//! connect *middleware*: there the token is verified, the connection enters the hub and its handlers are registered, so that
//! nothing is reachable without a token and no early event is lost. The connect handler lets the connection go live.

mod config;
pub use config::{Config, TransportName};

mod attachments;

mod edge;
pub use edge::Deps;

mod opening;

mod phase;

mod event;

mod inbox;

mod device;

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

mod expiry;

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
use engineioxide::engine::Attachment;
use socketioxide::{SocketIo, TransportType, handler::ConnectHandler};

use self::edge::Edge;

/// The routes of `socketio.path`.
pub fn routes(deps: Deps) -> Router {
    let path = deps.config.path.clone();
    let edge = Arc::new(Edge { deps, engine: OnceLock::new() });
    let (service, io) = builder(&edge.deps.config, edge.deps.accepted_within).build_with_inner_svc(Router::new());
    let engine = service.clone().into_make_service().engine().clone();
    engine.attach(attachment(&edge));
    let _ = edge.engine.set(engine.downgrade());
    let (following, done) = (edge.clone(), edge.deps.done.clone());
    let following = async move { _ = done.run_until_cancelled(following.follow_clock()).await };
    edge.deps.lifecycle.spawn_vital("socketio clock", following);
    let (authenticating, going_live) = (edge.clone(), edge.clone());
    let authenticate = move |socket, auth| connect::authenticate(authenticating, socket, auth);
    let go_live = async move |socket| connect::go_live(&going_live, &socket);
    io.ns("/", go_live.with(authenticate));
    let gate = gate::Gate::new(edge.clone(), service);
    Router::new()
        .route(&path, any(gate::pass))
        .route(&format!("{path}/"), any(gate::pass))
        .with_state(gate)
        .layer(edge.deps.pages.cors())
        .layer(map_response(forbid_storing))
}

/// Answers are of one device alone, the browsers' preflights included.
async fn forbid_storing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn attachment(edge: &Arc<Edge>) -> Attachment {
    let deps = &edge.deps;
    Attachment {
        observer: Arc::new(observer::Watch(edge.clone())),
        speak_within: Some(deps.config.connect_timeout),
        max_unread_backlog: deps.config.queue_bytes / 2,
        flushers: deps.flushers.clone(),
        spawn: deps.spawn.clone(),
        spawn_vital: deps.spawn_vital.clone(),
        done: deps.done.clone(),
    }
}

fn builder(config: &Config, accepted_within: Duration) -> socketioxide::SocketIoBuilder {
    let builder = SocketIo::builder()
        .req_path(config.path.clone())
        .ping_interval(config.ping_interval)
        .ping_timeout(config.ping_timeout)
        .connect_timeout(accepted_within)
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
