//! gRPC by hand, to say what no generated client would.

use std::{convert::Infallible, net::SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::{Code, Status};

use super::{API_KEY, deadline};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An HTTP/2 connection to the gRPC port.
pub struct RawGrpc {
    grpc: SocketAddr,
    authorization: Option<String>,
    sender: SendRequest<Body>,
    _driver: JoinSet<()>,
}

/// What a call came to.
#[derive(Debug)]
pub struct RawAnswer {
    pub http: StatusCode,
    /// None where the answer was not gRPC's.
    pub status: Option<Status>,
    /// How many bytes of messages came before it.
    pub bytes: usize,
}

impl RawAnswer {
    /// The gRPC code, which must be there.
    #[track_caller]
    pub fn code(&self) -> Code {
        self.status.as_ref().unwrap_or_else(|| panic!("no gRPC status came: {self:?}")).code()
    }
}

impl RawGrpc {
    #[track_caller]
    pub fn connect(grpc: SocketAddr) -> impl Future<Output = Self> {
        deadline("the HTTP/2 connection", async move {
            let stream = TcpStream::connect(grpc).await.expect("the gRPC port is open");
            let (sender, connection) =
                handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("the port speaks HTTP/2");
            let mut driver = JoinSet::new();
            driver.spawn(async move { drop(connection.await) });
            Self { grpc, authorization: Some(format!("Bearer {API_KEY}")), sender, _driver: driver }
        })
    }

    /// Shows this instead of the API key that may do everything.
    pub fn authorized_by(self, authorization: Option<&str>) -> Self {
        Self { authorization: authorization.map(str::to_owned), ..self }
    }

    /// Makes a call whose body is sent as it stands.
    #[track_caller]
    pub fn call(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> impl Future<Output = RawAnswer> {
        let body = Full::new(body.into()).boxed_unsync();
        deadline("the answer to a raw call", self.answer(self.request(path, headers, body)))
    }

    /// The same with these bytes of a body that never ends.
    #[track_caller]
    pub fn call_endless(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static [u8],
    ) -> impl Future<Output = RawAnswer> + use<> {
        let (first, sender) = (Bytes::from_static(body), self.sender.clone());
        let frames = stream::unfold(Some(first), async |first| match first {
            Some(first) => Some((Ok::<_, Infallible>(Frame::data(first)), None)),
            None => std::future::pending().await,
        });
        let request = self.request(path, headers, BodyExt::boxed_unsync(StreamBody::new(frames)));
        deadline("the answer to an endless call", send(sender, request))
    }

    fn request(&self, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://{}{path}", self.grpc).parse().expect("a path makes a URI");
        let usual = [("content-type", "application/grpc"), ("te", "trailers")].into_iter();
        let authorization = self.authorization.as_deref().map(|value| ("authorization", value));
        for (name, value) in usual.chain(authorization).chain(headers.iter().copied()) {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header's value"));
        }
        request
    }

    fn answer(&self, request: Request<Body>) -> impl Future<Output = RawAnswer> + use<> {
        send(self.sender.clone(), request)
    }
}

async fn send(mut sender: SendRequest<Body>, request: Request<Body>) -> RawAnswer {
    sender.ready().await.expect("the connection lives");
    let response: Response<Incoming> = sender.send_request(request).await.expect("the call is answered");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the answer is whole");
    let trailers = body.trailers().and_then(Status::from_header_map);
    let status = Status::from_header_map(&head.headers).or(trailers);
    RawAnswer { http: head.status, status, bytes: body.to_bytes().len() }
}

/// A message as gRPC frames it, not compressed or said to be.
pub fn grpc_frame(is_compressed: bool, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(is_compressed.into());
    frame.put_u32(u32::try_from(message.len()).expect("a message is below 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}
