use std::sync::{Arc, atomic::AtomicU64};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use transport::QueuedBytes;

use super::{
    collapse_windows::Collapse,
    collapsing::Collapsing,
    config::{CollapseConfig, HistoryConfig, RetainConfig, RoomConfig, history_rules},
    faulty_logs::FaultyLogs,
    fills::Fills,
    frame_lanes::FrameLanes,
    grants::Grants,
    history_heads::HistoryHeads,
    log_lanes::LogLanes,
    memberships::Memberships,
    page_entry::PageEntry,
    ready_deadlines::ReadyDeadlines,
    retained_changes::RetainedChanges,
    sendings::Sendings,
    untold_counts::UntoldCounts,
    wakes::Wakes,
};
use crate::clock::Clock;
use crate::cluster::{Bus, BusError, Cluster, Subscribed};
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::limits;
use crate::state::{
    Executed, History, Idempotency, Retained, SharedCollapse, SharedHistory, SharedIdempotency, SharedRetained,
};
use crate::store::{Pages, Store};

/// What delivery works with.
pub struct Deps<'a> {
    /// Carries frames between nodes.
    pub bus: Bus,
    /// `[limits]`.
    pub limits: &'a limits::Config,
    /// `[retain]`.
    pub retain: RetainConfig,
    /// `[collapse]`.
    pub collapse: CollapseConfig,
    /// `[[rooms]]`.
    pub rooms: &'a [RoomConfig],
    /// `[history]`.
    pub history: HistoryConfig,
    /// What outlives the process; none: nothing does.
    pub store: Option<Store>,
    /// What comes for a connection that is not live yet waits, up to so many bytes.
    pub max_waiting_bytes: usize,
    /// The bytes in the write queues of all connections.
    pub queued: Arc<QueuedBytes>,
    /// The time of day.
    pub clock: Clock,
    /// Runs tasks.
    pub lifecycle: Lifecycle,
}

/// Delivers emits, and knows who is there to get them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Delivery {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) bus: Bus,
    /// The name of this node.
    pub(super) node: Arc<str>,
    /// What nodes share; none: this one is alone.
    pub(super) shared: Option<Shared>,
    pub(super) frame_lanes: FrameLanes,
    pub(super) fills: Fills,
    pub(super) pages: Pages<PageEntry>,
    /// The same of histories that nodes share.
    pub(super) history_fills: Fills,
    /// Rooms whose nodes are to be told of what is stored.
    pub(super) wakes: Wakes,
    /// Notified when frames come again that did not come for a while.
    pub(super) frames_missed: Notify,
    /// Every node is subscribed to everyone's room.
    pub(super) everyone: Mutex<Subscribed>,
    pub(super) hub: Hub,
    pub(super) idempotency: Idempotency,
    /// Where backends have put users.
    pub(super) memberships: Memberships,
    /// Where users may go by themselves.
    pub(super) grants: Grants,
    pub(super) retained: Retained,
    pub(super) collapse: Collapse,
    pub(super) history: History,
    /// Of several nodes: how far they are sent here.
    pub(super) history_heads: HistoryHeads,
    pub(super) store: Option<Store>,
    pub(super) lanes: LogLanes,
    pub(super) faulty_logs: FaultyLogs,
    pub(super) untold_counts: UntoldCounts,
    pub(super) sendings: Sendings,
    pub(super) ready_deadlines: ReadyDeadlines,
    /// Emits so far.
    pub(super) accepted: AtomicU64,
    pub(super) clock: Clock,
    pub(super) lifecycle: Lifecycle,
    pub(super) connections_per_user: usize,
}

/// What several nodes share at their engine, in place of what one that is alone keeps in memory.
pub(super) struct Shared {
    pub(super) idempotency: SharedIdempotency,
    /// What this node has executed of emits under keys.
    pub(super) executed: Executed,
    pub(super) retained: SharedRetained,
    pub(super) changes: RetainedChanges,
    pub(super) history: SharedHistory,
    pub(super) collapse: SharedCollapse,
    pub(super) collapsing: Collapsing,
    /// Tasks that keep windows.
    pub(super) windows: TaskTracker,
    /// Cancelled when a stop waits for them no longer: what they hold is lost with the engine.
    pub(super) windows_given_up: CancellationToken,
}

impl Delivery {
    /// Delivery on one node.
    pub fn new(deps: Deps<'_>) -> Self {
        let Deps { bus, limits, retain, collapse, rooms, history, store, max_waiting_bytes, queued, clock, lifecycle } =
            deps;
        let engines = bus.cluster().map(Cluster::engines);
        let shared = engines.map(|engines| {
            let retained = SharedRetained::new(engines.clone(), retain.max_entries, retain.max_room_bytes);
            Shared {
                idempotency: SharedIdempotency::new(engines.clone(), limits.idempotency_keys, lifecycle.clone()),
                executed: Executed::new(limits.idempotency_keys),
                collapse: SharedCollapse::new(engines.clone(), retained.clone(), collapse.window, collapse.max_keys),
                retained,
                history: SharedHistory::new(engines.clone(), history_rules(rooms), history.max_bytes),
                changes: RetainedChanges::default(),
                collapsing: Collapsing::default(),
                windows: TaskTracker::new(),
                windows_given_up: CancellationToken::new(),
            }
        });
        let inner = Inner {
            node: bus.node(),
            shared,
            frame_lanes: FrameLanes::default(),
            fills: Fills::default(),
            pages: Pages::default(),
            history_fills: Fills::default(),
            wakes: Wakes::default(),
            frames_missed: Notify::new(),
            everyone: Mutex::default(),
            memberships: Memberships::new(limits.memberships, engines),
            grants: Grants::new(limits.grants, engines),
            hub: Hub::new(max_waiting_bytes),
            retained: Retained::new(retain.max_entries, retain.max_room_bytes),
            collapse: Collapse::new(collapse),
            history: History::new(history_rules(rooms), history.max_bytes),
            history_heads: HistoryHeads::default(),
            store,
            lanes: LogLanes::default(),
            faulty_logs: FaultyLogs::default(),
            untold_counts: UntoldCounts::default(),
            sendings: Sendings::default(),
            ready_deadlines: ReadyDeadlines::default(),
            accepted: AtomicU64::new(0),
            idempotency: Idempotency::new(limits.idempotency_keys),
            clock,
            lifecycle: lifecycle.clone(),
            connections_per_user: limits.connections_per_user as usize,
            bus,
        };
        let delivery = Self { inner: Arc::new(inner) };
        if let Some(store) = delivery.store() {
            let inner = Arc::downgrade(&delivery.inner);
            store.on_new_epoch(move || {
                if let Some(inner) = inner.upgrade() {
                    Self { inner }.forget_log_heads();
                }
            });
        }
        lifecycle.spawn_vital("queue bound", delivery.clone().bound_queues(queued));
        if !delivery.is_alone() && delivery.store().is_some() {
            lifecycle.spawn_vital("stored messages", delivery.clone().poll_store());
            lifecycle.spawn_vital("wakes", delivery.clone().wake_loop());
        }
        lifecycle.spawn_vital("sweeper", delivery.clone().sweep_loop());
        delivery
    }

    /// The other nodes and what is shared with them, if there may be any.
    pub(super) fn others(&self) -> Option<(&Cluster, &Shared)> {
        self.inner.bus.cluster().zip(self.inner.shared.as_ref())
    }

    /// What is shared with other nodes. An error: this node is alone.
    pub(super) fn shared(&self) -> Result<&Shared, BusError> {
        self.inner.shared.as_ref().ok_or(BusError::Away)
    }

    /// What outlives the process; none: nothing does.
    pub(super) fn store(&self) -> Option<&Store> {
        self.inner.store.as_ref()
    }

    /// The connections on this node.
    pub(super) fn hub(&self) -> &Hub {
        &self.inner.hub
    }
}
