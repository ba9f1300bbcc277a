use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use hyper::{
    body::{Body, Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::{Acceptor, DeviceStream, flusher::Flushers};
use crate::lifecycle::Lifecycle;

/// A request line and headers beyond this are answered 431. Large enough for a token that is refused for its length.
const MAX_HEAD: usize = 64 * 1024;
/// How long a request's head may take; also how long a connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The address of the TCP peer, as an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub struct TcpPeer(pub SocketAddr);

/// What a request needs to become a WebSocket, and nothing else of it.
pub struct Upgrade(Option<OnUpgrade>);

impl Upgrade {
    /// Takes it out of a request's extensions.
    pub fn take(extensions: &mut Extensions) -> Self {
        Self(extensions.remove())
    }

    /// Puts it into another request's.
    pub fn put(self, extensions: &mut Extensions) {
        if let Some(upgrade) = self.0 {
            extensions.insert(upgrade);
        }
    }

    /// Waits until the response that agrees to it has left, and gives the stream with what was read of it already; nothing if
    /// the peer has left first, or never asked.
    pub async fn stream(self) -> Option<(DeviceStream, Vec<u8>)> {
        let parts = self.0?.await.ok()?.downcast::<TokioIo<DeviceStream>>().ok()?;
        Some((parts.io.into_inner(), parts.read_buf.to_vec()))
    }
}

/// Serves HTTP/1.1 with upgrades until `done`; then connections end after the request that they are at. Each request carries
/// a [`super::StreamHandle`] and a [`TcpPeer`] in its extensions.
pub async fn serve<S, B>(mut acceptor: Acceptor, service: S, lifecycle: Lifecycle, done: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let flushers = Flushers::start(&lifecycle, &done);
    loop {
        let (stream, peer) = tokio::select! {
            () = done.cancelled() => return,
            accepted = acceptor.accept() => accepted,
        };
        let stream = DeviceStream::new(stream, &flushers);
        lifecycle.spawn(serve_connection(stream, peer, service.clone(), done.clone()));
    }
}

async fn serve_connection<S, B>(stream: DeviceStream, peer: SocketAddr, service: S, done: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let handle = stream.handle();
    let respond = service_fn(move |request| {
        let mut request = detach(request);
        request.extensions_mut().insert(handle.clone());
        request.extensions_mut().insert(TcpPeer(peer));
        service.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), respond)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = done.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer.address = %peer, "a connection ended early");
    }
}

/// Copies a request's headers and URI. As hyper gives them, they are slices of its read buffer, and would keep all of it for
/// as long as anyone keeps them, which for a WebSocket is its whole life.
fn detach(request: Request<Incoming>) -> Request<Incoming> {
    let (mut parts, body) = request.into_parts();
    let headers = parts.headers.iter().map(|(name, value)| (detached_name(name), detached_value(value)));
    let headers: HeaderMap = headers.collect();
    parts.headers = headers;
    if let Ok(uri) = parts.uri.to_string().parse::<Uri>() {
        parts.uri = uri;
    }
    Request::from_parts(parts, body)
}

fn detached_name(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

fn detached_value(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}
