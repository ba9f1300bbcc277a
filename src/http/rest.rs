use axum::{
    Extension, Router,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use crate::command::{Commands, RetainedRefused};
use crate::listener::{ClientAddress, Pages};
use crate::message::Payload;
use crate::telemetry::{self, audit};

/// `[rest]`: what devices may ask for over HTTP.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RestConfig {
    /// Where it begins.
    pub path: String,
}

/// What devices may ask for, each with `Authorization: Bearer` and its token.
pub fn device_routes(config: &RestConfig, commands: Commands, pages: &Pages) -> Router {
    let path = &config.path;
    Router::new()
        .route(&format!("{path}/retained"), get(all))
        .route(&format!("{path}/retained/{{event}}"), get(one))
        .with_state(commands)
        .layer(from_fn_with_state(pages.clone(), guard))
        .layer(pages.cors())
}

/// Refuses pages of other origins, and tells of whoever else was refused.
async fn guard(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let address = pages.client_address(&parts).map(|ClientAddress(address)| address);
    let response = if pages.allow(&parts) {
        next.run(Request::from_parts(parts, body)).await
    } else {
        let message = "pages of this origin may not ask here (clients.cors_origins)";
        (Extension(Reason("origin")), error(StatusCode::FORBIDDEN, "origin", message)).into_response()
    };
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

#[derive(Deserialize)]
struct InRoom {
    room: Option<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    room: &'a str,
    event: &'a str,
    payload: Option<&'a RawValue>,
    /// The payload is bytes: ask for it by its event.
    binary: bool,
}

async fn one(
    State(commands): State<Commands>,
    event: Result<Path<String>, PathRejection>,
    query: Result<Query<InRoom>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let (Ok(Path(event)), Ok(Query(InRoom { room }))) = (event, query) else {
        return error(
            StatusCode::BAD_REQUEST,
            "invalid_argument",
            "name one event, and one room at most, both in UTF-8",
        );
    };
    match commands.device_retained(token(&headers), room.as_deref(), &event) {
        Ok(Payload::Json(raw)) => fresh("application/json", raw.get().to_owned().into_bytes()),
        Ok(Payload::Binary(bytes)) => fresh("application/octet-stream", bytes.into()),
        Ok(Payload::None) => refuse(RetainedRefused::Nothing),
        Err(refused) => refuse(refused),
    }
}

async fn all(State(commands): State<Commands>, headers: HeaderMap) -> Response {
    let values = match commands.device_retained_all(token(&headers)) {
        Ok(values) => values,
        Err(refused) => return refuse(refused),
    };
    let entries = values.iter().map(|(room, event, payload)| {
        let (payload, binary) = match payload {
            Payload::Json(raw) => (Some(&**raw), false),
            Payload::Binary(_) => (None, true),
            Payload::None => (None, false),
        };
        Entry { room: room.as_str(), event: event.as_str(), payload, binary }
    });
    let body = serde_json::to_vec(&Listing { retained: entries.collect() });
    body.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), |body| fresh("application/json", body))
}

#[derive(Serialize)]
struct Listing<'a> {
    retained: Vec<Entry<'a>>,
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// An answer that must not be kept: the next value may be another one, and the next one who asks another user.
fn fresh(kind: &'static str, body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

fn refuse(refused: RetainedRefused) -> Response {
    let message = refused.to_string();
    let (status, code, reason) = match refused {
        RetainedRefused::Token(refused) => (StatusCode::UNAUTHORIZED, "unauthenticated", refused.reason()),
        RetainedRefused::NotYourRoom => (StatusCode::FORBIDDEN, "not_your_room", "not_your_room"),
        RetainedRefused::Nothing => return error(StatusCode::NOT_FOUND, "not_found", &message),
    };
    let mut response = (Extension(Reason(reason)), error(status, code, &message)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}
