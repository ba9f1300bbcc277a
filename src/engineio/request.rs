use engineioxide_core::{ProtocolVersion, Sid, TransportType};
use http::{Method, Request, header};
use transport::websocket::handshake;

use crate::{config::EngineIoConfig, reply::RequestError};

/// What a request asks for, by its query ("Handshake" and "HTTP long-polling" in the protocol).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QueryParams {
    /// The version that it names, if it names a known one.
    pub(crate) protocol: Option<ProtocolVersion>,
    pub(crate) supports_binary: bool,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A session that begins by polling.
    OpenPolling(ProtocolVersion),
    /// A session that begins as a WebSocket.
    OpenWebSocket(ProtocolVersion),
    Poll(Sid),
    Post(Sid),
    Upgrade(Sid),
}

impl QueryParams {
    pub(crate) fn read<B>(request: &Request<B>, config: &EngineIoConfig) -> Result<Self, RequestError> {
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let transport: TransportType =
            parameter("transport").and_then(|name| name.parse().ok()).ok_or(RequestError::UnknownTransport)?;
        if !config.allowed_transport(transport) {
            return Err(RequestError::UnknownTransport);
        }
        let protocol: Option<ProtocolVersion> = parameter("EIO").and_then(|version| version.parse().ok());
        // Node's client sends `b64=1`, others `b64=true`.
        let supports_binary = parameter("b64").is_none();
        let sid = parameter("sid").filter(|sid| !sid.is_empty());
        let sid = sid.map(|sid| sid.parse::<Sid>().map_err(|_| RequestError::UnknownSession)).transpose()?;
        let is_websocket = transport == TransportType::Websocket;
        let kind = match (sid, request.method()) {
            (None, method) if method != Method::GET => return Err(RequestError::Method),
            (None, _) => match protocol {
                None => return Err(RequestError::UnknownVersion),
                Some(protocol) if is_websocket => Kind::OpenWebSocket(protocol),
                Some(protocol) => Kind::OpenPolling(protocol),
            },
            (Some(sid), &Method::GET) if is_websocket => Kind::Upgrade(sid),
            (Some(sid), &Method::GET) => Kind::Poll(sid),
            (Some(sid), &Method::POST) if !is_websocket => Kind::Post(sid),
            (Some(_), _) => return Err(RequestError::BadRequest),
        };
        Ok(Self { protocol, supports_binary, kind })
    }
}

/// Checks the handshake of a request for a WebSocket, and gives the headers of the response that agrees to it.
pub(crate) fn check_handshake<B>(request: &Request<B>) -> Result<handshake::Accept, RequestError> {
    handshake::check(request.method(), request.version(), request.headers()).map_err(RequestError::Handshake)
}

/// Whether the body of a POST is in the binary encoding.
pub(crate) fn is_binary<B>(request: &Request<B>) -> bool {
    request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/octet-stream")
}
