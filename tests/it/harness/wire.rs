//! TCP connections on which a test writes every byte itself: HTTP/1.1 and frames of RFC 6455.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{deadline, http::reset};

/// The sample key of RFC 6455, section 1.3, and what a server accepts it with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The headers that make a GET a handshake of a WebSocket.
pub const HANDSHAKE: [(&str, &str); 4] =
    [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", KEY)];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A connection to a server.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    unread: BytesMut,
}

/// An answer to an HTTP request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Answer {
    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireFrame {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    pub payload: Bytes,
}

impl WireFrame {
    pub fn text(text: &str) -> Self {
        Self { first: 0x81, payload: Bytes::copy_from_slice(text.as_bytes()) }
    }

    pub fn pong(payload: &[u8]) -> Self {
        Self { first: 0x8a, payload: Bytes::copy_from_slice(payload) }
    }

    /// The code of a close frame that has one.
    pub fn close_code(&self) -> Option<u16> {
        (self.first == 0x88 && self.payload.len() >= 2).then(|| self.payload.clone().get_u16())
    }
}

/// A client's frame, masked. `first`: FIN, the reserved bits and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = announced(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a client's frame with so many bytes.
pub fn announced(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(medium)) => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(medium.to_be_bytes());
        }
        (_, Err(_)) => {
            bytes.push(0x80 | 0x7f);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// A request with a body as long as it says.
pub fn http_request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = request_head(method, target, headers, body.len());
    request.extend(body);
    request
}

/// The head of a request whose body has so many bytes.
pub fn request_head(method: &str, target: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let headers: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let length = if length > 0 || method == "POST" { format!("content-length: {length}\r\n") } else { String::new() };
    format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n{length}{headers}\r\n").into_bytes()
}

/// One request on a connection of its own.
#[track_caller]
pub fn ask(address: SocketAddr, method: &str, target: &str, body: impl AsRef<[u8]>) -> impl Future<Output = Answer> {
    ask_with(address, method, target, &[], body)
}

/// The same with headers.
#[track_caller]
pub fn ask_with(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> impl Future<Output = Answer> {
    let request = http_request(method, target, headers, body.as_ref());
    deadline("the answer to a request", async move {
        let mut wire = Wire::open(address).await;
        wire.send(request).await;
        wire.read_answer().await.expect("an answer comes before the end")
    })
}

impl Wire {
    #[track_caller]
    pub fn open(address: SocketAddr) -> impl Future<Output = Self> {
        deadline("a TCP connection", async move {
            let stream = TcpStream::connect(address).await.expect("the port is open");
            stream.set_nodelay(true).expect("an option of TCP");
            Self { stream, unread: BytesMut::new() }
        })
    }

    /// The same on a line that carries little at a time, so that nearly all that is sent waits with the sender.
    #[track_caller]
    pub fn narrow(address: SocketAddr) -> impl Future<Output = Self> {
        deadline("a TCP connection", async move {
            let socket = TcpSocket::new_v4().expect("a socket");
            SockRef::from(&socket).set_tcp_mss(536).expect("an option of TCP");
            socket.set_recv_buffer_size(4_096).expect("an option of TCP");
            Self { stream: socket.connect(address).await.expect("the port is open"), unread: BytesMut::new() }
        })
    }

    /// Opens a WebSocket.
    pub async fn websocket(address: SocketAddr, target: &str) -> Self {
        let mut wire = Self::open(address).await;
        wire.send(http_request("GET", target, &HANDSHAKE, b"")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 101, "{}", answer.text());
        wire
    }

    /// Sends bytes; where the connection has ended, they go nowhere.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        // Reading will tell of the end.
        deadline("room to send in", async move { drop(self.stream.write_all(bytes.as_ref()).await) })
    }

    /// Sends for as long as the server reads: how many bytes it took before nothing moved for `patience`, or the connection ended.
    pub async fn send_while_read(&mut self, bytes: &[u8], most: usize, patience: Duration) -> usize {
        let mut sent = 0;
        while sent < most {
            match tokio::time::timeout(patience, self.stream.write(bytes)).await {
                Ok(Ok(written)) => sent += written,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        sent
    }

    /// The answer to a request.
    #[track_caller]
    pub fn answer(&mut self) -> impl Future<Output = Answer> {
        deadline("an HTTP answer", async { self.read_answer().await.expect("an answer comes before the end") })
    }

    /// The answer, if it comes in this time.
    pub async fn answer_within(&mut self, duration: Duration) -> Option<Answer> {
        tokio::time::timeout(duration, self.read_answer()).await.ok().flatten()
    }

    /// The next frame; None at the end of the stream.
    #[track_caller]
    pub fn frame(&mut self) -> impl Future<Output = Option<WireFrame>> {
        deadline("a frame or the end", self.read_frame())
    }

    /// The same, if it comes in this time.
    pub async fn frame_within(&mut self, duration: Duration) -> Option<Option<WireFrame>> {
        tokio::time::timeout(duration, self.read_frame()).await.ok()
    }

    /// Waits for the end of the connection, whatever comes before.
    #[track_caller]
    pub fn ended(&mut self) -> impl Future<Output = ()> {
        deadline("the end of a connection", self.read_to_end())
    }

    /// Whether the connection ends in this time, whatever comes before.
    pub async fn ends_within(&mut self, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.read_to_end()).await.is_ok()
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        reset(self.stream);
    }

    async fn read_to_end(&mut self) {
        while self.fill().await {
            self.unread.clear();
        }
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..))
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break self.unread.split_to(end + 4);
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8(head.to_vec()).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let status = status.parse().expect("a status is a number");
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let mut answer = Answer { status, headers, body: Bytes::new() };
        answer.body = self.read_body(&answer).await?;
        Some(answer)
    }

    async fn read_body(&mut self, answer: &Answer) -> Option<Bytes> {
        if matches!(answer.status, 100..200 | 204 | 304) {
            return Some(Bytes::new());
        }
        if let Some(length) = answer.header("content-length") {
            return self.read_exactly(length.parse().expect("a length is a number")).await;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            return self.read_chunks().await;
        }
        while self.fill().await {}
        Some(self.unread.split().freeze())
    }

    async fn read_chunks(&mut self) -> Option<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let end = loop {
                match self.unread.windows(2).position(|bytes| bytes == b"\r\n") {
                    Some(end) => break end,
                    None if !self.fill().await => return None,
                    None => {}
                }
            };
            let line = self.read_exactly(end + 2).await?;
            let length = std::str::from_utf8(&line[..end]).expect("a chunk's length is text");
            let length = usize::from_str_radix(length, 16).expect("a chunk's length is a number");
            body.extend(self.read_exactly(length).await?);
            self.read_exactly(2).await?;
            if length == 0 {
                return Some(body.freeze());
            }
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Option<Bytes> {
        while self.unread.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.unread.split_to(length).freeze())
    }

    async fn read_frame(&mut self) -> Option<WireFrame> {
        let head = self.read_exactly(2).await?;
        let (first, second) = (head[0], head[1]);
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let length = match second {
            126 => self.read_exactly(2).await?.get_u16().into(),
            127 => self.read_exactly(8).await?.get_u64(),
            short => short.into(),
        };
        let payload = self.read_exactly(usize::try_from(length).expect("it fits into memory")).await?;
        Some(WireFrame { first, payload })
    }
}
