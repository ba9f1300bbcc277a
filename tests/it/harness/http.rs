//! HTTP/1.1 as a device speaks it, on TCP sockets of its own making.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{Connection, SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::deadline;

/// Why a device was not let in.
#[derive(Debug)]
pub enum ConnectError {
    /// The server answered the handshake with this.
    Http { status: StatusCode, headers: HeaderMap, body: String },
    /// The server sent `CONNECT_ERROR`.
    Refused { message: String },
    /// The connection ended first, or could not be made.
    Closed,
    /// Nothing came in time.
    Timeout,
}

impl From<io::Error> for ConnectError {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl From<hyper::Error> for ConnectError {
    fn from(_: hyper::Error) -> Self {
        Self::Closed
    }
}

impl ConnectError {
    /// What a response other than the expected one says.
    pub async fn from_response(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        match body.collect().await {
            Ok(body) => Self::from_parts(head, &body.to_bytes()),
            Err(error) => error.into(),
        }
    }

    /// The same of a response that was read whole.
    pub fn from_parts(head: http::response::Parts, body: &[u8]) -> Self {
        Self::Http { status: head.status, headers: head.headers, body: String::from_utf8_lossy(body).into_owned() }
    }
}

/// Whom to call, from where, and what every request carries.
#[derive(Clone, Debug)]
pub struct Caller {
    pub address: SocketAddr,
    pub local_address: Option<IpAddr>,
    pub receive_buffer: Option<u32>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Caller {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, local_address: None, receive_buffer: None, headers: Vec::new() }
    }

    pub async fn open_tcp(&self) -> io::Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(address) = self.local_address {
            socket.bind((address, 0).into())?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub fn request(&self, method: Method, target: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().expect("a request target");
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        let host = HeaderValue::from_str(&self.address.to_string()).expect("an address fits a header");
        request.headers_mut().entry(HOST).or_insert(host);
        request
    }
}

/// Ends a TCP connection with RST instead of FIN.
pub fn reset(stream: TcpStream) {
    // Where the peer was faster there is nothing left to reset.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// One request after the other on one connection, which is made anew when it has ended.
pub struct HttpClient {
    caller: Caller,
    abort: CancellationToken,
    sender: Option<SendRequest<Full<Bytes>>>,
    drivers: JoinSet<()>,
}

impl HttpClient {
    /// `abort` resets its connections.
    pub fn new(caller: Caller, abort: CancellationToken) -> Self {
        Self { caller, abort, sender: None, drivers: JoinSet::new() }
    }

    pub async fn request(&mut self, method: Method, target: &str, body: Bytes) -> Result<Response<Bytes>, BoxedError> {
        let request = self.caller.request(method, target, body);
        let response = self.sender().await?.send_request(request).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    /// Waits until the connections have ended.
    pub async fn ended(mut self) {
        drop(self.sender);
        while self.drivers.join_next().await.is_some() {}
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, BoxedError> {
        let is_usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_usable {
            let (sender, connection) = handshake(TokioIo::new(self.caller.open_tcp().await?)).await?;
            self.drivers.spawn(drive(connection, self.abort.clone()));
            self.sender = Some(sender);
        }
        Ok(self.sender.as_mut().expect("it was just made"))
    }
}

/// What ended a request; only its causes are ever looked at.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

async fn drive(mut connection: Connection<TokioIo<TcpStream>, Full<Bytes>>, abort: CancellationToken) {
    tokio::select! {
        // An error reaches the request that it concerns.
        _ = &mut connection => {}
        () = abort.cancelled() => reset(connection.into_parts().io.into_inner()),
    }
}

/// Sends bytes as they are and answers what came back until the server closed or reset the connection.
#[track_caller]
pub fn raw_http(address: SocketAddr, request: impl AsRef<[u8]>) -> impl Future<Output = Bytes> {
    deadline("the end of the connection", async move {
        let mut stream = TcpStream::connect(address).await.expect("the port is open");
        let mut answer = Vec::new();
        // A server may close before it has read all that is wrong with a request; what it said counts.
        let _ = stream.write_all(request.as_ref()).await;
        let _ = stream.read_to_end(&mut answer).await;
        answer.into()
    })
}
