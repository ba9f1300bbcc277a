use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::{
    accept::{Accepted, Acceptor},
    address::{Proxies, TcpPeer},
    body::Body,
    compress::PlainBytes,
    strangers::{Stranger, Strangers},
    stream::{AnswerFate, Flushers, Handle, MAX_HEAD, Spawn, Stream},
    unfinished::{UnderWay, Unfinished},
};

/// The time for a request's head, and the time that a connection may be idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a request may still take once the server is done.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// What serving HTTP needs besides a listener and a service.
#[derive(Clone)]
pub struct Serving {
    /// Runs a task per connection.
    pub spawn: Spawn,
    /// Write the queues of upgraded streams.
    pub flushers: Flushers,
    /// Counts connections without a token.
    pub strangers: Strangers,
    /// Counts what has not arrived whole.
    pub incoming: Unfinished,
    /// Counts answers that have not left.
    pub answers: Unfinished,
    /// Their connections are of clients whose addresses they name.
    pub proxies: Proxies,
    /// Connections end after the request that they are at once this is cancelled.
    pub done: CancellationToken,
}

/// What a request needs to become a WebSocket.
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

    /// Waits until the response 101 has left, and gives the stream with what was read of it already. None: the peer has left before,
    /// or the request asked for no upgrade. `flushers`: for a stream that [`serve`] has not accepted.
    pub async fn stream(self, flushers: &Flushers) -> Option<(Stream, Bytes)> {
        match self.0?.await.ok()?.downcast::<TokioIo<Stream>>() {
            // hyper's buffer is larger than what is in it.
            Ok(parts) => Some((parts.io.into_inner().upgraded(), Bytes::copy_from_slice(&parts.read_buf))),
            Err(upgraded) => Some((Stream::other(TokioIo::new(upgraded), flushers), Bytes::new())),
        }
    }
}

/// An extension of a response: has the fate of the answer reported.
#[derive(Clone)]
pub struct ReportFate(pub Arc<dyn AnswerFate>);

/// Serves HTTP/1.1 with upgrades until `serving.done`. Each request carries a [`Handle`], a [`TcpPeer`] and an `Arc<Stranger>` in its
/// extensions.
pub async fn serve<S, B>(mut acceptor: Acceptor, service: S, serving: Serving)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let accepted = tokio::select! {
            () = serving.done.cancelled() => return,
            accepted = acceptor.accept() => accepted,
        };
        (serving.spawn)(Box::pin(serve_connection(accepted, service.clone(), serving.clone())));
    }
}

async fn serve_connection<S, B>(accepted: Accepted, service: S, serving: Serving)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !has_begun(&accepted, &serving.done).await {
        return;
    }
    let Accepted { stream, peer, place } = accepted;
    let stream = Stream::new(stream, &serving.flushers);
    let handle = stream.handle();
    let (abort, displaced) = (handle.clone(), handle.clone());
    place.on_displaced(move || displaced.abort());
    let stranger = serving.strangers.enter(serving.address(peer), move || abort.abort()).at(place.handle());
    let stranger = Arc::new(stranger);
    let under_way = UnderWay::new(serving.incoming.clone(), serving.answers.clone(), stranger.clone(), handle.clone());
    let (counts, mut part) = (under_way.clone(), None);
    let stream = stream.holding((place, stranger.clone())).counted(move |bytes| counts.hold(&mut part, bytes));
    let respond = service_fn(move |request| {
        let request = detach(request, under_way.clone());
        answer(request, &service, &handle, peer, &stranger, &under_way)
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
        () = serving.done.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(FINISH_WITHIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer.address = %peer, "a connection ended early");
    }
}

/// Waits for the first byte. False: it did not come in time, or the connection had to make room for another.
async fn has_begun(accepted: &Accepted, done: &CancellationToken) -> bool {
    let displaced = Arc::new(Notify::new());
    let notify = displaced.clone();
    accepted.place.on_displaced(move || notify.notify_one());
    tokio::select! {
        begun = accepted.has_begun() => begun,
        () = displaced.notified() => false,
        () = done.cancelled() => false,
    }
}

impl Serving {
    /// The address of a connection's client, unless a trusted proxy has yet to name it.
    fn address(&self, peer: SocketAddr) -> Option<IpAddr> {
        Some(peer.ip()).filter(|address| !self.proxies.trusts(*address))
    }
}

fn answer<S, B>(
    mut request: Request<Body>,
    service: &S,
    handle: &Handle,
    peer: SocketAddr,
    stranger: &Arc<Stranger>,
    under_way: &UnderWay,
) -> impl Future<Output = Result<Response<Reported<B>>, Infallible>> + use<S, B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: HttpBody,
{
    handle.head_has_arrived();
    request.extensions_mut().insert(handle.clone());
    request.extensions_mut().insert(TcpPeer(peer));
    request.extensions_mut().insert(stranger.clone());
    let mut answering = Box::pin(service.clone().oneshot(request));
    // hyper may drop the call before it polls it, if the peer sent the request and left. Whoever answers has to see that.
    let begun = answering.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let (handle, under_way) = (handle.clone(), under_way.clone());
    async move {
        let mut response = match begun {
            Poll::Ready(response) => response?,
            Poll::Pending => answering.await?,
        };
        let fate = response.extensions_mut().remove::<ReportFate>().map(|ReportFate(fate)| fate);
        // Answers with a fate of their own, those to polls, count as queued.
        let fate = fate.or_else(|| under_way.answer(size(&response)));
        Ok(response.map(|body| Reported { body, fate: Fate { fate, handle } }))
    }
}

/// How many bytes an answer keeps in memory.
fn size<B: HttpBody>(response: &Response<B>) -> usize {
    if response.body().is_end_stream() {
        return 0;
    }
    let plain = response.extensions().get().map(|PlainBytes(bytes)| *bytes);
    usize::try_from(plain.unwrap_or_else(|| response.body().size_hint().lower())).unwrap_or(usize::MAX)
}

/// Copies a request's headers and URI. As hyper gives them, they are slices of its read buffer and keep all of it alive for as long as
/// they live, which for a WebSocket is its whole life.
fn detach(request: Request<Incoming>, under_way: UnderWay) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let headers = parts.headers.iter().map(|(name, value)| (detached_name(name), detached_value(value)));
    let headers: HeaderMap = headers.collect();
    parts.headers = headers;
    if let Ok(uri) = parts.uri.to_string().parse::<Uri>() {
        parts.uri = uri;
    }
    Request::from_parts(parts, Body::new(body, Some(under_way)))
}

fn detached_name(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

fn detached_value(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

pin_project! {
    /// A response's body that hands its fate to the stream together with its last byte.
    struct Reported<B> {
        #[pin]
        body: B,
        fate: Fate,
    }
}

struct Fate {
    fate: Option<Arc<dyn AnswerFate>>,
    handle: Handle,
}

impl Fate {
    /// The server has the whole body now, and writes it before it flushes the next time.
    fn handed_over(&mut self) {
        if let Some(fate) = self.fate.take() {
            self.handle.await_flush(fate);
        }
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        if let Some(fate) = self.fate.take() {
            fate.lost();
        }
    }
}

impl<B: HttpBody> HttpBody for Reported<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => this.fate.handed_over(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
