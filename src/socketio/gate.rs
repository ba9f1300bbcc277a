use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Query, Request, State},
    http::{Extensions, HeaderMap, HeaderName, Method, Response, StatusCode, Uri, header, request::Parts},
    response::IntoResponse,
};
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde_json::json;
use socketioxide::{SocketIo, socket::Sid};
use tower::ServiceExt;

use super::{
    Edge, Service,
    resume::resume_of_query,
    session::{Session, Wire},
};
use crate::limits::Refused;
use crate::listener::{ClientAddress, StreamHandle, Upgrade, user_agent};
use crate::telemetry;

/// Looks at every request before the library does.
#[derive(Clone)]
pub(super) struct Gate {
    edge: Arc<Edge>,
    service: Service,
    io: SocketIo,
}

/// When a device that was turned away by a server that stops may try again, in seconds.
const RETRY_AFTER: u64 = 5;

impl Gate {
    pub(super) fn new(edge: Arc<Edge>, service: Service, io: SocketIo) -> Self {
        Self { edge, service, io }
    }

    async fn answer(self, request: Request) -> Response<Body> {
        // The inner service of the library is a router, which cannot fail.
        match self.service.oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        }
    }
}

/// Refuses a request, or passes it on with no more of it than the library needs.
pub(super) async fn pass(State(gate): State<Gate>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|Query(query)| query);
    let query = Parameters(query.unwrap_or_default());
    if !gate.edge.parameters.pages.allow(&parts) {
        return gate.edge.refuse(&parts, Refusal::Origin);
    }
    if query.get("transport") == Some("websocket") && !is_upgrade(&parts.headers) {
        // As it comes through a proxy that does not know WebSocket: the library would agree to it all the same.
        return (StatusCode::BAD_REQUEST, engine_error("3", "Bad request")).into_response();
    }
    match query.get("sid").map(str::to_owned) {
        None => gate.open(parts, body, &query).await,
        Some(sid) => gate.go_on(parts, body, &query, &sid).await,
    }
}

impl Gate {
    /// A request that begins a session.
    async fn open(self, mut parts: Parts, body: Body, query: &Parameters) -> Response<Body> {
        let parameters = &self.edge.parameters;
        if parameters.lifecycle.is_stopping() {
            return self.edge.refuse(&parts, Refusal::Draining);
        }
        let Some(ClientAddress(address)) = parameters.pages.client_address(&parts) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let slot = match parameters.connections.admit_address(address) {
            Ok(slot) => slot,
            Err(limit) => return self.edge.refuse(&parts, Refusal::Limit(limit)),
        };
        let stream = parts.extensions.get::<StreamHandle>().filter(|_| query.get("transport") == Some("websocket"));
        if let Some(stream) = stream {
            stream.expect_upgrade();
        }
        // The answers to polls of older protocols have another shape.
        let counts_polls = stream.is_some() || query.get("EIO") == Some("4");
        let wire = Wire::new(address, user_agent(&parts.headers), stream.cloned(), counts_polls);
        let token = query.get("token").filter(|token| !token.is_empty()).map(str::to_owned);
        let token = token.or_else(|| authorization(&parts.headers)).map(SecretString::from);
        let session = Session::new(wire, token, resume_of_query(query.get("resume")), slot);
        let upgrade = Upgrade::take(&mut parts.extensions);
        let mut request = bare(&parts, query, body);
        upgrade.put(request.extensions_mut());
        request.extensions_mut().insert(session);
        self.answer(request).await
    }

    /// A request of a session.
    async fn go_on(self, mut parts: Parts, body: Body, query: &Parameters, sid: &str) -> Response<Body> {
        let Ok(sid) = sid.parse::<Sid>() else {
            return (StatusCode::BAD_REQUEST, engine_error("1", "Session ID unknown")).into_response();
        };
        let mut request = bare(&parts, query, body);
        if query.get("transport") == Some("websocket") {
            let Some(upgrading) = Upgrading::begin(&self.edge, sid, &parts.extensions) else {
                return (StatusCode::BAD_REQUEST, engine_error("3", "Bad request")).into_response();
            };
            Upgrade::take(&mut parts.extensions).put(request.extensions_mut());
            request.extensions_mut().insert(Arc::new(upgrading));
            return self.answer(request).await;
        }
        let is_poll = parts.method == Method::GET;
        if !is_poll {
            return self.answer(request).await;
        }
        let before = self.wire_of(sid);
        let response = self.clone().answer(request).await;
        // The poll that brings the answer to CONNECT begins before there is a socket; the last one ends after it.
        match before.or_else(|| self.wire_of(sid)) {
            Some(wire) => count_polled(&wire, response).await,
            None => response,
        }
    }

    fn wire_of(&self, sid: Sid) -> Option<Arc<Wire>> {
        let socket = self.io.of("/")?.get_socket(sid)?;
        Some(socket.req_parts().extensions.get::<Arc<Session>>()?.wire.clone())
    }
}

/// Takes note of what a poll fetches. The library has it in memory, so nothing is waited for.
async fn count_polled(wire: &Wire, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            wire.add_polled(&body);
            Response::from_parts(parts, Body::from(body))
        }
        Err(error) => {
            tracing::warn!(%error, "the answer to a poll broke off");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Keeps the stream of a session that upgrades, for as long as the library keeps the upgrading request.
struct Upgrading {
    edge: Arc<Edge>,
    sid: Sid,
    stream: StreamHandle,
}

impl Upgrading {
    /// Nothing if the session has upgraded already: a second stream would hide the first.
    fn begin(edge: &Arc<Edge>, sid: Sid, extensions: &Extensions) -> Option<Self> {
        let stream = extensions.get::<StreamHandle>()?.clone();
        let mut known = edge.upgrades.entry(sid).or_insert_with(|| stream.clone());
        if known.is_closed() {
            *known = stream.clone();
        } else if !known.is(&stream) {
            return None;
        }
        stream.expect_upgrade();
        Some(Self { edge: edge.clone(), sid, stream })
    }
}

impl Drop for Upgrading {
    fn drop(&mut self) {
        self.edge.upgrades.remove_if(&self.sid, |_, known| known.is(&self.stream));
    }
}

struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy)]
enum Refusal {
    Origin,
    Draining,
    Limit(Refused),
}

impl Edge {
    fn refuse(&self, parts: &Parts, refusal: Refusal) -> Response<Body> {
        let (reason, status, message, retry_after) = match refusal {
            Refusal::Origin => ("origin", StatusCode::FORBIDDEN, "Forbidden".to_owned(), None),
            Refusal::Draining => {
                ("draining", StatusCode::SERVICE_UNAVAILABLE, "The server is stopping".to_owned(), Some(RETRY_AFTER))
            }
            Refusal::Limit(limit) => {
                let status =
                    if limit.is_for_all() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::TOO_MANY_REQUESTS };
                (limit.as_str(), status, limit.to_string(), Some(limit.retry_after_seconds()))
            }
        };
        let address = self.parameters.pages.client_address(parts).map(|ClientAddress(address)| address);
        tracing::info!(
            client.address = address.map(tracing::field::display),
            refusal.reason = reason,
            "refused a transport"
        );
        telemetry::refused("socketio", reason);
        telemetry::audit::device_refused("socketio", address, reason);
        let mut response = (status, engine_error("4", &message)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// An error as Engine.IO servers answer it.
fn engine_error(code: &str, message: &str) -> impl IntoResponse {
    axum::Json(json!({ "code": code, "message": message }))
}

/// The request again, with nothing that is secret or large, since the library keeps it for the session's life, and with the
/// parameters as we read them: what is a session's request to us must be one to the library, whatever the escapes.
fn bare(parts: &Parts, query: &Parameters, body: Body) -> Request {
    const KEPT_PARAMETERS: [&str; 4] = ["EIO", "transport", "b64", "sid"];
    const KEPT_HEADERS: [HeaderName; 2] = [header::SEC_WEBSOCKET_KEY, header::CONTENT_TYPE];
    // Any other value is none that the library knows, and might hide another parameter.
    let is_plain = |value: &&str| value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let kept = KEPT_PARAMETERS.iter().filter_map(|name| Some(format!("{name}={}", query.get(name).filter(is_plain)?)));
    let uri = format!("{}?{}", parts.uri.path(), kept.collect::<Vec<_>>().join("&"));
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    // A value that does not fit into a URI is no value that the library knows.
    *request.uri_mut() = uri.parse().unwrap_or_else(|_| Uri::from_static("/?"));
    // Most have one of them. A map that grows by itself has room for six, for the session's life.
    *request.headers_mut() = HeaderMap::with_capacity(1);
    for name in KEPT_HEADERS {
        if let Some(value) = parts.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    request
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn authorization(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    (!value.is_empty()).then(|| value.to_owned())
}
