//! From an emit to a receipt; who is in which room; who is connected. What concerns this node alone is the hub's, what
//! is shared with others `state`'s, and here the two meet.

mod idempotency_key;
pub use idempotency_key::IdempotencyKey;

mod publish;
pub use publish::{EmitError, Published, Publishing};

mod execute;

mod envelope;

mod acks;
pub use acks::PendingAcks;

mod collapse;
pub use collapse::CollapseConfig;

mod retained;
pub use retained::RetainConfig;

mod history;
pub use history::{HistoryConfig, RoomConfig, RoomHistory};

mod log_lane;

mod proof;

mod unread;
pub use unread::Deletion;

mod presence;
pub use presence::{ConnectionInfo, Stats};

mod rooms;

mod resume;
pub use resume::Resume;

mod catch_up;

mod replay;

mod first_resume_grace;

mod overload;

mod devices;
pub use devices::Admission;

// What goes through delivery unchanged.
pub use crate::hub::{Connection, Page, RoomUsers};
pub use crate::state::{RetainedValue, TooMany};

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{task::yield_now, time::MissedTickBehavior};
use transport::QueuedBytes;

use self::{collapse::Collapse, devices::ReadyDeadlines, first_resume_grace::FirstResumeGrace, log_lane::LogLanes};
use crate::clock::Clock;
use crate::hub::{Hub, Reason};
use crate::lifecycle::Lifecycle;
use crate::limits;
use crate::state::{History, Idempotency, Retained, UserRooms};
use crate::store::Store;

/// The name of the only node there is.
pub const NODE: &str = "solo";
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

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
    inner: Arc<Inner>,
}

struct Inner {
    hub: Hub,
    idempotency: Idempotency,
    /// Where backends have put users.
    memberships: UserRooms,
    /// Where users may go by themselves.
    grants: UserRooms,
    retained: Retained,
    collapse: Collapse,
    history: History,
    store: Option<Store>,
    lanes: LogLanes,
    first_resume_grace: FirstResumeGrace,
    ready_deadlines: ReadyDeadlines,
    /// Emits so far.
    accepted: AtomicU64,
    clock: Clock,
    lifecycle: Lifecycle,
    connections_per_user: usize,
}

impl Delivery {
    /// Delivery on one node.
    pub fn new(deps: Deps<'_>) -> Self {
        let Deps { limits, retain, collapse, rooms, history, store, max_waiting_bytes, queued, clock, lifecycle } =
            deps;
        let inner = Inner {
            hub: Hub::new(max_waiting_bytes),
            retained: Retained::new(retain.max_entries, retain.max_room_bytes),
            collapse: Collapse::new(collapse),
            history: history::history(rooms, history),
            store,
            lanes: LogLanes::default(),
            first_resume_grace: FirstResumeGrace::default(),
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
        lifecycle.spawn_vital("queue bound", delivery.clone().bound_queues(queued));
        lifecycle.spawn_vital("sweeper", delivery.clone().sweep_loop());
        delivery
    }

    async fn sweep_loop(self) {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.inner.lifecycle.is_stopping() {
            tokio::select! {
                () = self.inner.lifecycle.stopping() => {}
                _ = tick.tick() => self.sweep().await,
            }
        }
    }

    /// Forgets what has ended, in steps that are short, since each has a lock: others get a chance to run in between.
    async fn sweep(&self) {
        self.close_late();
        self.inner.first_resume_grace.sweep();
        while self.inner.idempotency.sweep() {
            yield_now().await;
        }
        let now = self.inner.clock.now();
        while self.inner.retained.sweep(now) {
            yield_now().await;
        }
        let mut swept = 0;
        while let Some(next) = self.inner.history.sweep(now.as_millisecond(), swept) {
            swept = next;
            yield_now().await;
        }
        // A user who has used the right to join a room stays: what has ended is the right.
        while !self.inner.grants.sweep().is_empty() {
            yield_now().await;
        }
        self.sweep_memberships().await;
    }

    async fn sweep_memberships(&self) {
        loop {
            let ended = self.inner.memberships.sweep();
            if ended.is_empty() {
                return;
            }
            for (user, room) in ended {
                self.leave_now(&user, &room, Reason::Backend);
                // A JoinRoom in between saw its connections in the room still.
                if self.inner.memberships.has(&user, &room) {
                    self.join_again(&user, &room).await;
                }
            }
            yield_now().await;
        }
    }

    /// What outlives the process; none: nothing does.
    fn store(&self) -> Option<&Store> {
        self.inner.store.as_ref()
    }

    /// The connections on this node.
    fn hub(&self) -> &Hub {
        &self.inner.hub
    }
}

#[cfg(test)]
mod tests;
