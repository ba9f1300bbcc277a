use std::sync::Arc;

use transport::{QueuedBytes, Share, Unfinished};

use crate::delivery::Delivery;
use crate::limits::Connections;

/// About what a TCP connection (a backend's: with what its calls may hold), a device's session and a device in the hub take, in bytes.
const TCP: usize = 32 * 1024;
const BACKEND: usize = 256 * 1024;
const SESSION: usize = 4 * 1024;
const DEVICE: usize = 4 * 1024;

/// About how much memory that takes which comes and goes.
pub(super) struct Footprint {
    pub(super) devices: Share,
    pub(super) backends: Share,
    pub(super) connections: Arc<Connections>,
    pub(super) delivery: Delivery,
    pub(super) queued: Arc<QueuedBytes>,
    pub(super) under_way: [Unfinished; 2],
}

impl Footprint {
    /// In bytes.
    pub(super) fn bytes(&self) -> usize {
        let tcp = self.devices.taken() * TCP + self.backends.taken() * BACKEND;
        let queued = usize::try_from(self.queued.total()).unwrap_or(usize::MAX);
        let connected = usize::try_from(self.delivery.own_stats().connections).unwrap_or(usize::MAX);
        (tcp + self.connections.total() as usize * SESSION + connected * DEVICE)
            .saturating_add(queued)
            .saturating_add(self.under_way.iter().map(Unfinished::total).sum())
    }
}
