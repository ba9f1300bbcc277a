//! What devices ask for over HTTP, each with its token.

mod retained;

mod notifications;

mod messages;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use transport::{ClientAddress, Pages, Stranger, Unfinished};

use crate::command::{Commands, DeviceRefused, Error};
use crate::telemetry::{self, audit};

/// `[rest]`: what devices may ask for over HTTP.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RestConfig {
    /// Where it begins.
    pub path: String,
}

/// What devices may ask for, each with `Authorization: Bearer` and its token.
/// `unfinished` counts the answers.
/// `messages`: where direct messages are asked for, if there are any.
pub fn device_routes(
    config: &RestConfig,
    messages: Option<&str>,
    commands: Commands,
    pages: &Pages,
    unfinished: Unfinished,
) -> Router {
    let path = &config.path;
    let messages = messages.map(|path| messages::routes(path, commands.clone())).unwrap_or_default();
    Router::new()
        .route(&format!("{path}/retained"), get(retained::all))
        .route(&format!("{path}/retained/{{event}}"), get(retained::one))
        .route(&format!("{path}/notifications"), get(notifications::list))
        .route(&format!("{path}/notifications/unread-count"), get(notifications::count))
        .route(&format!("{path}/notifications/read"), put(notifications::read_all))
        .route(&format!("{path}/notifications/{{id}}/read"), put(notifications::read_one))
        .with_state(commands)
        .merge(messages)
        .layer(from_fn_with_state((pages.clone(), unfinished), guard))
        .layer(pages.cors().allow_methods([Method::GET, Method::PUT, Method::POST, Method::DELETE]))
}

/// Refuses pages of other origins, and logs every refusal. Makes no answer while too much of ended ones is in memory.
async fn guard(State((pages, unfinished)): State<(Pages, Unfinished)>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let address = pages.client_address(&parts).map(|ClientAddress(address)| address);
    let stranger = parts.extensions.get::<Arc<Stranger>>().cloned();
    if let (Some(stranger), Some(address)) = (&stranger, address) {
        stranger.locate(address);
    }
    let response = if pages.allow(&parts) {
        unfinished.settled().await;
        next.run(Request::from_parts(parts, body)).await
    } else {
        let message = "pages of this origin may not ask here (clients.cors_origins)";
        (Extension(Reason("origin")), error(StatusCode::FORBIDDEN, "origin", message)).into_response()
    };
    if let Some(stranger) = stranger.filter(|_| response.status().is_success()) {
        // Nothing is answered here without a token.
        stranger.known();
    }
    if let Some(Reason(reason)) = response.extensions().get().copied() {
        tracing::info!(
            client.address = address.map(tracing::field::display),
            refusal.reason = reason,
            "refused a request of a device"
        );
        telemetry::refused("rest", reason);
        audit::device_refused("rest", address, reason);
    }
    response
}

/// Why a device was refused, for logs and metrics.
#[derive(Clone, Copy)]
struct Reason(&'static str);

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// An answer that must not be kept: the next value may be another one, and the next one who asks another user.
fn fresh(kind: &'static str, body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// What tries again after a refusal that may pass waits so many seconds.
const RETRY_AFTER: u64 = 1;

fn refuse(refused: &DeviceRefused) -> Response {
    let message = refused.to_string();
    let (status, code) = match refused {
        DeviceRefused::Token(refused) => {
            let reason = Extension(Reason(refused.reason()));
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (reason, challenge, error(StatusCode::UNAUTHORIZED, "unauthenticated", &message)).into_response();
        }
        DeviceRefused::NotYourRoom => {
            let reason = Extension(Reason("not_your_room"));
            return (reason, error(StatusCode::FORBIDDEN, "not_your_room", &message)).into_response();
        }
        DeviceRefused::Error(error) => match error {
            Error::InvalidArgument(_) => (StatusCode::BAD_REQUEST, "invalid_argument"),
            Error::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Error::PermissionDenied(_) => (StatusCode::FORBIDDEN, "permission_denied"),
            Error::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Error::FailedPrecondition(_) => (StatusCode::CONFLICT, "failed_precondition"),
            Error::ResourceExhausted { .. } => (StatusCode::TOO_MANY_REQUESTS, "resource_exhausted"),
            Error::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Error::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
        },
    };
    let mut response = error(status, code, &message);
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after(refused)));
    }
    response
}

/// After how many seconds a refused request may be repeated.
fn retry_after(refused: &DeviceRefused) -> u64 {
    let DeviceRefused::Error(Error::ResourceExhausted { retry_after, .. }) = refused else { return RETRY_AFTER };
    retry_after.as_millis().div_ceil(1_000).try_into().unwrap_or(RETRY_AFTER).max(RETRY_AFTER)
}

/// A request whose address does not say what it should.
fn malformed(message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "invalid_argument", message)
}

/// An answer in JSON.
fn answer(body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body);
    body.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), |body| fresh("application/json", body))
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}
