//! An engine in memory: as much of Redis as the bus uses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    histories::Histories,
    leases::{Contact, Generation},
    node::LEASE,
    oracle::NODES,
    wire::{Command, Faults, Shared},
};

/// The engine's time when a test begins.
const TIME_MS: i64 = 1_700_000_000_000;
/// How long the engine has run when a test begins: the first nodes need not wait for others.
const UPTIME_MS: i64 = 3_600_000;

/// The engine, and the way to it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Memory {
    pub(super) state: Shared<State>,
    pub(super) faults: watch::Sender<Faults>,
}

pub(super) struct State {
    is_up: bool,
    has_functions: bool,
    /// How often it has started.
    pub(super) starts: u64,
    pub(super) origin: Instant,
    pub(super) began_ms: i64,
    /// Since when nobody could reach it, the last time.
    away_since: Instant,
    /// When it was started without data.
    pub(super) empty_since: Instant,
    /// When a process came that is older, if one has.
    pub(super) met_at: Option<Instant>,
    last_id: u64,
    clients: BTreeMap<u64, Client>,
    /// By incarnation: the end of the lease, and the value.
    pub(super) peers: BTreeMap<Vec<u8>, (i64, Vec<u8>)>,
    pub(super) generation: Option<Generation>,
    pub(super) histories: Histories,
    /// Who has a name, and until when.
    names: HashMap<Vec<u8>, (Vec<u8>, i64)>,
    /// The command that it refuses.
    pub(super) refuses: Option<&'static str>,
    /// So many of the next pushes to a node are lost on the way.
    pub(super) drops: [u32; NODES],
    pub(super) contacts: [Contact; NODES],
}

struct Client {
    node: usize,
    out: mpsc::UnboundedSender<Vec<u8>>,
    closed: CancellationToken,
    channels: BTreeSet<Vec<u8>>,
    transaction: Option<Vec<Command>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = State {
            is_up: true,
            has_functions: false,
            starts: 1,
            origin: now,
            began_ms: TIME_MS - UPTIME_MS,
            away_since: now,
            empty_since: now,
            met_at: Some(now),
            last_id: 0,
            clients: BTreeMap::new(),
            peers: BTreeMap::new(),
            generation: None,
            histories: Histories::default(),
            names: HashMap::new(),
            refuses: None,
            drops: [0; NODES],
            contacts: Default::default(),
        };
        Self { state: Shared::new(state.into()), faults: watch::channel(Faults::default()).0 }
    }

    pub(super) fn freeze(&self, is_frozen: bool) {
        let was_frozen = self.faults.borrow().is_frozen;
        match (was_frozen, is_frozen) {
            (false, true) => self.state.lock().away_since = Instant::now(),
            (true, false) => self.state.lock().is_back(false),
            _ => {}
        }
        self.faults.send_modify(|faults| faults.is_frozen = is_frozen);
    }
}

impl State {
    pub(super) fn crash(&mut self, keeps_data: bool) {
        if !std::mem::take(&mut self.is_up) {
            return;
        }
        self.away_since = Instant::now();
        for client in std::mem::take(&mut self.clients).into_values() {
            client.closed.cancel();
        }
        if !keeps_data {
            self.peers.clear();
            self.generation = None;
            self.met_at = None;
            self.names.clear();
            self.has_functions = false;
        }
    }

    pub(super) fn start(&mut self) {
        if !self.is_up {
            self.is_up = true;
            self.starts += 1;
            if self.generation.is_none() {
                self.empty_since = Instant::now();
            }
            self.began_ms = self.now_ms();
            self.is_back(true);
        }
    }

    /// Leases could not be renewed meanwhile, and some may have ended. Nodes do not notice that it stood still for less than half a lease.
    fn is_back(&mut self, restarted: bool) {
        let (now, away_since) = (Instant::now(), self.away_since);
        if !restarted && now - away_since <= LEASE / 2 {
            return;
        }
        for contact in &mut self.contacts {
            let was_live = |renewed: &Instant| away_since.saturating_duration_since(*renewed) < LEASE;
            if contact.renewed.is_some_and(|renewed| was_live(&renewed)) {
                (contact.renewed, contact.is_prolonged) = (Some(now), true);
            }
        }
    }

    pub(super) fn forget_functions(&mut self) {
        self.has_functions = false;
    }

    /// Closes a node's subscribing connections.
    pub(super) fn lose_subscriptions(&mut self, node: usize) {
        let of_node = |client: &Client| client.node == node && !client.channels.is_empty();
        let lost: Vec<_> = self.clients.iter().filter(|(_, client)| of_node(client)).map(|(id, _)| *id).collect();
        for id in lost {
            self.disconnected(id);
        }
    }

    /// Whether a connection is one for frames.
    pub(super) fn is_subscribing(&self, id: u64) -> bool {
        self.clients.get(&id).is_some_and(|client| !client.channels.is_empty())
    }

    pub(super) fn connected(
        &mut self,
        node: usize,
        out: mpsc::UnboundedSender<Vec<u8>>,
        closed: CancellationToken,
    ) -> Option<u64> {
        self.last_id += 1;
        let client = Client { node, out, closed, channels: BTreeSet::new(), transaction: None };
        self.is_up.then(|| self.clients.insert(self.last_id, client));
        self.is_up.then_some(self.last_id)
    }

    pub(super) fn disconnected(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            client.closed.cancel();
        }
    }

    pub(super) fn execute(&mut self, id: u64, command: Command) {
        // It may just have been closed.
        let Some(client) = self.clients.get_mut(&id) else { return };
        let name = command[0].to_ascii_uppercase();
        let reply = match (&*name, &mut client.transaction) {
            (b"MULTI", _) => {
                client.transaction = Some(Vec::new());
                b"+OK\r\n".to_vec()
            }
            (b"EXEC", _) => {
                let commands = client.transaction.take().unwrap_or_default();
                let mut reply = format!("*{}\r\n", commands.len()).into_bytes();
                for command in commands {
                    reply.extend(self.run(id, &command));
                }
                reply
            }
            (_, Some(commands)) => {
                commands.push(command);
                b"+QUEUED\r\n".to_vec()
            }
            (_, None) => self.run(id, &command),
        };
        if let Some(client) = self.clients.get(&id) {
            // The connection may be about to end.
            let _ = client.out.send(reply);
        }
    }

    fn run(&mut self, id: u64, command: &[Vec<u8>]) -> Vec<u8> {
        let words: Vec<_> = command.iter().map(|word| String::from_utf8_lossy(word)).collect();
        let words: Vec<&str> = words.iter().map(|word| &**word).collect();
        match &words[..] {
            [command, ..] if self.refuses == Some(command) => b"-MISCONF the model says so\r\n".to_vec(),
            ["HELLO", ..] => b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec(),
            ["CLIENT", "SETINFO", ..] => b"+OK\r\n".to_vec(),
            ["CLIENT", "ID"] => integer(id),
            ["CLIENT", "KILL", "ID", other] => {
                self.disconnected(other.parse().unwrap());
                integer(1)
            }
            ["INFO", ..] => bulk(
                format!("redis_version:7.2.0\r\nrole:master\r\nmaster_replid:{0}\r\nrun_id:{0}\r\n", self.starts)
                    .as_bytes(),
            ),
            ["FUNCTION", "LOAD", ..] => {
                self.has_functions = true;
                bulk(b"bugle")
            }
            ["CONFIG", ..] | ["HGETALL", _] => b"%0\r\n".to_vec(),
            ["TIME"] => b"*2\r\n$1\r\n0\r\n$1\r\n0\r\n".to_vec(),
            ["PING"] => b"+PONG\r\n".to_vec(),
            // Nothing is kept here.
            ["GET", _] | ["XADD", ..] => b"_\r\n".to_vec(),
            ["ZRANGE" | "XRANGE", ..] => b"*0\r\n".to_vec(),
            ["XDEL", ..] => integer(0),
            ["PUBSUB", "NUMSUB", channels @ ..] => {
                let mut reply = format!("*{}\r\n", 2 * channels.len()).into_bytes();
                for channel in channels {
                    reply.extend([bulk(b""), integer(self.subscribers(channel))].concat());
                }
                reply
            }
            ["PUBLISH", ..] => integer(self.publish(&command[1], &command[2])),
            ["SUBSCRIBE", ..] => self.subscribe(id, &command[1..], true),
            ["UNSUBSCRIBE", ..] => self.subscribe(id, &command[1..], false),
            ["FCALL", function, ..] => self.call(id, function, command),
            _ => panic!("the model's engine does not know {words:?}"),
        }
    }

    fn subscribers(&self, channel: &str) -> u64 {
        self.clients.values().filter(|client| client.channels.contains(channel.as_bytes())).count() as u64
    }

    pub(super) fn publish(&mut self, channel: &[u8], frame: &[u8]) -> u64 {
        let push = [b">3\r\n".to_vec(), bulk(b"message"), bulk(channel), bulk(frame)].concat();
        let mut receivers = 0;
        for client in self.clients.values().filter(|client| client.channels.contains(channel)) {
            receivers += 1;
            let drops = &mut self.drops[client.node];
            if *drops > 0 {
                *drops -= 1;
            } else {
                // The connection may be about to end.
                let _ = client.out.send(push.clone());
            }
        }
        receivers
    }

    fn subscribe(&mut self, id: u64, channels: &[Vec<u8>], is_wanted: bool) -> Vec<u8> {
        let Some(client) = self.clients.get_mut(&id) else { return Vec::new() };
        let kind: &[u8] = if is_wanted { b"subscribe" } else { b"unsubscribe" };
        let mut reply = Vec::new();
        for channel in channels {
            if is_wanted {
                client.channels.insert(channel.clone());
            } else {
                client.channels.remove(channel);
            }
            reply.extend(
                [b">3\r\n".to_vec(), bulk(kind), bulk(channel), integer(client.channels.len() as u64)].concat(),
            );
        }
        reply
    }

    pub(super) fn now_ms(&self) -> i64 {
        TIME_MS + i64::try_from(self.origin.elapsed().as_millis()).unwrap()
    }

    fn call(&mut self, id: u64, function: &str, command: &[Vec<u8>]) -> Vec<u8> {
        if !self.has_functions {
            return b"-ERR Function not found\r\n".to_vec();
        }
        let keys: usize = String::from_utf8_lossy(&command[2]).parse().unwrap();
        let (keys, arguments) = command[3..].split_at(keys);
        match function.rsplit_once('_').unwrap().0 {
            "heartbeat" => self.heartbeat(self.clients[&id].node, arguments),
            "hold_name" => {
                let until = self.now_ms() + milliseconds(&arguments[1]);
                let holder = self.names.get(&keys[0]).filter(|(_, end)| *end > self.now_ms());
                if holder.is_some_and(|(holder, _)| *holder != arguments[0]) {
                    return integer(0);
                }
                self.names.insert(keys[0].clone(), (arguments[0].clone(), until));
                integer(1)
            }
            "remove_peer" => {
                self.remove_peer(&arguments[0]);
                integer(1)
            }
            "leave" => {
                self.remove_peer(&arguments[0]);
                if self.names.get(&keys[3]).is_some_and(|(holder, _)| *holder == arguments[1]) {
                    self.names.remove(&keys[3]);
                }
                integer(1)
            }
            "keep" => self.keep(keys, arguments),
            "stand" => self.stand(&keys[0]),
            "begin" => self.begin(&keys[0]),
            "read_messages" => self.read_messages(&keys[0], arguments),
            sweep if sweep.starts_with("sweep_") => integer(0),
            other => panic!("the model's engine has no function {other}"),
        }
    }
}

pub(super) fn milliseconds(word: &[u8]) -> i64 {
    String::from_utf8_lossy(word).parse().unwrap()
}

pub(super) fn integer(number: u64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

pub(super) fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Longer than any link delays.
pub(super) const MAX_LATENCY: Duration = Duration::from_millis(120);
