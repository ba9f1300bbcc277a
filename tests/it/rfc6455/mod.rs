//! RFC 6455 as the Autobahn suite groups it, on both edges: Socket.IO over WebSocket, and plain WebSocket.

mod framing;

mod control;

mod fragments;

mod utf8;

mod closing;

mod limits;

mod handshakes;

use std::time::Duration;

use crate::{
    harness::{TestServer, Wire, WireFrame, auth_message, frame, token},
    websocket::endpoint,
};

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
/// Frames with which a message begins, goes on and ends.
pub const TEXT_BEGINS: u8 = 0x01;
pub const BINARY_BEGINS: u8 = 0x02;
pub const GOES_ON: u8 = 0x00;
pub const ENDS: u8 = 0x80;

pub const PROTOCOL_ERROR: u16 = 1002;
pub const NOT_UTF8: u16 = 1007;
pub const TOO_LARGE: u16 = 1009;

/// The largest message that the servers here take.
pub const MAX: usize = 200_000;

/// Where devices speak WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Revision 3 of Engine.IO: its ping comes back with its data, which makes an echo for texts.
    SocketIo,
    /// `[[websocket]]`, which hears a token and ignores the rest.
    Plain,
}

pub const EDGES: [Edge; 2] = [Edge::SocketIo, Edge::Plain];

/// What a client sends, whole or byte by byte, and what has to come of it.
pub struct Case {
    pub name: String,
    pub sends: Vec<u8>,
    pub is_chopped: bool,
    pub expects: Expected,
}

#[derive(Clone, Debug)]
pub enum Expected {
    /// Nothing; the connection goes on.
    Nothing,
    /// These frames, and the connection goes on.
    Frames(Vec<WireFrame>),
    /// These frames, and a close frame with this code; then the end of the stream.
    Close(Vec<WireFrame>, u16),
}

impl Case {
    pub fn new(name: impl Into<String>, sends: impl Into<Vec<u8>>, expects: Expected) -> Self {
        Self { name: name.into(), sends: sends.into(), is_chopped: false, expects }
    }

    pub fn closes(name: impl Into<String>, sends: impl Into<Vec<u8>>, code: u16) -> Self {
        Self::new(name, sends, Expected::Close(Vec::new(), code))
    }

    pub fn is_ignored(name: impl Into<String>, sends: impl Into<Vec<u8>>) -> Self {
        Self::new(name, sends, Expected::Nothing)
    }

    /// The same byte by byte.
    pub fn chopped(self) -> Self {
        Self { name: format!("{}, byte by byte", self.name), is_chopped: true, ..self }
    }
}

/// A server with both edges.
pub async fn server() -> TestServer {
    TestServer::start_with(|config| {
        config.socketio.max_message = MAX;
        config.websocket.push(endpoint("/plain", &["e"]));
    })
    .await
}

impl Edge {
    pub fn target(self, user: &str) -> String {
        match self {
            Self::SocketIo => format!("/socket.io/?EIO=3&transport=websocket&token={}", token(user)),
            Self::Plain => "/plain".to_owned(),
        }
    }

    /// A WebSocket of an authenticated device, with nothing on its way.
    pub async fn open(self, server: &TestServer) -> Wire {
        let mut wire = Wire::websocket(server.clients(), &self.target("42")).await;
        match self {
            Self::SocketIo => {
                while !wire.frame().await.expect("a welcome").payload.starts_with(br#"42["connected","#) {}
            }
            Self::Plain => {
                wire.send(frame(TEXT, auth_message(&token("42")).as_bytes())).await;
                self.is_alive(&mut wire, "after its token").await;
            }
        }
        wire
    }

    /// A text message as the server may get it, and what it answers. The plain edge says nothing.
    pub fn echo(self, text: &[u8]) -> (Vec<u8>, Vec<WireFrame>) {
        let with = |kind: u8| [&[kind], text].concat();
        match self {
            Self::SocketIo => (with(b'2'), vec![WireFrame { first: TEXT, payload: with(b'3').into() }]),
            Self::Plain => (text.to_vec(), Vec::new()),
        }
    }

    /// Answers a ping, with nothing before.
    pub async fn is_alive(self, wire: &mut Wire, name: &str) {
        wire.send(frame(PING, b"alive?")).await;
        let answer = wire.frame().await;
        assert_eq!(answer, Some(WireFrame::pong(b"alive?")), "{self:?}: {name}");
    }

    /// Sends what a case sends, and checks what comes.
    pub async fn holds(self, server: &TestServer, case: &Case) {
        let Case { name, sends, is_chopped, expects } = case;
        let mut wire = self.open(server).await;
        if *is_chopped {
            for byte in sends {
                wire.send([*byte]).await;
                // The server reads them one by one.
                tokio::task::yield_now().await;
            }
        } else {
            wire.send(sends).await;
        }
        let (frames, code) = match expects {
            Expected::Nothing => (&[][..], None),
            Expected::Frames(frames) => (frames.as_slice(), None),
            Expected::Close(frames, code) => (frames.as_slice(), Some(*code)),
        };
        for expected in frames {
            assert_eq!(wire.frame().await.as_ref(), Some(expected), "{self:?}: {name}");
        }
        match code {
            None => self.is_alive(&mut wire, name).await,
            Some(code) => self.is_closed(&mut wire, code, name).await,
        }
    }

    /// Sends a close frame with this code, and ends the stream soon.
    pub async fn is_closed(self, wire: &mut Wire, code: u16, name: &str) {
        let last = wire.frame().await;
        assert_eq!(last.as_ref().and_then(WireFrame::close_code), Some(code), "{self:?}: {name}: {last:?}");
        assert!(wire.ends_within(Duration::from_secs(2)).await, "{self:?}: {name}: the stream ends");
    }
}

/// Checks all cases on an edge, several at a time.
pub async fn check(edge: Edge, cases: &[Case]) {
    let server = server().await;
    for cases in cases.chunks(8) {
        futures_util::future::join_all(cases.iter().map(|case| edge.holds(&server, case))).await;
    }
}

/// A message in fragments.
pub fn fragments(begins: u8, parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    let each = parts.iter().enumerate().map(|(index, part)| {
        let opcode = if index == 0 { begins } else { GOES_ON };
        frame(if index == last { ENDS | opcode } else { opcode }, part)
    });
    each.collect::<Vec<_>>().concat()
}
