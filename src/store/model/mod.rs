//! A database in memory that several nodes use at once, for the model test of `delivery`: as much of the store over PostgreSQL as delivery uses, in
//! a time that passes only when all wait. Each node has a link to it with latency, which can stand still or be away; the database can be
//! restarted, or give way to a standby that has not got the last messages.

mod data;
mod node;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

pub(super) use self::data::Data;
pub(super) use self::node::Link;
use super::{Lookups, Store, Watermarks, database::Database, watermarks};
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;
use crate::message::{LogEntry, RoomName};

/// The database. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
    links: watch::Sender<Vec<Faults>>,
}

struct State {
    data: Data,
    /// Counts the processes of the database.
    instance: u64,
    /// Counts the lookups of mailboxes.
    mailbox_lookups: u64,
    /// A standby that lags.
    standby: Option<Data>,
}

/// What is wrong with a node's link.
#[derive(Clone, Copy)]
struct Faults {
    latency: Duration,
    is_hung: bool,
    is_away: bool,
    is_unwritable: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self { latency: Duration::from_millis(1), is_hung: false, is_away: false, is_unwritable: false }
    }
}

/// The link is away.
struct Away;

impl Memory {
    /// An empty database that so many nodes use.
    pub(crate) fn new(nodes: usize) -> Self {
        let state = State { data: Data::default(), instance: 1, mailbox_lookups: 0, standby: None };
        Self { state: Arc::new(state.into()), links: watch::channel(vec![Faults::default(); nodes]).0 }
    }

    /// The store of a node.
    pub(crate) fn store(&self, node: usize, lifecycle: &Lifecycle) -> Store {
        let clock = Clock::system();
        let config =
            super::Config { url: "sqlite::memory:".into(), max_age: Duration::from_hours(24), max_messages: u32::MAX };
        let (database, appends) = Database::over_model(&config, clock);
        let closed = tokio_util::sync::CancellationToken::new();
        let link = Link::new(self.clone(), node);
        let inner = super::Inner {
            lookups: Lookups::start(database.clone(), lifecycle, closed.clone()),
            page_turns: tokio::sync::Semaphore::new(database.parts().readers.max()),
            database: database.clone(),
            watermarks: Watermarks::default(),
            config,
            sweeps: tokio::sync::Mutex::default(),
            closed,
            model: Some(link.clone()),
        };
        let store = Store { inner: Arc::new(inner) };
        let inner = Arc::downgrade(&store.inner);
        store.on_new_epoch(move || {
            if let Some(inner) = inner.upgrade() {
                inner.watermarks.forget_all();
            }
        });
        lifecycle.spawn(node::write(database, link, appends));
        lifecycle.spawn(watermarks::run(store.clone()));
        store
    }

    pub(crate) fn delay(&self, node: usize, latency: Duration) {
        self.links.send_modify(|links| links[node].latency = latency);
    }

    pub(crate) fn hang(&self, node: usize, is_hung: bool) {
        self.links.send_modify(|links| links[node].is_hung = is_hung);
    }

    pub(crate) fn away(&self, node: usize, is_away: bool) {
        self.links.send_modify(|links| links[node].is_away = is_away);
    }

    /// The node can only read.
    pub(crate) fn make_unwritable(&self, node: usize, is_unwritable: bool) {
        self.links.send_modify(|links| links[node].is_unwritable = is_unwritable);
    }

    /// Ends the faults of all links.
    pub(crate) fn heal(&self) {
        self.links.send_modify(|links| links.fill(Faults::default()));
    }

    /// Restarts the database with all that it holds.
    pub(crate) fn restart(&self) {
        self.state.lock().instance += 1;
    }

    /// A standby gets nothing from now on.
    pub(crate) fn lag(&self) {
        let mut state = self.state.lock();
        state.standby = Some(state.data.clone());
    }

    /// A standby takes over: the one that lags, if one does. Returns the messages that are lost; none: not even an epoch is.
    pub(crate) fn fail_over(&self) -> Option<Vec<LogEntry>> {
        let mut state = self.state.lock();
        state.instance += 1;
        let standby = state.standby.take()?;
        let before = std::mem::replace(&mut state.data, standby);
        let lost = before.rooms().flat_map(|room| before.all(room).split_off(state.data.all(room).len()));
        let lost: Vec<_> = lost.collect();
        (!lost.is_empty() || before.epoch() != state.data.epoch()).then_some(lost)
    }

    /// How often it was looked up where a mailbox stands.
    pub(crate) fn mailbox_lookups(&self) -> u64 {
        self.state.lock().mailbox_lookups
    }

    /// Where a mailbox stands cannot be looked up any more.
    pub(crate) fn damage(&self, room: &RoomName) {
        self.state.lock().data.damage(room);
    }

    /// The messages of a room.
    pub(crate) fn messages(&self, room: &RoomName) -> Vec<LogEntry> {
        self.state.lock().data.all(room)
    }

    /// The epoch of what is stored now. `None`: no node has seen yet that the database is another process.
    pub(crate) fn epoch(&self) -> Option<Arc<str>> {
        let state = self.state.lock();
        state.data.epoch().filter(|_| state.data.is_of(state.instance)).cloned()
    }

    /// Waits as long as something takes on the link.
    async fn pass(&self, node: usize) -> Result<(), Away> {
        let mut links = self.links.subscribe();
        let Faults { latency, .. } = links.borrow()[node];
        sleep(latency).await;
        // The sender is kept here.
        let _ = links.wait_for(|links| !links[node].is_hung).await;
        if self.links.borrow()[node].is_away { Err(Away) } else { Ok(()) }
    }
}
