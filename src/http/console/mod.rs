//! The test console: one page for developers that speaks as a device, and, with an API key, as a backend.
//!
//! The page wants no key and holds no secret. It connects to the clients listener as any device would, and asks the JSON
//! endpoints under its own path for the rest; those want an API key and do what gRPC does, within the same scopes.

mod address;
pub use address::origins;

mod page;

mod guard;

mod api;

mod emit;

mod refusal;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use crate::auth::ApiKeys;
use crate::command::{Commands, Error};
use crate::lifecycle::Lifecycle;

use self::{page::ConsolePage, refusal::ApiError};

/// `[console]`: a page for trying things out, on the admin listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether there is one. `serve --dev` has one always.
    pub enabled: bool,
    /// Its path.
    pub path: String,
    /// Where browsers find the clients listener (`https://notify.example.com`); empty: at the listener's own address.
    pub clients_url: String,
    /// The admin listener may be beyond loopback, although API keys come over it.
    pub plaintext_public: bool,
}

/// What the console works with.
pub struct Deps {
    /// `[console]`.
    pub config: Config,
    /// Who may act as a backend.
    pub api_keys: ApiKeys,
    /// Where devices connect.
    pub clients: SocketAddr,
    /// `socketio.path`, which the page begins with.
    pub socketio_path: String,
    /// Runs what the page asks for as a backend.
    pub commands: Commands,
    /// Says when to refuse.
    pub lifecycle: Lifecycle,
}

/// What each request needs.
struct Console {
    api_keys: ApiKeys,
    clients: SocketAddr,
    /// `console.clients_url`, if it is set.
    clients_url: Option<String>,
    page: ConsolePage,
    commands: Commands,
    lifecycle: Lifecycle,
}

/// The largest request in bytes, as it is over gRPC.
const MAX_BODY: usize = 4 << 20;

/// The page at its path, and its endpoints under `api`.
pub fn routes(deps: Deps) -> Router {
    let Deps { config, api_keys, clients, socketio_path, commands, lifecycle } = deps;
    let Config { enabled: _, path, clients_url, plaintext_public: _ } = config;
    let clients_url = (!clients_url.is_empty()).then_some(clients_url);
    let page = ConsolePage::new(&socketio_path);
    let console = Arc::new(Console { api_keys, clients, clients_url, page, commands, lifecycle });
    let endpoints = Router::new()
        .route("/emit", post(api::emit))
        .route("/disconnect", post(api::disconnect))
        .route("/stats", get(api::stats))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_endpoint)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(console.clone(), guard::admit));
    Router::new()
        .route(&path, get(show))
        .route(&format!("{path}/"), get(show))
        .nest(&format!("{path}/api"), endpoints)
        .layer(map_response(harden))
        .with_state(console)
}

async fn show(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    let devices = address::devices_url(console.clients_url.as_deref(), console.clients, &headers);
    console.page.response(&devices)
}

async fn wrong_method() -> ApiError {
    ApiError::of(StatusCode::METHOD_NOT_ALLOWED, "the endpoint does not take this method")
}

async fn no_endpoint() -> Response {
    ApiError::from(Error::NotFound("the console has no such endpoint".into())).into_response()
}

/// Keeps answers out of caches, frames and other sites. The page brings a policy of its own.
async fn harden(mut response: Response) -> Response {
    const EVERY: [(header::HeaderName, &str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in EVERY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
    response
}
