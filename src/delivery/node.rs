use std::sync::{Arc, atomic::AtomicU64};

use transport::QueuedBytes;

use super::{
    collapse_windows::Collapse,
    config::{self, CollapseConfig, HistoryConfig, RetainConfig, RoomConfig},
    log_lanes::LogLanes,
    ready_deadlines::ReadyDeadlines,
    unreadable_logs::UnreadableLogs,
};
use crate::clock::Clock;
use crate::cluster::Bus;
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::limits;
use crate::state::{History, Idempotency, Retained, UserRooms};
use crate::store::Store;

/// The name of the only node there is.
pub const NODE: &str = "solo";

/// What delivery works with.
pub struct Deps<'a> {
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
    pub(super) hub: Hub,
    pub(super) idempotency: Idempotency,
    /// Where backends have put users.
    pub(super) memberships: UserRooms,
    /// Where users may go by themselves.
    pub(super) grants: UserRooms,
    pub(super) retained: Retained,
    pub(super) collapse: Collapse,
    pub(super) history: History,
    pub(super) store: Option<Store>,
    pub(super) lanes: LogLanes,
    pub(super) unreadable_logs: UnreadableLogs,
    pub(super) ready_deadlines: ReadyDeadlines,
    /// Emits so far.
    pub(super) accepted: AtomicU64,
    pub(super) clock: Clock,
    pub(super) lifecycle: Lifecycle,
    pub(super) connections_per_user: usize,
}

impl Delivery {
    /// Delivery on one node.
    pub fn new(deps: Deps<'_>) -> Self {
        let Deps { limits, retain, collapse, rooms, history, store, max_waiting_bytes, queued, clock, lifecycle } =
            deps;
        let inner = Inner {
            bus: Bus::Solo,
            hub: Hub::new(max_waiting_bytes),
            retained: Retained::new(retain.max_entries, retain.max_room_bytes),
            collapse: Collapse::new(collapse),
            history: config::history(rooms, history),
            store,
            lanes: LogLanes::default(),
            unreadable_logs: UnreadableLogs::default(),
            ready_deadlines: ReadyDeadlines::default(),
            accepted: AtomicU64::new(0),
            idempotency: Idempotency::new(limits.idempotency_keys),
            memberships: UserRooms::new(limits.memberships),
            grants: UserRooms::new(limits.grants),
            clock,
            lifecycle: lifecycle.clone(),
            connections_per_user: limits.connections_per_user as usize,
        };
        let delivery = Self { inner: Arc::new(inner) };
        if let Some(store) = delivery.store() {
            let inner = Arc::downgrade(&delivery.inner);
            store.on_new_epoch(move || {
                if let Some(inner) = inner.upgrade() {
                    inner.hub.forget_log_heads();
                }
            });
        }
        lifecycle.spawn_vital("queue bound", delivery.clone().bound_queues(queued));
        lifecycle.spawn_vital("sweeper", delivery.clone().sweep_loop());
        delivery
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
