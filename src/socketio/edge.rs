use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use engineioxide::engine::{Engine, WeakEngine};
use tokio_util::sync::CancellationToken;
use transport::{Bounds, Flushers, Pages, Spawn, Unfinished};

use super::Config;
use crate::auth::Expiry;
use crate::clock::{Clock, Jumps};
use crate::command::Commands;
use crate::lifecycle::Lifecycle;
use crate::limits::Connections;

/// What the edge works with.
pub struct Deps {
    /// `[socketio]`.
    pub config: Config,
    /// Retained values of the rooms that a device joins may wait besides `queue_bytes`: at most this many bytes.
    pub on_join_bytes: usize,
    /// From the transport to the answer to CONNECT: `connect_timeout`, and how long a join may take.
    pub accepted_within: Duration,
    /// What happens when tokens expire.
    pub expiry: Expiry,
    /// Runs what devices ask for.
    pub commands: Commands,
    /// Counts transports.
    pub connections: Arc<Connections>,
    /// Which pages may connect.
    pub pages: Pages,
    /// The time of day.
    pub clock: Clock,
    /// Tells when that has jumped.
    pub clock_jumps: Jumps,
    /// Runs tasks.
    pub lifecycle: Lifecycle,
    /// Write the queues of all WebSocket connections.
    pub flushers: Flushers,
    /// Counts packets whose attachments have not all arrived.
    pub unfinished: Unfinished,
    /// Runs the engine's tasks.
    pub spawn: Spawn,
    /// Runs the task of the engine's timers.
    pub spawn_vital: Spawn,
    /// Sessions end when this is cancelled.
    pub done: CancellationToken,
}

/// What all devices of the edge share.
pub(super) struct Edge {
    pub(super) deps: Deps,
    /// Set before the first request. Weak, since the engine keeps the edge: its observer and the library's handlers hold it.
    pub(super) engine: OnceLock<WeakEngine>,
}

impl Edge {
    /// The engine. `None`: the server has ended.
    pub(super) fn engine(&self) -> Option<Engine> {
        self.engine.get()?.upgrade()
    }

    /// What may wait for a device.
    pub(super) fn bounds(&self) -> Bounds {
        let Deps { config, on_join_bytes, .. } = &self.deps;
        Bounds { queue_bytes: config.queue_bytes, exempt_bytes: *on_join_bytes }
    }
}
