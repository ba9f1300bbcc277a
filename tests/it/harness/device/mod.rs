//! A device: a Socket.IO client that says all it sees.

mod builder;
pub use builder::DeviceBuilder;

mod engineio;
pub use engineio::Protocol;

mod socketio;
pub use socketio::{Arg, Event};

mod session;
pub use session::{Closed, ClosedBy};

mod expectation;
pub use expectation::ExpectEvent;

mod polling;
pub mod websocket;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    panic::Location,
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    deadline,
    http::{ConnectError, reset},
};
use engineio::{Handshake, Packet};
use polling::{Outcome, Polling};
use session::{Command, Incoming, Session};
use websocket::WebSocket;

/// How a device is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Polling,
    /// Polling first, then WebSocket: what the official clients do unless told otherwise.
    Upgrade,
}

/// Each way to be connected.
pub const EVERY_WAY: [(Transport, Protocol); 6] = [
    (Transport::WebSocket, Protocol::V4),
    (Transport::Polling, Protocol::V4),
    (Transport::Upgrade, Protocol::V4),
    (Transport::WebSocket, Protocol::V3),
    (Transport::Polling, Protocol::V3),
    (Transport::Upgrade, Protocol::V3),
];

/// The payload of the `connected` event.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    pub user_id: String,
    pub connection_id: String,
    pub rooms: Vec<String>,
}

/// A connected Socket.IO client. Dropping it closes its sockets without a word.
#[derive(Debug)]
pub struct Device {
    commands: mpsc::UnboundedSender<Command>,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    arrived: Arrived,
    next_ack: u64,
    abort: CancellationToken,
    tasks: JoinSet<()>,
}

/// What came and was not asked for yet.
#[derive(Debug, Default)]
struct Arrived {
    handshake: Option<Handshake>,
    connected: Option<Result<(), String>>,
    is_upgraded: bool,
    welcome: Option<Welcome>,
    events: VecDeque<Event>,
    acks: HashMap<u64, Vec<Value>>,
    disconnect: Option<Closed>,
    transport_end: Option<Closed>,
}

enum Link {
    WebSocket(Box<WebSocket>),
    Polling(Box<Polling>),
}

impl Device {
    /// A device that will connect to the listener for clients.
    pub fn builder(clients: SocketAddr) -> DeviceBuilder {
        DeviceBuilder::new(clients)
    }

    /// What the server said in its `connected` event.
    #[track_caller]
    pub fn welcome(&self) -> &Welcome {
        self.arrived.welcome.as_ref().expect("the device waited for its welcome")
    }

    /// The Engine.IO session id: the secret that hostile tests steal.
    pub fn session_id(&self) -> &str {
        &self.arrived.handshake.as_ref().expect("a connected device has a session").sid
    }

    /// The next event; panics when none comes or the connection ends first.
    #[track_caller]
    pub fn next_event(&mut self) -> impl Future<Output = Event> {
        let caller = Location::caller();
        let next = deadline("an event", self.event_or_end());
        async move { next.await.unwrap_or_else(|closed| panic!("{caller}: no event came before the end: {closed:?}")) }
    }

    /// The next event, which must have this name.
    #[track_caller]
    pub fn expect_event<'a>(&'a mut self, name: &'a str) -> ExpectEvent<'a> {
        ExpectEvent::new(self, name)
    }

    /// The next event, if one comes within `duration` and before the end.
    pub async fn try_next(&mut self, duration: Duration) -> Option<Event> {
        tokio::time::timeout(duration, self.event_or_end()).await.ok()?.ok()
    }

    /// Sends an event. On a connection that has ended it goes nowhere.
    pub fn emit(&self, name: &str, args: &[Value]) {
        self.send(vec![Packet::Message(socketio::event_message(name, args, None))]);
    }

    /// Sends an event with one binary argument.
    pub fn emit_binary(&self, name: &str, bytes: impl Into<Bytes>) {
        self.send(vec![Packet::Message(socketio::binary_event_message(name)), Packet::Binary(bytes.into())]);
    }

    /// Sends an event and waits for the arguments of its acknowledgement.
    #[track_caller]
    pub fn emit_with_ack(&mut self, name: &str, args: &[Value]) -> impl Future<Output = Vec<Value>> {
        let caller = Location::caller();
        let id = self.next_ack;
        self.next_ack += 1;
        self.send(vec![Packet::Message(socketio::event_message(name, args, Some(id)))]);
        deadline("an acknowledgement", async move {
            loop {
                if let Some(args) = self.arrived.acks.remove(&id) {
                    return args;
                }
                if let Some(closed) = self.arrived.end() {
                    panic!("{caller}: no acknowledgement came before the end: {closed:?}");
                }
                self.receive().await;
            }
        })
    }

    /// Acknowledges an event, which must ask for it, with this array of arguments.
    #[track_caller]
    pub fn acknowledge(&self, event: &Event, args: &str) {
        let id = event.ack.expect("the event asks for an acknowledgement");
        self.send(vec![Packet::Message(socketio::ack_message(id, args, 0))]);
    }

    /// The same, with bytes among the arguments.
    #[track_caller]
    pub fn acknowledge_binary(&self, event: &Event, args: &str, bytes: impl Into<Bytes>) {
        let id = event.ack.expect("the event asks for an acknowledgement");
        self.send(vec![Packet::Message(socketio::ack_message(id, args, 1)), Packet::Binary(bytes.into())]);
    }

    /// How the connection ended: by DISCONNECT, or with its transport. Events that came before can still be asked for.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = Closed> {
        deadline("the end of the connection", self.end())
    }

    /// The same, for ends that take their time.
    pub async fn closed_within(&mut self, duration: Duration) -> Option<Closed> {
        tokio::time::timeout(duration, self.end()).await.ok()
    }

    /// How the transport ended. The device itself keeps it open after a DISCONNECT, unlike the official clients.
    #[track_caller]
    pub fn transport_closed(&mut self) -> impl Future<Output = Closed> {
        deadline("the end of the transport", async {
            loop {
                if let Some(closed) = self.arrived.transport_end {
                    return closed;
                }
                self.receive().await;
            }
        })
    }

    /// Leaves what the server sends in the socket; the connection stays open.
    pub fn stop_reading(&self) {
        self.command(Command::Read(false));
    }

    /// Reads again.
    pub fn resume_reading(&self) {
        self.command(Command::Read(true));
    }

    /// Says goodbye as the official clients do, and waits until the transport has ended.
    #[track_caller]
    pub fn close(mut self) -> impl Future<Output = ()> {
        self.send(vec![Packet::Message("1".into())]);
        self.command(Command::Close);
        deadline("the end of a closing device", async move { while self.tasks.join_next().await.is_some() {} })
    }

    /// Resets its TCP connections, as a device that crashes.
    #[track_caller]
    pub fn abort(mut self) -> impl Future<Output = ()> {
        self.abort.cancel();
        deadline("the end of an aborted device", async move { while self.tasks.join_next().await.is_some() {} })
    }

    /// The same. Returns the events that had come and were not asked for: the device may have proven that it has them.
    #[track_caller]
    pub fn abort_with_rest(mut self) -> impl Future<Output = Vec<Event>> {
        self.abort.cancel();
        deadline("the end of an aborted device", async move {
            while self.tasks.join_next().await.is_some() {}
            while let Some(news) = self.incoming.recv().await {
                self.arrived.file(news);
            }
            self.arrived.events.into()
        })
    }

    fn start(link: Link, protocol: Protocol, greeting: Option<String>, abort: CancellationToken) -> Self {
        let (commands, to_obey) = mpsc::unbounded_channel();
        let (news, incoming) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(speak(link, Session::new(protocol, greeting, to_obey, news), abort.clone()));
        Self { commands, incoming, arrived: Arrived::default(), next_ack: 0, abort, tasks }
    }

    /// Waits until the server has answered the CONNECT.
    async fn accepted(&mut self) -> Result<(), ConnectError> {
        loop {
            match self.arrived.connected.take() {
                Some(Ok(())) => return Ok(()),
                Some(Err(message)) => return Err(ConnectError::Refused { message }),
                None => self.receive_before_end().await?,
            }
        }
    }

    async fn upgrade(&mut self, socket: WebSocket) -> Result<(), ConnectError> {
        self.command(Command::Upgrade(Box::new(socket)));
        while !self.arrived.is_upgraded {
            self.receive_before_end().await?;
        }
        Ok(())
    }

    async fn be_welcomed(&mut self) -> Result<(), ConnectError> {
        let event = self.event_or_end().await.map_err(|_| ConnectError::Closed)?;
        if event.name == "bugle:disconnect" {
            // The server is stopping, and has not welcomed it yet.
            return Err(ConnectError::Closed);
        }
        assert_eq!(event.name, "connected", "the first event is the welcome: {}", event.raw);
        self.arrived.welcome = Some(serde_json::from_str(event.json()).expect("a welcome tells who and where"));
        Ok(())
    }

    async fn receive_before_end(&mut self) -> Result<(), ConnectError> {
        if self.arrived.end().is_some() {
            return Err(ConnectError::Closed);
        }
        self.receive().await;
        Ok(())
    }

    async fn event_or_end(&mut self) -> Result<Event, Closed> {
        loop {
            if let Some(event) = self.arrived.events.pop_front() {
                return Ok(event);
            }
            if let Some(closed) = self.arrived.end() {
                return Err(closed);
            }
            self.receive().await;
        }
    }

    async fn end(&mut self) -> Closed {
        loop {
            if let Some(closed) = self.arrived.end() {
                return closed;
            }
            self.receive().await;
        }
    }

    async fn receive(&mut self) {
        let news = self.incoming.recv().await.expect("the device's task panicked, see above");
        self.arrived.file(news);
    }

    fn send(&self, packets: Vec<Packet>) {
        self.command(Command::Send(packets));
    }

    fn command(&self, command: Command) {
        // The task is gone when the connection has ended, which whoever waits for something will see.
        let _ = self.commands.send(command);
    }
}

impl Arrived {
    fn file(&mut self, news: Incoming) {
        match news {
            Incoming::Opened(handshake) => self.handshake = Some(handshake),
            Incoming::Upgraded => self.is_upgraded = true,
            Incoming::TransportEnded(closed) => self.transport_end = Some(closed),
            Incoming::Packet(socketio::Packet::Connect) => self.connected = Some(Ok(())),
            Incoming::Packet(socketio::Packet::ConnectError { message }) => self.connected = Some(Err(message)),
            Incoming::Packet(socketio::Packet::Event(event)) => self.events.push_back(event),
            Incoming::Packet(socketio::Packet::Ack { id, args }) => drop(self.acks.insert(id, args)),
            Incoming::Packet(socketio::Packet::Disconnect) => self.disconnect = Some(ClosedBy::ServerPacket.now()),
        }
    }

    fn end(&self) -> Option<Closed> {
        self.disconnect.or(self.transport_end)
    }
}

/// The device's background task: speaks on whatever transport it has, and tells when that ended.
async fn speak(link: Link, mut session: Session, abort: CancellationToken) {
    let mut websocket = match link {
        Link::WebSocket(socket) => socket,
        Link::Polling(mut polling) => {
            let outcome = abort.run_until_cancelled(polling.speak(&mut session)).await;
            match outcome {
                Some(Outcome::Upgraded(socket)) => socket,
                Some(Outcome::Closed(by)) => return session.tell(Incoming::TransportEnded(by.now())),
                None => return polling.ended().await,
            }
        }
    };
    match abort.run_until_cancelled(websocket::speak(&mut websocket, &mut session)).await {
        Some(by) => session.tell(Incoming::TransportEnded(by.now())),
        None => reset(websocket.into_inner()),
    }
}
