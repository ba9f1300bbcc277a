use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use transport::{
    ClientAddress, Stranger, Upgrade, user_agent,
    websocket::{Task, handshake},
};

use super::{
    authentication,
    endpoint::{Endpoint, Visitor},
};
use crate::limits::LimitExceeded;
use crate::telemetry;

/// When a device that was turned away by a server that stops may try again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Refuses a request, or agrees to its upgrade.
pub(super) async fn pass(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    match admit(&endpoint, &parts) {
        Ok((visitor, accept)) => {
            let upgrade = Upgrade::take(&mut parts.extensions);
            endpoint.deps.lifecycle.spawn(Task::new(authentication::open(visitor, upgrade)));
            (StatusCode::SWITCHING_PROTOCOLS, accept.headers()).into_response()
        }
        Err(refusal) => refuse(&endpoint, &parts, refusal),
    }
}

#[derive(Clone, Copy)]
enum GateRefusal {
    Origin,
    /// Not the opening of a WebSocket.
    Handshake(handshake::Fault),
    Draining,
    Limit(LimitExceeded),
}

fn admit(endpoint: &Arc<Endpoint>, parts: &Parts) -> Result<(Visitor, handshake::Accept), GateRefusal> {
    let deps = &endpoint.deps;
    let Some(ClientAddress(address)) = deps.pages.client_address(parts) else {
        return Err(GateRefusal::Origin);
    };
    let stranger = parts.extensions.get::<Arc<Stranger>>().cloned();
    if let Some(stranger) = &stranger {
        stranger.locate(address);
    }
    if !deps.pages.allow(parts) {
        return Err(GateRefusal::Origin);
    }
    let accept = handshake::check(&parts.method, parts.version, &parts.headers).map_err(GateRefusal::Handshake)?;
    if deps.lifecycle.is_stopping() {
        return Err(GateRefusal::Draining);
    }
    let slot = deps.connections.admit_address(address).map_err(GateRefusal::Limit)?;
    let visitor =
        Visitor { endpoint: endpoint.clone(), address, user_agent: user_agent(&parts.headers), stranger, slot };
    Ok((visitor, accept))
}

fn refuse(endpoint: &Endpoint, parts: &Parts, refusal: GateRefusal) -> Response<Body> {
    let deps = &endpoint.deps;
    let (reason, response) = match refusal {
        GateRefusal::Origin => ("origin", (StatusCode::FORBIDDEN, "Forbidden\n").into_response()),
        GateRefusal::Handshake(fault) => {
            let (status, headers, message) = fault.response_parts();
            ("handshake", (status, headers, format!("{message}\n")).into_response())
        }
        GateRefusal::Draining => {
            let again = [(header::RETRY_AFTER, RETRY_AFTER)];
            ("draining", (StatusCode::SERVICE_UNAVAILABLE, again, "The server is stopping\n").into_response())
        }
        GateRefusal::Limit(limit) => {
            let status =
                if limit.is_for_all() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::TOO_MANY_REQUESTS };
            let again = [(header::RETRY_AFTER, HeaderValue::from(limit.retry_after_seconds()))];
            (limit.as_str(), (status, again, format!("{limit}\n")).into_response())
        }
    };
    let address = deps.pages.client_address(parts).map(|ClientAddress(address)| address);
    tracing::info!(
        client.address = address.map(tracing::field::display),
        refusal.reason = reason,
        "refused a WebSocket"
    );
    telemetry::refused("websocket", reason);
    telemetry::audit::device_refused("websocket", address, reason);
    response
}
