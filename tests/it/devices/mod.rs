//! The gateway as devices see it, decent ones and others.

mod tokens;

mod connecting;

mod origins;

mod limits;

mod client_events;

mod malformed;

mod closing;

mod polling;

mod stalled;

mod races;

mod expiry;

use std::{net::SocketAddr, panic::Location};

use bytes::Bytes;

use crate::harness::{
    Backend, ConnectError, DeviceBuilder, RawMessage, RawSocket, TestServer, deadline, raw_http, token,
};

/// What a device without a token sees.
pub const REQUIRED: &str = "Authentication token required";
/// What a device sees whose `auth` cannot be read.
pub const UNREADABLE: &str = "Malformed authentication payload";
/// What a device with a bad token sees.
pub const INVALID: &str = "Invalid or expired token";
/// The target of a WebSocket.
pub const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
/// The target of a first poll.
pub const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// What the server says to a device that it does not let in.
#[track_caller]
pub fn refusal(device: DeviceBuilder) -> impl Future<Output = String> {
    let caller = Location::caller();
    async move {
        match device.connect().await {
            Err(ConnectError::Refused { message }) => message,
            other => panic!("{caller}: the device was not refused: {other:?}"),
        }
    }
}

/// The status with which a device is turned away before it has a session, and its `Retry-After`.
#[track_caller]
pub fn turned_away(device: DeviceBuilder) -> impl Future<Output = (u16, Option<String>)> {
    let caller = Location::caller();
    async move {
        match device.connect().await {
            Err(ConnectError::Http { status, headers, .. }) => {
                let after = headers.get("retry-after").map(|value| value.to_str().expect("it is text").to_owned());
                (status.as_u16(), after)
            }
            other => panic!("{caller}: the device was not turned away: {other:?}"),
        }
    }
}

/// Waits until this many connections are there.
#[track_caller]
pub fn online(backend: &Backend, count: u64) -> impl Future<Output = ()> {
    let caller = Location::caller();
    let backend = backend.clone();
    let what = format!("{count} connections to be there (asked at {caller})");
    async move {
        let counted = async { while backend.get_stats().await.connections != count {} };
        deadline(&what, counted).await;
    }
}

/// The TCP streams that the server holds towards devices.
pub fn streams(server: &TestServer) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells of its sockets");
    // With the address: other programs may use the same port at another one.
    let address = format!("0100007F:{:04X}", server.clients().port());
    let is_held = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (local, state, inode) = (fields[1], fields[3], fields[9]);
        local == address && state != "0A" && inode != "0"
    };
    table.lines().skip(1).filter(is_held).count()
}

/// Waits until the server holds this many streams; `backend` passes the time.
#[track_caller]
pub fn streams_held(server: &TestServer, backend: &Backend, count: usize) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let what = format!("the server to hold {count} streams (asked at {caller})");
        let counted = async {
            while streams(server) != count {
                backend.get_stats().await;
            }
        };
        deadline(&what, counted).await;
    }
}

/// A WebSocket on which the CONNECT of this user was accepted, and whose welcome was read.
pub async fn raw_device(server: &TestServer, user: &str) -> RawSocket {
    let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
    socket.send_text(connect_packet(user)).await;
    next_beginning(&mut socket, r#"42["connected","#).await;
    socket
}

/// A CONNECT with a good token.
pub fn connect_packet(user: &str) -> String {
    format!("40{}", serde_json::json!({ "token": token(user) }))
}

/// The next text that begins so; others are skipped.
#[track_caller]
pub fn next_beginning(socket: &mut RawSocket, prefix: &str) -> impl Future<Output = String> {
    let caller = Location::caller();
    async move {
        loop {
            match socket.receive().await {
                RawMessage::Text(text) if text.starts_with(prefix) => return text,
                RawMessage::Text(_) | RawMessage::Binary(_) => {}
                RawMessage::Closed(code) => panic!("{caller}: the end came before {prefix}: {code:?}"),
            }
        }
    }
}

/// Skips what comes until the connection ends.
#[track_caller]
pub fn end_of(socket: &mut RawSocket) -> impl Future<Output = ()> {
    deadline("the end of the WebSocket", async { while !matches!(socket.receive().await, RawMessage::Closed(_)) {} })
}

/// One HTTP request on a connection of its own: the whole answer.
pub async fn request(server: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    let answer: Bytes = raw_http(server, request).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    code.parse().expect("a status is a number")
}

/// The session id in a handshake.
pub fn session_id(answer: &str) -> String {
    let (_, rest) = answer.split_once(r#""sid":""#).unwrap_or_else(|| panic!("no handshake: {answer}"));
    rest.split('"').next().expect("it ends").to_owned()
}
