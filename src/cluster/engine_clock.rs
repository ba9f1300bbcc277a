use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// The engine's time of day as this node knows it, by the offset that each heartbeat measures. The node's own time of day plays no part, so
/// that it may be wrong.
pub(super) struct EngineClock {
    begin: Instant,
    /// The engine's milliseconds since 1970 at `begin`; 0: not known.
    offset_ms: AtomicI64,
}

impl EngineClock {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), offset_ms: AtomicI64::new(0) }
    }

    /// Notes what the engine said between these two moments. If they are further apart than `at_most`, nobody knows when it said that.
    pub(super) fn set(&self, asked: Instant, answered: Instant, engine_ms: i64, at_most: Duration) {
        if answered - asked > at_most {
            return;
        }
        let middle = asked + (answered - asked) / 2;
        self.offset_ms.store(engine_ms - self.elapsed_ms(middle), Ordering::Relaxed);
    }

    /// Whether a heartbeat has told.
    pub(super) fn is_set(&self) -> bool {
        self.offset_ms.load(Ordering::Relaxed) != 0
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed) + self.elapsed_ms(Instant::now())
    }

    /// How long ago that was; nothing if it is to come.
    pub(super) fn age(&self, ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.now_ms() - ms).unwrap_or_default())
    }

    fn elapsed_ms(&self, at: Instant) -> i64 {
        i64::try_from((at - self.begin).as_millis()).unwrap_or(i64::MAX)
    }
}
