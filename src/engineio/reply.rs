//! Responses: as Node's server gives them, and never to be kept by a cache.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use transport::websocket::handshake;

/// The body of the engine's responses.
pub(crate) type Body = Full<Bytes>;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum RequestError {
    UnknownTransport,
    UnknownSession,
    Method,
    BadRequest,
    UnknownVersion,
    Handshake(handshake::Fault),
    TooLarge,
    TooSlow,
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

impl RequestError {
    pub(crate) fn response(self) -> Response<Body> {
        metrics::counter!("engineio_refusals_total", "reason" => self.reason()).increment(1);
        let (status, code, message) = match self {
            Self::UnknownTransport => (StatusCode::BAD_REQUEST, 0, "Transport unknown"),
            Self::UnknownSession => (StatusCode::BAD_REQUEST, 1, "Session ID unknown"),
            Self::Method => (StatusCode::BAD_REQUEST, 2, "Bad handshake method"),
            // Node's server answers a request that asks for no WebSocket as any other that it cannot read.
            Self::BadRequest | Self::Handshake(handshake::Fault::NotAnUpgrade) => {
                (StatusCode::BAD_REQUEST, 3, "Bad request")
            }
            Self::UnknownVersion => (StatusCode::BAD_REQUEST, 5, "Unsupported protocol version"),
            Self::Handshake(fault) => return handshake_refused(fault),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 3, "The payload is larger than maxPayload"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, 3, "The body did not arrive in time"),
        };
        error(status, code, message)
    }

    /// Its name in metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownTransport => "unknown_transport",
            Self::UnknownSession => "unknown_session",
            Self::Method => "method",
            Self::BadRequest => "bad_request",
            Self::UnknownVersion => "unknown_version",
            Self::Handshake(_) => "handshake",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
        }
    }
}

fn error(status: StatusCode, code: u8, message: &str) -> Response<Body> {
    let body = json!({ "code": code, "message": message }).to_string();
    respond(status, HeaderValue::from_static("application/json"), body.into())
}

fn handshake_refused(fault: handshake::Fault) -> Response<Body> {
    let (status, headers, message) = fault.response_parts();
    let mut response = error(status, 3, &message);
    response.headers_mut().extend(headers);
    response
}

/// A response with a body.
pub(crate) fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// The response that agrees to a WebSocket.
pub(crate) fn switching(accept: &handshake::Accept) -> Response<Body> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(accept.headers());
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}
