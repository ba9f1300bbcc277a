use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use transport::{Bounds, Flushers, Pages, Stranger};

use super::{EndpointConfig, timers::Timers};
use crate::auth::Expiry;
use crate::clock::{Clock, Jumps};
use crate::command::Commands;
use crate::lifecycle::Lifecycle;
use crate::limits::{AddressSlot, Connections};

/// What the edge works with.
pub struct Deps {
    /// `[[websocket]]`.
    pub endpoints: Vec<EndpointConfig>,
    /// How often a device is asked whether it is still there.
    pub ping_interval: Duration,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
    /// The largest message that a device may send, in bytes.
    pub max_message: usize,
    /// What may wait for a device, in bytes; past it, the device is slow.
    pub queue_bytes: usize,
    /// Retained values of the rooms that a device joins may wait besides: at most this many bytes.
    pub on_join_bytes: usize,
    /// What happens when tokens expire. Devices are not told before.
    pub expiry: Expiry,
    /// Runs what devices ask for.
    pub commands: Commands,
    /// Counts sockets.
    pub connections: Arc<Connections>,
    /// Which pages may connect.
    pub pages: Pages,
    /// The time of day.
    pub clock: Clock,
    /// Tells when that has jumped.
    pub clock_jumps: Jumps,
    /// Runs tasks.
    pub lifecycle: Lifecycle,
    /// Write the queues of sockets.
    pub flushers: Flushers,
    /// The timers of all sockets end when this is cancelled.
    pub done: CancellationToken,
}

/// One path, and what is to be had there.
pub(super) struct Endpoint {
    pub(super) config: EndpointConfig,
    pub(super) deps: Arc<Deps>,
    pub(super) timers: Arc<Timers>,
}

impl Deps {
    /// What may wait for a device.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { queue_bytes: self.queue_bytes, exempt_bytes: self.on_join_bytes }
    }
}

/// A device that was let through the gate, and has yet to say who it is.
pub(super) struct Visitor {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) address: IpAddr,
    pub(super) user_agent: Arc<str>,
    /// Its connection, which counts as a stranger's until a token is accepted.
    pub(super) stranger: Option<Arc<Stranger>>,
    /// Held for as long as the socket is open.
    pub(super) slot: AddressSlot,
}
