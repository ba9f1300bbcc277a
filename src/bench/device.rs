//! A device that costs next to nothing: a WebSocket, no buffer while nothing comes, and no JSON parser.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
};

use super::frame;

/// A connected device. What comes lies in its socket until it is read.
pub struct Device {
    stream: TcpStream,
    partial: Vec<u8>,
}

/// Where a device calls from, how, and with how large a receive buffer.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// The server's name in the request; none: its address.
    pub host: Option<&'a str>,
    /// The address that the device has. All of 127.0.0.0/8 is one's own. None: the system's choice.
    pub source: Option<Ipv4Addr>,
    /// Of the socket, in bytes. None: the system's choice.
    pub receive_buffer: Option<u32>,
    /// The protocol.
    pub speech: Speech,
    /// The positions (JSON) that it resumes from, over Socket.IO. None: it does not resume.
    pub resume: Option<&'a str>,
}

/// What a device speaks over its WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speech {
    /// Socket.IO 4 (Engine.IO 4), at its usual path.
    #[default]
    SocketIo,
    /// Nothing: the payload is the frame. At the path `/plain`.
    Plain,
}

/// What comes over Socket.IO, as far as a device minds it.
enum Packet<'a> {
    Open,
    Connected,
    Refused(&'a [u8]),
    /// The event's JSON array.
    Event(&'a [u8]),
    Over,
}

impl<'a> Packet<'a> {
    fn of(payload: &'a [u8]) -> Option<Self> {
        match payload {
            [b'4', b'2', event @ ..] => Some(Self::Event(event)),
            [b'4', b'0', ..] => Some(Self::Connected),
            [b'4', b'4', why @ ..] => Some(Self::Refused(why)),
            [b'4', b'1', ..] | [b'1', ..] => Some(Self::Over),
            [b'0', ..] => Some(Self::Open),
            _ => None,
        }
    }
}

const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                          Chrome/138.0.0.0 Safari/537.36";
/// What is read at one time, into the stack.
const BLOCK: usize = 16 << 10;

impl Speech {
    fn target(self) -> &'static str {
        match self {
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Plain => "/plain",
        }
    }
}

impl Device {
    /// Connects, says who it is, and waits until it is let in; over plain WebSocket nobody tells.
    pub async fn connect(server: SocketAddr, token: &str, options: Options<'_>) -> io::Result<Self> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = options.source {
            socket.bind((source, 0).into())?;
        }
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let mut device = Self { stream, partial: Vec::new() };
        let host = options.host.map_or_else(|| server.to_string(), str::to_owned);
        let already = device.upgrade(&host, options.speech).await?;
        match options.speech {
            Speech::Plain => {
                let introduction = format!(r#"{{"type":"auth","access_token":"{token}","data":{{}}}}"#);
                device.say(&introduction).await?;
                device.take(&already, &mut |_| ())?;
            }
            Speech::SocketIo => device.enter(token, options.resume, &already).await?,
        }
        Ok(device)
    }

    /// Gives what came behind the answer.
    async fn upgrade(&mut self, host: &str, speech: Speech) -> io::Result<Vec<u8>> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nUser-Agent: {USER_AGENT}\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
             Accept-Language: en-GB,en;q=0.9\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            speech.target()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let end = loop {
            if self.stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if answer.starts_with(b"HTTP/1.1 101 ") {
            return Ok(answer.split_off(end));
        }
        let answer = String::from_utf8_lossy(&answer);
        Err(io::Error::other(format!("answered {:?}", answer.lines().next().unwrap_or_default())))
    }

    /// From the opened transport to the accepted CONNECT.
    async fn enter(&mut self, token: &str, resume: Option<&str>, already: &[u8]) -> io::Result<()> {
        let mut entry = Entry::default();
        self.take(already, &mut |packet| entry.note(&packet))?;
        let mut is_asked = false;
        loop {
            if let Some(why) = entry.refused {
                return Err(io::Error::other(format!("refused: {why}")));
            }
            if entry.is_connected {
                return Ok(());
            }
            if entry.is_open && !is_asked {
                is_asked = true;
                let resume = resume.map(|positions| format!(r#","resume":{positions}"#)).unwrap_or_default();
                self.say(&format!(r#"40{{"token":"{token}"{resume}}}"#)).await?;
            }
            self.read(&mut |packet| entry.note(&packet)).await?;
        }
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(&frame::masked(frame::TEXT, text.as_bytes())).await
    }

    /// Reads until the connection ends, and gives each event's packet, the JSON array, to `on_event`. Says how it ended.
    pub async fn run(mut self, mut on_event: impl FnMut(&[u8])) -> io::Error {
        let mut on_packet = |packet: Packet<'_>| {
            if let Packet::Event(event) = packet {
                on_event(event);
            }
        };
        loop {
            if let Err(error) = self.read(&mut on_packet).await {
                return error;
            }
        }
    }

    /// Waits until something comes, and takes it.
    async fn read(&mut self, on_packet: &mut impl FnMut(Packet<'_>)) -> io::Result<()> {
        poll_fn(|context| self.poll_read(context, on_packet)).await
    }

    /// The block lies on the stack of this call and nowhere else, so that a device that waits has none. A read that does not fill
    /// it is known to be the last for now, which saves the one that would find nothing.
    fn poll_read(&mut self, context: &mut Context<'_>, on_packet: &mut impl FnMut(Packet<'_>)) -> Poll<io::Result<()>> {
        let mut block = [MaybeUninit::uninit(); BLOCK];
        let mut block = ReadBuf::uninit(&mut block);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut block))?;
        let taken = match block.filled() {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => self.take(bytes, on_packet),
        };
        Poll::Ready(taken)
    }

    fn take(&mut self, bytes: &[u8], on_packet: &mut impl FnMut(Packet<'_>)) -> io::Result<()> {
        let mut joined = std::mem::take(&mut self.partial);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend(bytes);
            &joined
        };
        while let Some(frame) = frame::first(rest) {
            match (frame.opcode, frame.payload) {
                (frame::CLOSE, why) => return Err(closed(why)),
                (frame::PING, data) => drop(self.stream.try_write(&frame::masked(frame::PONG, data))?),
                (_, b"2") => drop(self.stream.try_write(&frame::masked(frame::TEXT, b"3"))?),
                (_, payload) => match Packet::of(payload) {
                    Some(Packet::Over) => return Err(io::Error::other("sent away")),
                    Some(packet) => on_packet(packet),
                    None => {}
                },
            }
            rest = &rest[frame.length..];
        }
        if !rest.is_empty() {
            self.partial = rest.to_vec();
        }
        Ok(())
    }
}

/// How far a device has come in.
#[derive(Default)]
struct Entry {
    is_open: bool,
    is_connected: bool,
    refused: Option<String>,
}

impl Entry {
    fn note(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Open => self.is_open = true,
            Packet::Connected => self.is_connected = true,
            Packet::Refused(why) => self.refused = Some(String::from_utf8_lossy(why).into_owned()),
            Packet::Event(_) | Packet::Over => {}
        }
    }
}

/// A close frame's payload begins with a code, if it has one.
fn closed(why: &[u8]) -> io::Error {
    match why {
        [high, low, reason @ ..] => io::Error::other(format!(
            "closed with {} {}",
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason)
        )),
        _ => io::Error::other("closed without a code"),
    }
}
