use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Warnings of counts that devices are not told are at least so far apart.
const WARN_INTERVAL: Duration = Duration::from_mins(1);

/// Counts that could not be made or sent since the last warning of them.
#[derive(Default)]
pub(super) struct UntoldCounts(Mutex<(u64, Option<Instant>)>);

impl UntoldCounts {
    /// Notes one. Returns how many there were if it is time to warn.
    pub(super) fn note(&self) -> Option<u64> {
        let (failures, warned_at) = &mut *self.0.lock();
        *failures += 1;
        let is_due = warned_at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL);
        is_due.then(|| {
            *warned_at = Some(Instant::now());
            std::mem::take(failures)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_are_warned_of_once_a_minute() {
        let untold = UntoldCounts::default();
        assert_eq!([untold.note(), untold.note(), untold.note()], [Some(1), None, None]);
        tokio::time::advance(WARN_INTERVAL).await;
        assert_eq!([untold.note(), untold.note()], [Some(3), None]);
    }
}
