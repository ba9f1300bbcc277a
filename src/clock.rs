//! The time of day, from the system or from a test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;

/// Tells the time of day. Intervals are tokio's business; this is for what is compared with or shown to the outside:
/// expiry of tokens, timestamps, message ids.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that starts at the system's time and can be moved with [`Clock::advance`].
    pub fn movable() -> Self {
        Self { ahead_ms: Some(Arc::default()) }
    }

    /// Moves a movable clock, and all its clones, forward. The system's clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Some(ahead) = &self.ahead_ms {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            ahead.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is where the time is read")]
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        let Some(ahead) = &self.ahead_ms else {
            return now;
        };
        let ahead = jiff::SignedDuration::from_millis(ahead.load(Ordering::SeqCst));
        now.checked_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// How far a movable clock is ahead of the system's, in milliseconds.
    pub fn ahead_ms(&self) -> i64 {
        self.ahead_ms.as_ref().map_or(0, |ahead| ahead.load(Ordering::SeqCst))
    }

    /// How long it is until then; nothing if that has passed.
    pub fn until(&self, time: Timestamp) -> Duration {
        Duration::try_from(time.duration_since(self.now())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_movable_clock_moves_with_its_clones() {
        let clock = Clock::movable();
        let clone = clock.clone();
        let before = clone.now();
        clock.advance(Duration::from_hours(1));
        assert!(clone.now().duration_since(before).as_secs() >= 3600);
    }
}
