use std::sync::Arc;

use transport::{QueuedBytes, Share, Unfinished};

use crate::delivery::Delivery;
use crate::limits::Connections;

/// About what a TCP connection, a device's session and a device in the hub take, in bytes.
const TCP: usize = 16 * 1024;
const SESSION: usize = 4 * 1024;
const DEVICE: usize = 4 * 1024;

/// About how much memory that takes which comes and goes.
pub(super) struct Footprint {
    pub(super) shares: [Share; 2],
    pub(super) connections: Arc<Connections>,
    pub(super) delivery: Delivery,
    pub(super) queued: Arc<QueuedBytes>,
    pub(super) unfinished: Unfinished,
}

impl Footprint {
    /// In bytes.
    pub(super) fn bytes(&self) -> usize {
        let tcp: usize = self.shares.iter().map(Share::taken).sum();
        let queued = usize::try_from(self.queued.total()).unwrap_or(usize::MAX);
        (tcp * TCP + self.connections.total() as usize * SESSION + self.delivery.stats().connections * DEVICE)
            .saturating_add(queued)
            .saturating_add(self.unfinished.total())
    }
}
