//! A device that costs next to nothing: a WebSocket, no buffer while nothing comes, and no JSON parser.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::frame;

/// A connected device. What comes lies in its socket until it is read.
pub struct Device {
    stream: TcpStream,
    partial: Vec<u8>,
}

/// Where a device calls from, and with how large a receive buffer.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// All of 127.0.0.0/8 is one's own.
    pub source: Option<Ipv4Addr>,
    pub receive_buffer: Option<u32>,
    pub speech: Speech,
}

/// What a device speaks over its WebSocket.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Speech {
    #[default]
    SocketIo,
    /// Nothing: the payload is the frame.
    Plain,
}

impl Speech {
    fn target(self) -> &'static str {
        match self {
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Plain => "/plain",
        }
    }

    fn introduction(self, token: &str) -> String {
        match self {
            Self::SocketIo => format!(r#"40{{"token":"{token}"}}"#),
            Self::Plain => format!(r#"{{"type":"auth","access_token":"{token}","data":{{}}}}"#),
        }
    }
}

const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                          Chrome/138.0.0.0 Safari/537.36";

impl Device {
    /// Connects, says who it is, and waits for its welcome; of plain WebSocket there is none.
    pub async fn connect(server: SocketAddr, token: &str, options: Options) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = options.source {
            socket.bind((source, 0).into())?;
        }
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let mut device = Self { stream, partial: Vec::new() };
        device.upgrade(server, options.speech).await?;
        device.stream.write_all(&frame::masked(frame::TEXT, options.speech.introduction(token).as_bytes())).await?;
        let mut is_welcome = options.speech == Speech::Plain;
        while !is_welcome {
            device.stream.readable().await?;
            device.read(|_| is_welcome = true)?;
        }
        Ok(device)
    }

    async fn upgrade(&mut self, server: SocketAddr, speech: Speech) -> io::Result<()> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\n\
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
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
        self.take(&answer[end..], &mut |_| ())
    }

    /// Reads until the connection ends, and gives each event's packet, the JSON array, to `on_event`.
    pub async fn run(mut self, mut on_event: impl FnMut(&[u8])) {
        while self.stream.readable().await.is_ok() && self.read(&mut on_event).is_ok() {}
    }

    /// Reads what is there.
    fn read(&mut self, mut on_event: impl FnMut(&[u8])) -> io::Result<()> {
        let mut block = [0; 16 << 10];
        match self.stream.try_read(&mut block) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.take(&block[..length], &mut on_event),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, bytes: &[u8], on_event: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let mut joined = std::mem::take(&mut self.partial);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend(bytes);
            &joined
        };
        while let Some(frame) = frame::first(rest) {
            match (frame.opcode, frame.payload) {
                (frame::CLOSE, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (frame::PING, data) => drop(self.stream.try_write(&frame::masked(frame::PONG, data))?),
                (_, b"2") => drop(self.stream.try_write(&frame::masked(frame::TEXT, b"3"))?),
                (_, [b'4', b'2', event @ ..]) => on_event(event),
                _ => {}
            }
            rest = &rest[frame.length..];
        }
        if !rest.is_empty() {
            self.partial = rest.to_vec();
        }
        Ok(())
    }
}
