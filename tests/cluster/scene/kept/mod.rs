//! Rooms that keep their messages, a load of emits to them, and devices that lose or end their connections and come back to any node. What was
//! accepted is repeated at another node until it is: a refusal or a silence tells nothing of whether it was.

mod devices;
mod load;
mod verdict;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::nodes::{Attempts, Nodes};
use crate::{
    NODES,
    harness::{Backend, any_of},
};
use devices::{Listener, Who};
use load::{Call, Load, Progress};
pub use verdict::Outcome;

/// All devices of these scenes are in it, and no others.
pub const KEEPERS: &str = "group:keepers";
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);
/// How long devices may take to come to all that was accepted, after the last message of their rooms.
const SETTLED: Duration = Duration::from_secs(30);

/// A room that keeps its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Room {
    /// In its user's mailbox.
    Mailbox(String),
    /// In a mailbox of its own.
    Stored(&'static str),
    /// In the engine.
    History(&'static str),
}

const SHARED: [Room; 4] = [
    Room::Stored("kept:stored-a"),
    Room::Stored("kept:stored-b"),
    Room::History("kept:history-a"),
    Room::History("kept:history-b"),
];

impl Room {
    fn name(&self) -> String {
        match self {
            Self::Mailbox(user) => format!("user:{user}"),
            Self::Stored(name) | Self::History(name) => (*name).to_owned(),
        }
    }

    fn is_history(&self) -> bool {
        matches!(self, Self::History(_))
    }
}

/// What the nodes need to know: rooms by claims, and which of them have a history.
pub const CONFIG: &str = "[[rooms]]\nmatch = \"kept:history-*\"\nhistory = { size = 10_000, age = \"1h\" }\n";
/// Rooms that `auth.rooms` gives to these devices.
pub const AUTH_ROOMS: [&str; 2] = ["kept:{claim.kept}", "group:{claim.group}"];

/// What was accepted, by the room. `None` until all was.
type Finale = Option<Arc<HashMap<String, HashSet<usize>>>>;

/// The load, and its devices.
pub struct Kept {
    load: Load,
    devices: JoinSet<Listener>,
    places: Arc<Places>,
    /// When the first emit was made.
    began: Instant,
    finale: watch::Sender<Finale>,
    give_up: CancellationToken,
}

/// What came of it.
pub struct Told {
    calls: Vec<Call>,
    devices: Vec<Listener>,
    /// From when until when emits were made.
    began: Instant,
    stopped: Instant,
    /// From the last answer until all devices had everything.
    settled_after: Duration,
}

impl Kept {
    /// Connects devices, and begins to emit so much a second.
    pub async fn start(nodes: &Nodes, rate: u32, in_flight: usize) -> Self {
        let places = Arc::new(Places::new(nodes));
        let (finale, _) = watch::channel(None);
        let give_up = CancellationToken::new();
        let (mut devices, who) = (JoinSet::new(), Who::all());
        let (ready, mut are_ready) = mpsc::channel(who.len());
        for who in who {
            let listener = Listener::new(who, rate);
            let listening = listener.listen(places.clone(), ready.clone(), finale.subscribe(), give_up.clone());
            devices.spawn(listening);
        }
        drop(ready);
        let all_ready = async { while are_ready.recv().await.is_some() {} };
        timeout(LONG, all_ready).await.expect("all devices know where their rooms stand");
        let load = Load::start(places.clone(), rooms(), rate, in_flight);
        Self { load, devices, places, began: Instant::now(), finale, give_up }
    }

    /// The users of the devices. In the end none of them is connected.
    pub fn users() -> Vec<String> {
        Who::all().into_iter().map(|who| who.user).collect()
    }

    /// A node has ended.
    pub fn leave_out(&self, node: usize) {
        self.places.0.lock()[node] = None;
    }

    /// A node is there again, as another process.
    pub fn place(&self, node: usize, nodes: &Nodes) {
        self.places.0.lock()[node] = Some(Place::new(node, nodes));
    }

    /// Waits until so many more emits are accepted, half of them to histories.
    pub async fn accepted(&mut self, more: usize) {
        let is_enough = |now: &Progress, then: &Progress| {
            now.stored >= then.stored + more / 2 && now.in_histories >= then.in_histories + more / 2
        };
        self.load.progressed(&format!("{more} kept emits to be accepted"), is_enough).await;
    }

    /// Waits until so many more emits to histories are accepted.
    pub async fn accepted_in_histories(&mut self, more: usize) {
        let is_enough = |now: &Progress, then: &Progress| now.in_histories >= then.in_histories + more;
        self.load.progressed(&format!("{more} emits to histories to be accepted"), is_enough).await;
    }

    /// Waits until so many more calls were refused that were to store something, or not answered in time.
    pub async fn not_stored(&mut self, more: usize) {
        let is_enough = |now: &Progress, then: &Progress| now.not_stored >= then.not_stored + more;
        self.load.progressed(&format!("{more} stored emits to be refused"), is_enough).await;
    }

    /// Ends the load, and waits until all devices have everything.
    pub async fn end(mut self) -> Told {
        let stopped = Instant::now();
        let calls = self.load.stop().await;
        let answered = Instant::now();
        let mut accepted: HashMap<_, HashSet<_>> = rooms().iter().map(|room| (room.name(), HashSet::new())).collect();
        for call in &calls {
            accepted.entry(call.room.name()).or_default().insert(call.number);
        }
        self.finale.send_replace(Some(Arc::new(accepted)));
        let mut devices = Vec::new();
        let all = async {
            while let Some(device) = self.devices.join_next().await {
                devices.push(device.expect("a device does not panic"));
            }
        };
        if timeout(SETTLED, all).await.is_err() {
            self.give_up.cancel();
            devices.extend(self.devices.join_all().await);
        }
        Told { calls, devices, began: self.began, stopped, settled_after: answered.elapsed() }
    }
}

fn rooms() -> Vec<Room> {
    SHARED.into_iter().chain(Kept::users().into_iter().map(Room::Mailbox)).collect()
}

/// Where the nodes are that are there.
struct Places(Mutex<[Option<Place>; NODES]>);

#[derive(Clone)]
struct Place {
    node: usize,
    devices: Attempts,
    backend: Backend,
}

impl Place {
    fn new(node: usize, nodes: &Nodes) -> Self {
        Self { node, devices: nodes.attempts(node), backend: nodes.backends()[node].clone() }
    }
}

impl Places {
    fn new(nodes: &Nodes) -> Self {
        Self(Mutex::new(std::array::from_fn(|node| Some(Place::new(node, nodes)))))
    }

    fn any(&self) -> Place {
        let there: Vec<_> = self.0.lock().iter().flatten().cloned().collect();
        any_of(&there).clone()
    }

    /// This one, or another one.
    fn by_turns(&self, number: usize) -> Place {
        let place = self.0.lock()[number % NODES].clone();
        place.unwrap_or_else(|| self.any())
    }
}

/// Any number below this one.
fn chance(below: usize) -> usize {
    let random = RandomState::new().build_hasher().finish();
    usize::try_from(random % below as u64).expect("it is below that")
}
