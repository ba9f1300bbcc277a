use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{
    Config, Node, answering::Outbox, engine::Engine, engine_clock::EngineClock, head::VERSION, live_peers::Known,
    pending::Pending, publisher::Outgoing, rooms::Rooms,
};

/// What this node has to do with one engine: what it publishes there, what it is subscribed to, and its lease.
pub(super) struct Shard {
    pub(super) engine: Engine,
    pub(super) index: usize,
    pub(super) config: Config,
    /// Names this node at the engine: another one after each lease that ended.
    pub(super) incarnation: AtomicU64,
    /// The version of the frames that all peers understand.
    pub(super) version: AtomicU8,
    pub(super) clock: EngineClock,
    /// Peers with a lease, this node among them, as of the last heartbeat.
    pub(super) live: AtomicUsize,
    /// The same peers, for receipts.
    pub(super) known: Mutex<Arc<Known>>,
    /// As of the last heartbeat, all peers are known and ready: frames come to every node that has their room.
    pub(super) is_whole: AtomicBool,
    /// How often that has ended, or a frame was not understood.
    pub(super) gaps: AtomicU64,
    /// All peers have known this node at some time.
    pub(super) is_counted: AtomicBool,
    /// Whether all rooms of this node are subscribed.
    pub(super) is_ready: AtomicBool,
    /// Since when that is as it is. None: it never was ready.
    pub(super) ready_changed: Mutex<Option<Instant>>,
    /// Notified when `is_ready` changes.
    pub(super) readiness: Notify,
    pub(super) pending: Pending,
    pub(super) outgoing: Outgoing,
    pub(super) outbox: Outbox,
    pub(super) rooms: Rooms,
    /// Holds this node's name, as long as the process lives.
    pub(super) holder: u64,
    /// The subscribing connection, as the engine knows it.
    pub(super) client: Mutex<Option<Client>>,
    /// Those before, which may still count as subscribers at the engine.
    pub(super) lost_clients: Mutex<Vec<Client>>,
    /// When the last heartbeat began that renewed the lease.
    pub(super) renewed: Mutex<Option<Instant>>,
    /// Notified when a heartbeat is due at once.
    pub(super) heartbeat_now: Notify,
    /// Notified when a heartbeat is done.
    pub(super) heartbeat_done: Notify,
    /// Notified when the lease has ended: the subscribing connection is to be closed.
    pub(super) fenced: Notify,
    /// Set when this node leaves for good.
    pub(super) is_leaving: AtomicBool,
    pub(super) node: OnceLock<Arc<dyn Node>>,
}

/// A connection at an engine. Another engine, or the same after a restart, gives its id to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) run_id: Arc<str>,
}

impl Shard {
    pub(super) fn new(index: usize, engine: Engine, config: Config) -> Arc<Self> {
        Arc::new(Self {
            engine,
            index,
            config,
            incarnation: AtomicU64::new(new_incarnation()),
            version: AtomicU8::new(VERSION),
            clock: EngineClock::new(),
            live: AtomicUsize::new(0),
            known: Mutex::new(Arc::new(Known::none())),
            is_whole: AtomicBool::new(false),
            gaps: AtomicU64::new(0),
            is_counted: AtomicBool::new(false),
            is_ready: AtomicBool::new(false),
            ready_changed: Mutex::default(),
            readiness: Notify::new(),
            pending: Pending::default(),
            outgoing: Outgoing::default(),
            outbox: Outbox::default(),
            rooms: Rooms::default(),
            holder: new_incarnation(),
            client: Mutex::default(),
            lost_clients: Mutex::default(),
            renewed: Mutex::default(),
            heartbeat_now: Notify::new(),
            heartbeat_done: Notify::new(),
            fenced: Notify::new(),
            is_leaving: AtomicBool::new(false),
            node: OnceLock::new(),
        })
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Takes another incarnation: what was sent to the old one no longer comes.
    pub(super) fn renew_incarnation(&self) {
        self.incarnation.store(new_incarnation(), Ordering::Release);
    }

    pub(super) fn node(&self) -> Option<&Arc<dyn Node>> {
        self.node.get()
    }

    /// Whether the peers no longer wait for this node, if it has not renewed its lease since: then its connections are in no receipt.
    pub(super) fn is_fenced_by_now(&self) -> bool {
        self.renewed.lock().is_none_or(|renewed| renewed.elapsed() > self.config.fenced_after())
    }

    /// Returns whether it was ready before.
    pub(super) fn set_ready(&self, is_ready: bool) -> bool {
        let was_ready = self.is_ready.swap(is_ready, Ordering::AcqRel);
        if !is_ready {
            self.set_whole(false);
        }
        if was_ready != is_ready {
            *self.ready_changed.lock() = Some(Instant::now());
            self.readiness.notify_waiters();
        }
        was_ready
    }

    /// Notes whether all peers are known and ready.
    pub(super) fn set_whole(&self, is_whole: bool) {
        if self.is_whole.swap(is_whole, Ordering::AcqRel) && !is_whole {
            self.gaps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For how long some room has not been subscribed, or the lease has not been renewed for longer than a heartbeat takes. `None`: neither is so.
    pub(super) fn unready_for(&self) -> Option<Duration> {
        let elapsed = |since: Option<Instant>| since.map_or(Duration::MAX, |since| since.elapsed());
        let unready = (!self.is_ready()).then(|| elapsed(*self.ready_changed.lock()));
        let unrenewed = elapsed(*self.renewed.lock());
        let late = self.config.heartbeat + self.config.deadline;
        unready.max((unrenewed > late).then_some(unrenewed))
    }

    /// Whether all rooms of this node are subscribed.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Whether receipts of all peers count this node: its connections may come.
    pub(super) fn is_counted(&self) -> bool {
        #[cfg(test)]
        if is_broken(Rule::NewNodeIsKnown) {
            return true;
        }
        self.is_counted.load(Ordering::Acquire)
    }

    /// The channel of answers to an incarnation.
    pub(super) fn channel_of(&self, incarnation: u64) -> String {
        self.engine.name("n", &format!("{incarnation:016x}"))
    }

    /// The channel to which a node of this name is subscribed while it is ready.
    pub(super) fn ready_channel(&self, name: &str) -> String {
        self.engine.name("ready", name)
    }

    /// The channel of a room.
    pub(super) fn channel_of_room(&self, room: &str) -> String {
        self.engine.name("r", room)
    }
}

fn new_incarnation() -> u64 {
    // A random UUID has 6 bits that are not.
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    (high ^ low.rotate_left(8)).max(1)
}
