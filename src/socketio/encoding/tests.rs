//! A frame of the hub is byte for byte what the library writes for the same event: on a WebSocket, and in the answer to a poll, in both
//! versions of Engine.IO.

use std::{sync::Arc, time::Duration};

use engineioxide::{engine::Engine, service::NotFoundService, session::Session};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use socketioxide::{SocketIo, extract::SocketRef, service::SocketIoService};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tower::{Service as _, ServiceExt};
use transport::WriteMode;

use super::*;
use crate::message::{EventName, MessageId, Position, RoomName};
use crate::socketio::connection::Arguments;

struct Server {
    service: SocketIoService<NotFoundService>,
    engine: Engine,
    sockets: UnboundedReceiver<SocketRef>,
}

impl Server {
    fn start() -> Self {
        let (service, io) = SocketIo::builder().req_path("/socket.io").max_payload(10_000_000).build_svc();
        let (connected, sockets) = unbounded_channel();
        io.ns("/", async move |socket: SocketRef| connected.send(socket).unwrap());
        let engine = service.clone().into_make_service().engine().clone();
        Self { service, engine, sockets }
    }

    /// The socket that connects next, and its session.
    async fn connected(&mut self) -> (SocketRef, Arc<Session>) {
        let socket = self.sockets.recv().await.unwrap();
        let session = self.engine.session(socket.id).unwrap();
        (socket, session)
    }

    async fn request(&self, method: &str, query: &str, body: &'static str) -> Response<Bytes> {
        let request = Request::builder().method(method).uri(format!("/socket.io/?{query}"));
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        let response = tokio::time::timeout(Duration::from_secs(5), self.service.clone().oneshot(request)).await;
        let (parts, body) = response.expect("it is answered").unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }
}

/// Events of every kind, with and without the place where the message stands.
fn frames() -> Vec<Frame> {
    let large = json!("é\u{1f600}\u{2028}".repeat(30_000)).to_string();
    let payloads = [
        Payload::None,
        Payload::json("1.10").unwrap(),
        Payload::json(r#"{"a":[1,"\u00e9\\",null]}"#).unwrap(),
        Payload::json(&large).unwrap(),
        Payload::Binary(Bytes::from_static(b"\x00\xff\x04")),
        Payload::Binary(Bytes::new()),
        Payload::Binary(vec![7; 70_000].into()),
    ];
    let room = RoomName::new("user:42").unwrap();
    let position = Position::new("epoch".into(), 7);
    let mut frames = Vec::new();
    for payload in payloads {
        for event in ["e", "say \"a\\b\" é\u{7}"] {
            let event = EventName::new(event).unwrap_or_else(|_| EventName::new("e").unwrap());
            let entry = crate::hub::EntryMeta::new(MessageId::at(jiff::Timestamp::UNIX_EPOCH), &room, &position);
            frames.push(Frame::new(event.clone(), payload.clone()));
            frames.push(Frame { entry: Some(entry), ..Frame::new(event, payload.clone()) });
        }
    }
    frames
}

fn meta(frame: &Frame) -> Option<&RawValue> {
    frame.entry.as_ref().map(|entry| &*entry.meta)
}

fn emit(socket: &SocketRef, frame: &Frame) {
    socket.emit(frame.event.as_str(), &Arguments(frame, meta(frame))).unwrap();
}

fn send(session: &Session, frame: &Frame) {
    let send = |frames: &[Bytes]| session.send(frames, WriteMode::Inline);
    with_frames(frame, session.protocol(), meta(frame), send).unwrap();
}

/// The bytes of the next frame.
async fn next(peer: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = vec![0; 2];
    peer.read_exact(&mut bytes).await.unwrap();
    let extended = match bytes[1] {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    bytes.resize(2 + extended, 0);
    peer.read_exact(&mut bytes[2..]).await.unwrap();
    let length = match extended {
        0 => u64::from(bytes[1]),
        _ => bytes[2..].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let header = bytes.len();
    bytes.resize(header + usize::try_from(length).unwrap(), 0);
    peer.read_exact(&mut bytes[header..]).await.unwrap();
    bytes
}

#[tokio::test]
async fn on_a_websocket() {
    for version in [3, 4] {
        let mut server = Server::start();
        let (mut peer, stream) = tokio::io::duplex(1 << 20);
        let uri = format!("/socket.io/?EIO={version}&transport=websocket");
        server.service.call((stream, Request::get(uri).body(()).unwrap())).await.unwrap();
        assert!(next(&mut peer).await[2..].contains(&b'0'));
        if version == 4 {
            peer.write_all(b"\x81\x82\0\0\0\x0040").await.unwrap();
        }
        let (socket, session) = server.connected().await;
        assert!(next(&mut peer).await.windows(2).any(|part| part == b"40"));
        for frame in frames() {
            let count = 1 + usize::from(matches!(frame.payload, Payload::Binary(_)));
            emit(&socket, &frame);
            send(&session, &frame);
            let mut written = Vec::new();
            for _ in 0..2 * count {
                written.push(next(&mut peer).await);
            }
            assert!(written[..count] == written[count..], "version {version}: {:?}", frame.event);
        }
    }
}

#[tokio::test]
async fn in_the_answer_to_a_poll() {
    for query in ["EIO=3", "EIO=3&b64=1", "EIO=4"] {
        let mut server = Server::start();
        let query = format!("{query}&transport=polling");
        let opened = server.request("GET", &query, "").await;
        let text = String::from_utf8_lossy(opened.body()).into_owned();
        let sid = text.split_once(r#""sid":""#).unwrap().1.split_once('"').unwrap().0;
        let query = format!("{query}&sid={sid}");
        if query.starts_with("EIO=4") {
            server.request("POST", &query, "40").await;
        }
        let (socket, session) = server.connected().await;
        assert!(server.request("GET", &query, "").await.body().windows(2).any(|part| part == b"40"));
        for frame in frames() {
            emit(&socket, &frame);
            let emitted = server.request("GET", &query, "").await;
            send(&session, &frame);
            let sent = server.request("GET", &query, "").await;
            assert!(emitted.body() == sent.body(), "{query}: {:?}", frame.event);
            assert_eq!(emitted.headers(), sent.headers());
        }
    }
}
