use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

/// The time of day by another machine's clock, in milliseconds since 1970. Between two looks at that clock it passes as this machine's monotonic clock
/// does: a jump of the time of day here makes no difference.
pub(super) struct RemoteTime {
    begun: Instant,
    /// The time there when `begun` was taken. [`UNKNOWN`] before the first look.
    begun_ms: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

impl RemoteTime {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), begun_ms: AtomicI64::new(UNKNOWN) }
    }

    pub(super) fn note(&self, ms: i64) {
        self.begun_ms.store(ms.saturating_sub(self.elapsed_ms()), Ordering::Relaxed);
    }

    /// `None` before the first look.
    pub(super) fn now_ms(&self) -> Option<i64> {
        let begun_ms = Some(self.begun_ms.load(Ordering::Relaxed)).filter(|ms| *ms != UNKNOWN)?;
        Some(begun_ms.saturating_add(self.elapsed_ms()))
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_the_last_look() {
        let time = RemoteTime::new();
        assert_eq!(time.now_ms(), None);
        for ms in [0, 1 << 50, 1_000] {
            time.note(ms);
            let (now_ms, later_ms) = (time.now_ms().unwrap(), time.now_ms().unwrap());
            assert!((ms..ms + 60_000).contains(&now_ms) && later_ms >= now_ms);
        }
        time.note(1_000);
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 2 {}
        assert!(time.now_ms().unwrap() >= 1_002);
    }
}
