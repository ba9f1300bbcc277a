//! What a device's background task knows and does, whatever the transport.

use std::{error::Error, io, ops::ControlFlow, time::Instant};

use tokio::{
    sync::mpsc,
    time::{Interval, interval_at},
};

use super::{
    engineio::{Handshake, Packet, Protocol},
    socketio,
    websocket::WebSocket,
};

/// What ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The server sent DISCONNECT: "io server disconnect" to the official clients, which stay away.
    ServerPacket,
    /// The transport ended in good form: "transport close", after which clients come back.
    TransportClosed,
    /// The transport was reset.
    TransportReset,
}

/// How and when a connection ended.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    pub by: ClosedBy,
    pub at: Instant,
}

impl ClosedBy {
    pub fn error(error: &(dyn Error + 'static)) -> Self {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        match (kind, error.source()) {
            (Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), _) => Self::TransportReset,
            (_, Some(cause)) => Self::error(cause),
            (_, None) => Self::TransportClosed,
        }
    }

    pub fn now(self) -> Closed {
        Closed { by: self, at: Instant::now() }
    }
}

/// What the device tells its background task.
#[derive(Debug)]
pub enum Command {
    Send(Vec<Packet>),
    /// Whether to read from the socket.
    Read(bool),
    /// Go over to this WebSocket, whose probe was answered.
    Upgrade(Box<WebSocket>),
    /// End in good form.
    Close,
}

/// What the background task tells the device.
#[derive(Debug)]
pub enum Incoming {
    Opened(Handshake),
    Packet(socketio::Packet),
    Upgraded,
    TransportEnded(Closed),
}

pub struct Session {
    pub protocol: Protocol,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub is_reading: bool,
    pub heartbeat: Heartbeat,
    /// What to say when the session is open: CONNECT, from protocol revision 4 on.
    greeting: Option<String>,
    incoming: mpsc::UnboundedSender<Incoming>,
    decoder: socketio::Decoder,
}

impl Session {
    pub fn new(
        protocol: Protocol,
        greeting: Option<String>,
        commands: mpsc::UnboundedReceiver<Command>,
        incoming: mpsc::UnboundedSender<Incoming>,
    ) -> Self {
        let (heartbeat, decoder) = Default::default();
        Self { protocol, commands, is_reading: true, heartbeat, greeting, incoming, decoder }
    }

    /// Takes a packet; answers what to send back, or that the transport is at its end.
    pub fn take(&mut self, packet: Packet) -> ControlFlow<ClosedBy, Option<Packet>> {
        match packet {
            Packet::Open(handshake) => return ControlFlow::Continue(self.open(handshake)),
            Packet::Close => return ControlFlow::Break(ClosedBy::TransportClosed),
            Packet::Ping(data) => return ControlFlow::Continue(Some(Packet::Pong(data))),
            Packet::Pong(_) | Packet::Noop | Packet::Upgrade => {}
            Packet::Message(text) => {
                let packet = self.decoder.text(&text);
                self.tell(packet.map(Incoming::Packet));
            }
            Packet::Binary(bytes) => {
                let packet = self.decoder.binary(bytes);
                self.tell(packet.map(Incoming::Packet));
            }
        }
        ControlFlow::Continue(None)
    }

    pub fn tell(&self, news: impl Into<Option<Incoming>>) {
        if let Some(news) = news.into() {
            // A device that was dropped wants to know nothing more.
            let _ = self.incoming.send(news);
        }
    }

    fn open(&mut self, handshake: Handshake) -> Option<Packet> {
        if self.protocol == Protocol::V3 {
            let period = handshake.ping_interval();
            self.heartbeat.0 = Some(interval_at(tokio::time::Instant::now() + period, period));
        }
        self.tell(Incoming::Opened(handshake));
        self.greeting.take().map(Packet::Message)
    }
}

/// When to send a ping: in revision 3 it is the client that does.
#[derive(Default)]
pub struct Heartbeat(Option<Interval>);

impl Heartbeat {
    pub async fn beat(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}
