use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header, request::Parts},
    response::IntoResponse,
};
use engineioxide::{Sid, session::Context};
use secrecy::SecretString;
use serde_json::json;
use socketioxide::service::SocketIoService;
use tower::ServiceExt;
use transport::{ClientAddress, Handle, Stranger, Upgrade, user_agent};

use super::{device::Device, edge::Edge, opening::FirstRequest, resume::resume_of_query};
use crate::auth::MAX_TOKEN;
use crate::limits::LimitExceeded;
use crate::telemetry;

/// The inner service answers what is not Socket.IO's: never reached, since the router asks for the exact path.
type Service = SocketIoService<Router>;

/// Looks at every request before the engine does.
#[derive(Clone)]
pub(super) struct Gate {
    edge: Arc<Edge>,
    service: Service,
}

/// The time after which a device that was turned away by a server that stops may try again, in seconds.
const RETRY_AFTER: u64 = 5;

/// The longest value of a header that the engine is given, and how many there may be of one header: none that it knows is longer.
const MAX_KEPT_VALUE: usize = 256;
const MAX_KEPT_VALUES: usize = 4;

impl Gate {
    pub(super) fn new(edge: Arc<Edge>, service: Service) -> Self {
        Self { edge, service }
    }

    async fn answer(self, request: Request) -> Response<Body> {
        // The inner service of the library is a router, which cannot fail.
        match self.service.oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        }
    }
}

/// Refuses a request, or passes it on with no more of it than the engine needs.
pub(super) async fn pass(State(gate): State<Gate>, request: Request) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|Query(query)| query);
    let query = QueryParams(query.unwrap_or_default());
    let edge = &gate.edge;
    let Some(ClientAddress(address)) = edge.deps.pages.client_address(&parts) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let stranger = parts.extensions.get::<Arc<Stranger>>().cloned();
    if let Some(stranger) = &stranger {
        stranger.locate(address);
    }
    if !edge.deps.pages.allow(&parts) {
        return edge.refuse(&parts, GateRefusal::Origin);
    }
    let mut extensions = Extensions::new();
    match query.get("sid").filter(|sid| !sid.is_empty()) {
        Some(sid) if sid.parse::<Sid>().is_err() => {
            return (StatusCode::BAD_REQUEST, engine_error(1, "Session ID unknown")).into_response();
        }
        Some(sid) => {
            // A connection that carries requests of a device with a token is no stranger's.
            if let (Some(stranger), Some(device)) = (&stranger, edge.device_of(sid)) {
                device.meet(stranger, query.get("transport") == Some("websocket"));
            }
        }
        None if edge.deps.lifecycle.is_stopping() => return edge.refuse(&parts, GateRefusal::Draining),
        None => {
            let slot = match edge.deps.connections.admit_address(address) {
                Ok(slot) => slot,
                Err(limit) => return edge.refuse(&parts, GateRefusal::Limit(limit)),
            };
            let token = query.get("token").filter(|token| !token.is_empty()).map(str::to_owned);
            let token = token.or_else(|| authorization(&parts.headers)).map(without_excess);
            let resume = query.get("resume");
            let bytes = token.as_ref().map_or(0, String::len) + resume.map_or(0, str::len);
            let (token, resume) = (token.map(SecretString::from), resume_of_query(resume));
            let user_agent = user_agent(&parts.headers);
            let first = FirstRequest { address, user_agent, token, resume, bytes, stranger, slot };
            extensions.insert(Context(Device::new(edge, first)));
        }
    }
    Upgrade::take(&mut parts.extensions).put(&mut extensions);
    if let Some(stream) = parts.extensions.remove::<Handle>() {
        extensions.insert(stream);
    }
    let mut request = bare(&parts, &query, body);
    *request.extensions_mut() = extensions;
    gate.answer(request).await
}

struct QueryParams(Vec<(String, String)>);

impl QueryParams {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy)]
enum GateRefusal {
    Origin,
    Draining,
    Limit(LimitExceeded),
}

impl Edge {
    fn device_of(&self, sid: &str) -> Option<Arc<Device>> {
        self.device(sid.parse().ok()?).map(|(_, device)| device)
    }

    fn refuse(&self, parts: &Parts, refusal: GateRefusal) -> Response<Body> {
        let (reason, status, message, retry_after) = match refusal {
            GateRefusal::Origin => ("origin", StatusCode::FORBIDDEN, "Forbidden".to_owned(), None),
            GateRefusal::Draining => {
                ("draining", StatusCode::SERVICE_UNAVAILABLE, "The server is stopping".to_owned(), Some(RETRY_AFTER))
            }
            GateRefusal::Limit(limit) => {
                let status =
                    if limit.is_for_all() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::TOO_MANY_REQUESTS };
                (limit.as_str(), status, limit.to_string(), Some(limit.retry_after_seconds()))
            }
        };
        let address = self.deps.pages.client_address(parts).map(|ClientAddress(address)| address);
        tracing::info!(
            client.address = address.map(tracing::field::display),
            refusal.reason = reason,
            "refused a transport"
        );
        telemetry::refused("socketio", reason);
        telemetry::audit::device_refused("socketio", address, reason);
        let mut response = (status, engine_error(4, &message)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// An error as Engine.IO servers answer it.
fn engine_error(code: u8, message: &str) -> impl IntoResponse {
    axum::Json(json!({ "code": code, "message": message }))
}

/// Returns the request as the engine is to read it: without anything secret, and with the parameters as they were read here, so that a
/// session's request is one to the engine too, whatever the escapes.
fn bare(parts: &Parts, query: &QueryParams, body: Body) -> Request {
    const ENGINE_PARAMETERS: [&str; 4] = ["EIO", "transport", "b64", "sid"];
    const ENGINE_HEADERS: [HeaderName; 5] = [
        header::CONNECTION,
        header::UPGRADE,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_KEY,
        header::CONTENT_TYPE,
    ];
    // The engine knows no other value, and one might hide another parameter.
    let is_plain = |value: &&str| value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let kept =
        ENGINE_PARAMETERS.iter().filter_map(|name| Some(format!("{name}={}", query.get(name).filter(is_plain)?)));
    let uri = format!("{}?{}", parts.uri.path(), kept.collect::<Vec<_>>().join("&"));
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    // The engine knows no value that does not fit into a URI.
    *request.uri_mut() = uri.parse().unwrap_or_else(|_| Uri::from_static("/?"));
    for name in ENGINE_HEADERS {
        let is_short = |value: &&HeaderValue| value.len() <= MAX_KEPT_VALUE;
        for value in parts.headers.get_all(&name).iter().filter(is_short).take(MAX_KEPT_VALUES) {
            request.headers_mut().append(name.clone(), value.clone());
        }
    }
    *request.version_mut() = parts.version;
    request
}

/// A token that is too long, with no more of it than tells so.
fn without_excess(mut token: String) -> String {
    if token.len() > MAX_TOKEN {
        token.truncate(token.ceil_char_boundary(MAX_TOKEN + 1));
        token.shrink_to_fit();
    }
    token
}

fn authorization(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    (!value.is_empty()).then(|| value.to_owned())
}
