//! The protocols below Bugle, as their specifications have them: Engine.IO 4 and 3, Socket.IO 5 and 4.
//! <https://socket.io/docs/v4/engine-io-protocol/>, <https://socket.io/docs/v4/socket-io-protocol/>

mod handshake;

mod refusals;

mod heartbeat;

mod polling;
mod polling_payloads;

mod upgrade;
mod upgrade_failures;

mod namespaces;

mod events;

use std::{net::SocketAddr, panic::Location, time::Duration};

use serde_json::Value;

use crate::{
    devices::connect_packet,
    harness::{Answer, RawMessage, RawSocket, TestServer, Wire, ask, ask_with, deadline, http_request, token},
};

/// A revision of Engine.IO, and what differs in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    Three,
    Four,
}

pub const REVISIONS: [Revision; 2] = [Revision::Four, Revision::Three];

impl Revision {
    pub fn number(self) -> u8 {
        match self {
            Self::Three => 3,
            Self::Four => 4,
        }
    }

    /// The path and the query of a first request. In revision 3 the token is in there, as the connection is made at once.
    pub fn target(self, transport: &str, token: Option<&str>) -> String {
        let token = token.filter(|_| self == Self::Three).map(|token| format!("&token={token}")).unwrap_or_default();
        format!("/socket.io/?EIO={}&transport={transport}{token}", self.number())
    }

    /// Packets as the body of a request or an answer of polling, without bytes.
    pub fn payload(self, packets: &[&str]) -> String {
        match self {
            Self::Three => {
                let parts = packets.iter().map(|text| format!("{}:{text}", text.encode_utf16().count()));
                parts.collect::<Vec<_>>().concat()
            }
            Self::Four => packets.join("\u{1e}"),
        }
    }

    /// The packets in such a body.
    #[track_caller]
    pub fn packets(self, payload: &str) -> Vec<String> {
        if self == Self::Four {
            return payload.split('\u{1e}').map(str::to_owned).collect();
        }
        let mut units: Vec<u16> = payload.encode_utf16().collect();
        let mut packets = Vec::new();
        while !units.is_empty() {
            let colon = units.iter().position(|unit| *unit == u16::from(b':')).expect("a length ends");
            let length = String::from_utf16(&units[..colon]).expect("a length is text");
            let rest = units.split_off(colon + 1);
            let (packet, rest) = rest.split_at(length.parse().expect("a length is a number"));
            packets.push(String::from_utf16(packet).expect("a packet is text"));
            units = rest.to_vec();
        }
        packets
    }
}

/// A session over polling, of which a test makes each request itself.
#[derive(Clone, Debug)]
pub struct Poller {
    pub revision: Revision,
    clients: SocketAddr,
    /// With the session id.
    pub target: String,
    pub handshake: Value,
    /// What came with the handshake.
    pub first: Vec<String>,
}

impl Poller {
    /// Opens a session.
    #[track_caller]
    pub fn open(server: &TestServer, revision: Revision) -> impl Future<Output = Self> {
        Self::open_at(server.clients(), revision.target("polling", None), revision)
    }

    /// A session on which this user is connected and was welcomed.
    pub async fn connected(server: &TestServer, revision: Revision, user: &str) -> Self {
        let opening = revision.target("polling", Some(&token(user)));
        let poller = Self::open_at(server.clients(), opening, revision).await;
        if revision == Revision::Four {
            assert_eq!(poller.post(&[&connect_packet(user)]).await.status, 200);
        }
        if !poller.first.iter().any(|packet| packet.starts_with(r#"42["connected","#)) {
            poller.poll_for(r#"42["connected","#).await;
        }
        poller
    }

    #[track_caller]
    fn open_at(clients: SocketAddr, opening: String, revision: Revision) -> impl Future<Output = Self> {
        let caller = Location::caller();
        async move {
            let opened = ask(clients, "GET", &opening, "").await;
            assert_eq!(opened.status, 200, "{caller}: {}", opened.text());
            let mut first = revision.packets(&opened.text());
            let handshake = first.remove(0);
            let handshake = handshake.strip_prefix('0').expect("the first packet opens a session");
            let handshake: Value = serde_json::from_str(handshake).expect("a handshake is JSON");
            let target = format!("{opening}&sid={}", handshake["sid"].as_str().expect("a session has an id"));
            Self { revision, clients, target, handshake, first }
        }
    }

    /// The answer to a poll.
    #[track_caller]
    pub fn poll(&self) -> impl Future<Output = Answer> {
        ask(self.clients, "GET", &self.target, "")
    }

    /// The packets that a poll brings.
    #[track_caller]
    pub fn packets(&self) -> impl Future<Output = Vec<String>> {
        let caller = Location::caller();
        let (answer, revision) = (self.poll(), self.revision);
        async move {
            let answer = answer.await;
            assert_eq!(answer.status, 200, "{caller}: {}", answer.text());
            revision.packets(&answer.text())
        }
    }

    /// The packets up to one that begins so, of as many polls as it takes.
    #[track_caller]
    pub fn poll_for(&self, prefix: &str) -> impl Future<Output = Vec<String>> {
        deadline("a packet that was polled for", async move {
            let mut all = Vec::new();
            loop {
                let packets = self.packets().await;
                let is_there = packets.iter().any(|packet| packet.starts_with(prefix));
                all.extend(packets);
                if is_there {
                    return all;
                }
            }
        })
    }

    /// Sends a poll, and leaves it to the test to wait for its answer.
    pub async fn begin_poll(&self) -> Wire {
        let mut wire = Wire::open(self.clients).await;
        wire.send(http_request("GET", &self.target, &[], b"")).await;
        wire
    }

    /// A poll that the server holds: it was sent long enough ago.
    pub async fn held_poll(&self) -> Wire {
        let mut wire = self.begin_poll().await;
        let answer = wire.answer_within(Duration::from_millis(100)).await;
        assert!(answer.is_none(), "nothing is there to be fetched: {answer:?}");
        wire
    }

    /// Sends packets.
    #[track_caller]
    pub fn post(&self, packets: &[&str]) -> impl Future<Output = Answer> {
        self.post_body(self.revision.payload(packets))
    }

    #[track_caller]
    pub fn post_body(&self, body: impl AsRef<[u8]>) -> impl Future<Output = Answer> {
        ask_with(self.clients, "POST", &self.target, &[("content-type", "text/plain;charset=UTF-8")], body)
    }

    /// The target of a WebSocket to upgrade to.
    pub fn websocket_target(&self) -> String {
        self.target.replace("transport=polling", "transport=websocket")
    }

    /// A WebSocket whose probe was answered.
    pub async fn probed(&self) -> RawSocket {
        let target = self.websocket_target();
        let mut socket = RawSocket::connect(self.clients, &target).await.expect("the WebSocket opens");
        socket.send_text("2probe").await;
        assert_eq!(socket.receive().await, text("3probe"));
        socket
    }

    /// A WebSocket to which the session has gone over.
    pub async fn upgraded(&self) -> RawSocket {
        let mut socket = self.probed().await;
        self.packets().await;
        socket.send_text("5").await;
        socket
    }

    /// Waits until the session is unknown.
    #[track_caller]
    pub fn ended(&self) -> impl Future<Output = ()> {
        deadline("the end of a session", async {
            loop {
                let answer = self.poll().await;
                if answer.text().contains("Session ID unknown") {
                    assert_eq!(answer.status, 400);
                    return;
                }
            }
        })
    }
}

pub fn text(text: &str) -> RawMessage {
    RawMessage::Text(text.to_owned())
}

/// Ends with the text of a packet; what else comes before is skipped.
#[track_caller]
pub fn next_packet(socket: &mut RawSocket, prefix: &str) -> impl Future<Output = String> {
    crate::devices::next_beginning(socket, prefix)
}
