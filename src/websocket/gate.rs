use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Endpoint, authentication};
use crate::limits::{AddressSlot, Refused};
use crate::listener::{ClientAddress, StreamHandle, Upgrade, user_agent};
use crate::telemetry;

/// When a device that was turned away by a server that stops may try again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// The one version that there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// A device that was let through the gate, and has yet to say who it is.
pub(super) struct Visitor {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) address: IpAddr,
    pub(super) user_agent: Box<str>,
    pub(super) stream: StreamHandle,
    /// Held for as long as the socket is open.
    pub(super) _slot: AddressSlot,
}

/// Refuses a request, or agrees to its upgrade.
pub(super) async fn pass(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    match admit(&endpoint, &parts) {
        Ok((visitor, key)) => {
            let upgrade = Upgrade::take(&mut parts.extensions);
            endpoint.parameters.lifecycle.spawn(authentication::receive(visitor, upgrade));
            let accept = [(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))];
            (StatusCode::SWITCHING_PROTOCOLS, upgrade_headers(), accept).into_response()
        }
        Err(refusal) => refuse(&endpoint, &parts, refusal),
    }
}

#[derive(Clone, Copy)]
enum Refusal {
    Origin,
    /// Not the opening of a WebSocket.
    Handshake(Handshake),
    Draining,
    Limit(Refused),
}

/// What a request lacks to be the opening of a WebSocket (RFC 6455, section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    Upgrade,
    Version,
    Key,
}

fn admit(endpoint: &Arc<Endpoint>, parts: &Parts) -> Result<(Visitor, HeaderValue), Refusal> {
    let parameters = &endpoint.parameters;
    let address = parameters.pages.client_address(parts);
    let (Some(ClientAddress(address)), Some(stream)) = (address, parts.extensions.get::<StreamHandle>()) else {
        return Err(Refusal::Origin);
    };
    if !parameters.pages.allow(parts) {
        return Err(Refusal::Origin);
    }
    let key = key(&parts.method, &parts.headers).map_err(Refusal::Handshake)?;
    if parameters.lifecycle.is_stopping() {
        return Err(Refusal::Draining);
    }
    let slot = parameters.connections.admit_address(address).map_err(Refusal::Limit)?;
    let visitor = Visitor {
        endpoint: endpoint.clone(),
        address,
        user_agent: user_agent(&parts.headers),
        stream: stream.clone(),
        _slot: slot,
    };
    Ok((visitor, key.clone()))
}

/// The key of a request that opens a WebSocket.
fn key<'a>(method: &Method, headers: &'a HeaderMap) -> Result<&'a HeaderValue, Handshake> {
    let names = |name: HeaderName, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if method != Method::GET || !names(header::UPGRADE, "websocket") || !names(header::CONNECTION, "upgrade") {
        return Err(Handshake::Upgrade);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(Handshake::Version);
    }
    headers.get(header::SEC_WEBSOCKET_KEY).ok_or(Handshake::Key)
}

fn upgrade_headers() -> [(HeaderName, HeaderValue); 2] {
    [(header::CONNECTION, HeaderValue::from_static("Upgrade")), (header::UPGRADE, WEBSOCKET)]
}

fn refuse(endpoint: &Endpoint, parts: &Parts, refusal: Refusal) -> Response<Body> {
    let parameters = &endpoint.parameters;
    let (reason, response) = match refusal {
        Refusal::Origin => ("origin", (StatusCode::FORBIDDEN, "Forbidden\n").into_response()),
        Refusal::Handshake(Handshake::Upgrade) => {
            let answer = (StatusCode::UPGRADE_REQUIRED, upgrade_headers(), "This is a WebSocket\n");
            ("handshake", answer.into_response())
        }
        Refusal::Handshake(Handshake::Version) => {
            let version = [(header::SEC_WEBSOCKET_VERSION, VERSION)];
            ("handshake", (StatusCode::UPGRADE_REQUIRED, version, "Only version 13 is spoken\n").into_response())
        }
        Refusal::Handshake(Handshake::Key) => {
            ("handshake", (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n").into_response())
        }
        Refusal::Draining => {
            let again = [(header::RETRY_AFTER, RETRY_AFTER)];
            ("draining", (StatusCode::SERVICE_UNAVAILABLE, again, "The server is stopping\n").into_response())
        }
        Refusal::Limit(limit) => {
            let status =
                if limit.is_for_all() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::TOO_MANY_REQUESTS };
            let again = [(header::RETRY_AFTER, HeaderValue::from(limit.retry_after_seconds()))];
            (limit.as_str(), (status, again, format!("{limit}\n")).into_response())
        }
    };
    let address = parameters.pages.client_address(parts).map(|ClientAddress(address)| address);
    tracing::info!(
        client.address = address.map(tracing::field::display),
        refusal.reason = reason,
        "refused a WebSocket"
    );
    telemetry::refused("websocket", reason);
    telemetry::audit::device_refused("websocket", address, reason);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_opening_of_a_websocket_has_a_key() {
        let good = headers(&GOOD);
        assert_eq!(key(&Method::GET, &good).unwrap(), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(key(&Method::POST, &good), Err(Handshake::Upgrade));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = [Handshake::Upgrade, Handshake::Upgrade, Handshake::Version, Handshake::Key];
        for (position, expected) in missing.into_iter().enumerate() {
            let mut rest = GOOD.to_vec();
            rest.remove(position);
            assert_eq!(key(&Method::GET, &headers(&rest)), Err(expected), "without {:?}", GOOD[position]);
        }
    }
}
