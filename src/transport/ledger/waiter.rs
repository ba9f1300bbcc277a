use std::task::Waker;

use super::bounds::Bounds;

/// A task that waits until its connection has room. It is woken when this is dropped, for whatever reason: a ledger that moves to
/// another queue, or is lost with one, leaves no task waiting.
#[derive(Debug)]
pub(super) struct Waiter {
    waker: Waker,
    pub(super) bounds: Bounds,
}

impl Waiter {
    pub(super) fn new(waker: Waker, bounds: Bounds) -> Self {
        Self { waker, bounds }
    }

    /// Whether this wakes the same task.
    pub(super) fn is_of(&self, waker: &Waker) -> bool {
        self.waker.will_wake(waker)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waker.wake_by_ref();
    }
}
