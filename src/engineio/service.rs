//! The engine as a service of tower and of hyper.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use engineioxide_core::ProtocolVersion;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::Empty;
use hyper::service::Service as HyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service as TowerService;
use transport::{Handle, Stream, websocket::Task};

use crate::{
    config::EngineIoConfig,
    engine::Engine,
    frame::{packet, polled},
    handler::EngineIoHandler,
    payload,
    poll::poll,
    post::post,
    probe, reply,
    reply::{RequestError, respond},
    request::{Kind, QueryParams},
    response::{ResponseBody, ResponseFuture},
    session::{Carrier, Opening, Session},
    websocket,
};

/// Answers requests under its path, and leaves others to an inner service.
pub struct EngineIoService<H: EngineIoHandler, S = NotFoundService> {
    inner: S,
    engine: Engine,
    handler: Arc<H>,
}

/// Why a stream cannot become a session.
#[derive(Debug, thiserror::Error)]
#[error("the request asks for no WebSocket of Engine.IO")]
pub struct NoWebSocket;

impl<H: EngineIoHandler> EngineIoService<H> {
    /// A service with the default configuration.
    pub fn new(handler: Arc<H>) -> Self {
        Self::with_config(handler, EngineIoConfig::default())
    }

    /// A service with this configuration.
    pub fn with_config(handler: Arc<H>, config: EngineIoConfig) -> Self {
        Self::with_config_inner(NotFoundService, handler, config)
    }
}

impl<S: Clone, H: EngineIoHandler> EngineIoService<H, S> {
    /// A service with the default configuration and an inner service.
    pub fn with_inner(inner: S, handler: Arc<H>) -> Self {
        Self::with_config_inner(inner, handler, EngineIoConfig::default())
    }

    /// A service with this configuration and an inner service.
    pub fn with_config_inner(inner: S, handler: Arc<H>, config: EngineIoConfig) -> Self {
        Self { inner, engine: Engine::new(handler.clone(), config), handler }
    }

    /// Makes services for connections.
    pub fn into_make_service(self) -> MakeEngineIoService<H, S> {
        MakeEngineIoService::new(self)
    }
}

impl<H: EngineIoHandler, S> EngineIoService<H, S> {
    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn is_mine<B>(&self, request: &Request<B>) -> bool {
        let path = &*self.engine.config().req_path;
        let rest = request.uri().path().strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path.ends_with('/'))
    }

    fn open_on<T: AsyncRead + AsyncWrite + Send + 'static>(
        &self,
        stream: T,
        request: Request<()>,
    ) -> Result<(), NoWebSocket> {
        let params = QueryParams::read(&request, self.engine.config()).map_err(|_| NoWebSocket)?;
        let Kind::OpenWebSocket(protocol) = params.kind else {
            return Err(NoWebSocket);
        };
        let stream = (Box::new(stream) as Box<dyn Any>).downcast::<Stream>().map_or_else(
            |other| other.downcast::<T>().map(|other| Stream::other(*other, self.engine.flushers())),
            |stream| Ok(*stream),
        );
        let Ok(stream) = stream else { return Err(NoWebSocket) };
        let (engine, mut extensions) = (self.engine.clone(), request.into_parts().0.extensions);
        let opening = async move { Some(websocket::open(&engine, protocol, stream, Bytes::new(), &mut extensions)) };
        self.engine.spawn(Task::new(opening));
        Ok(())
    }
}

async fn answer<B>(engine: Engine, request: Request<B>) -> Response<reply::Body>
where
    B: HttpBody + Send + Unpin + 'static,
    B::Error: fmt::Debug,
{
    dispatch(engine, request).await.unwrap_or_else(RequestError::response)
}

async fn dispatch<B>(engine: Engine, request: Request<B>) -> Result<Response<reply::Body>, RequestError>
where
    B: HttpBody + Send + Unpin + 'static,
    B::Error: fmt::Debug,
{
    let params = QueryParams::read(&request, engine.config())?;
    let session = |sid| {
        let session = engine.session(sid).ok_or(RequestError::UnknownSession)?;
        let fits = params.protocol.is_none_or(|protocol| protocol == session.protocol());
        if fits { Ok(session) } else { Err(RequestError::BadRequest) }
    };
    match params.kind {
        Kind::OpenPolling(protocol) => Ok(open(&engine, protocol, params.supports_binary, request)),
        Kind::OpenWebSocket(protocol) => {
            let opened = engine.clone();
            websocket::agree(&engine, request, async move |stream, read, mut extensions| {
                Some(websocket::open(&opened, protocol, stream, read, &mut extensions))
            })
        }
        Kind::Poll(sid) => {
            let session = session(sid)?;
            is_polling(&session)?;
            let reports = request.extensions().get::<Handle>().is_some();
            Ok(poll(session, reports).await)
        }
        Kind::Post(sid) => {
            let session = session(sid)?;
            is_polling(&session)?;
            Ok(post(session, request).await)
        }
        Kind::Upgrade(sid) => probe::upgrade(&engine, session(sid)?, request),
    }
}

fn is_polling(session: &Session) -> Result<(), RequestError> {
    match session.lock().carrier {
        Carrier::Polling(_) => Ok(()),
        Carrier::WebSocket(_) => Err(RequestError::BadRequest),
    }
}

/// Opens a session that polls.
fn open<B>(
    engine: &Engine,
    protocol: ProtocolVersion,
    supports_binary: bool,
    request: Request<B>,
) -> Response<reply::Body> {
    let opening = Opening { protocol, supports_binary, stream: None };
    let session = Session::open(engine.host(), opening, &mut request.into_parts().0.extensions);
    engine.admit(session.clone());
    let open = packet(&websocket::open_packet(&session));
    let (content_type, body) = payload::encode(protocol, supports_binary, &[polled(&open)]);
    if protocol == ProtocolVersion::V3 {
        session.link();
    }
    respond(StatusCode::OK, HeaderValue::from_static(content_type), body)
}

impl<S: Clone, H: EngineIoHandler> Clone for EngineIoService<H, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), engine: self.engine.clone(), handler: self.handler.clone() }
    }
}

impl<H: EngineIoHandler, S> fmt::Debug for EngineIoService<H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineIoService").field("handler", &self.handler).finish_non_exhaustive()
    }
}

impl<H, B, R, S> TowerService<Request<B>> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    B: HttpBody + Send + Unpin + fmt::Debug + 'static,
    B::Error: fmt::Debug,
    B::Data: Send,
    R: HttpBody + Send + 'static,
    S: TowerService<Request<B>, Response = Response<R>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.is_mine(&request) {
            ResponseFuture::Engine { answer: Box::pin(answer(self.engine.clone(), request)) }
        } else {
            ResponseFuture::Inner { answer: self.inner.call(request) }
        }
    }
}

impl<H, B, R, S> HyperService<Request<B>> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    B: HttpBody + Send + Unpin + fmt::Debug + 'static,
    B::Error: fmt::Debug,
    B::Data: Send,
    R: HttpBody + Send + 'static,
    S: HyperService<Request<B>, Response = Response<R>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn call(&self, request: Request<B>) -> Self::Future {
        if self.is_mine(&request) {
            ResponseFuture::Engine { answer: Box::pin(answer(self.engine.clone(), request)) }
        } else {
            ResponseFuture::Inner { answer: self.inner.call(request) }
        }
    }
}

/// A stream whose handshake is done, with the request of that: it becomes a session.
impl<T, H, S> TowerService<(T, Request<()>)> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = ();
    type Error = NoWebSocket;
    type Future = Ready<Result<(), NoWebSocket>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoWebSocket>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (stream, request): (T, Request<()>)) -> Self::Future {
        ready(self.open_on(stream, request))
    }
}

impl<T, H, S> HyperService<(T, Request<()>)> for EngineIoService<H, S>
where
    H: EngineIoHandler,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = ();
    type Error = NoWebSocket;
    type Future = Ready<Result<(), NoWebSocket>>;

    fn call(&self, (stream, request): (T, Request<()>)) -> Self::Future {
        ready(self.open_on(stream, request))
    }
}

/// Makes a service for each connection; all share one engine.
pub struct MakeEngineIoService<H: EngineIoHandler, S>(EngineIoService<H, S>);

impl<H: EngineIoHandler, S> MakeEngineIoService<H, S> {
    /// Makes clones of this service.
    pub fn new(service: EngineIoService<H, S>) -> Self {
        Self(service)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        self.0.engine()
    }
}

impl<H: EngineIoHandler, S: Clone, T> TowerService<T> for MakeEngineIoService<H, S> {
    type Response = EngineIoService<H, S>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: T) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

/// Answers 404.
#[derive(Clone, Debug)]
pub struct NotFoundService;

type NotFound = Ready<Result<Response<ResponseBody<Empty<Bytes>>>, Infallible>>;

fn not_found() -> NotFound {
    let mut response = Response::new(ResponseBody::Inner { body: Empty::new() });
    *response.status_mut() = StatusCode::NOT_FOUND;
    ready(Ok(response))
}

impl<B> TowerService<Request<B>> for NotFoundService {
    type Response = Response<ResponseBody<Empty<Bytes>>>;
    type Error = Infallible;
    type Future = NotFound;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> NotFound {
        not_found()
    }
}

impl<B> HyperService<Request<B>> for NotFoundService {
    type Response = Response<ResponseBody<Empty<Bytes>>>;
    type Error = Infallible;
    type Future = NotFound;

    fn call(&self, _: Request<B>) -> NotFound {
        not_found()
    }
}
