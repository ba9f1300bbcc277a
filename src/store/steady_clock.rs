use std::time::Duration;

use tokio::time::Instant;

/// Rows that are deleted in an hour because of a jump alone.
pub(super) const ROWS_BY_JUMP: i64 = 10_000;
const HOUR: Duration = Duration::from_hours(1);
/// The time of day may run ahead of the monotonic clock by so much between two looks.
const TOLERANCE_MS: i64 = 60_000;
/// A store that was silent for so long before this process began may have been away, or its clock may be wrong.
const SILENCE_MS: i64 = 3_600_000;

/// Follows the time of day as long as that passes as the monotonic clock does. When it has jumped ahead it stays behind: after a wrong clock was
/// set right nothing is lost, and after a real gap, such as a suspend, what has expired goes all the same, slowly.
#[derive(Debug, Default)]
pub(super) struct SteadyClock {
    last: Option<(i64, Option<Instant>)>,
    behind_ms: i64,
    /// Rows that were deleted because of a jump, in the hour that began then.
    hour: Option<(Instant, i64)>,
}

impl SteadyClock {
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// `newest_ms`: when the store was used last, by its messages.
    pub(super) fn begin(&mut self, newest_ms: i64) {
        self.last = Some((newest_ms.saturating_add(SILENCE_MS), None));
    }

    /// Takes note of the time of day. Returns how far it has jumped ahead since the last look.
    pub(super) fn observe(&mut self, now_ms: i64, now: Instant) -> i64 {
        let expected = match self.last {
            Some((last_ms, Some(at))) => {
                last_ms.saturating_add(i64::try_from((now - at).as_millis()).unwrap_or(i64::MAX))
            }
            // Earlier than that is no jump back.
            Some((last_ms, None)) => last_ms.max(now_ms.min(last_ms)),
            None => now_ms,
        };
        let is_first = !matches!(self.last, Some((_, Some(_))));
        self.last = Some((now_ms, Some(now)));
        let jumped = now_ms.saturating_sub(expected);
        if jumped > TOLERANCE_MS || (jumped < -TOLERANCE_MS && !is_first) {
            self.behind_ms = self.behind_ms.saturating_add(jumped).max(0);
        }
        if jumped > TOLERANCE_MS { jumped } else { 0 }
    }

    pub(super) fn steady(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.behind_ms)
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind_ms > 0
    }

    /// Rows that may be deleted now because of the jump.
    pub(super) fn allowance(&mut self, now: Instant) -> i64 {
        match self.hour {
            Some((since, deleted)) if now - since < HOUR => ROWS_BY_JUMP - deleted,
            Some(_) | None => {
                self.hour = Some((now, 0));
                ROWS_BY_JUMP
            }
        }
    }

    /// So many were. `is_all`: nothing is left that has expired by the time of day, which is followed again.
    pub(super) fn spend(&mut self, rows: i64, is_all: bool) {
        if let Some((_, deleted)) = &mut self.hour {
            *deleted += rows;
        }
        if is_all {
            self.behind_ms = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn after_a_jump_only_so_many_rows_an_hour_are_deleted_until_none_is_left() {
        let (mut clock, start) = (SteadyClock::default(), Instant::now());
        clock.begin(0);
        assert_eq!(clock.observe(1_000, start), 0);
        let later = start + Duration::from_secs(10);
        assert_eq!(clock.observe(11_000, later), 0, "it passes as it should");
        let later = later + Duration::from_secs(10);
        assert_eq!(clock.observe(21_000 + DAY_MS, later), DAY_MS);
        assert_eq!(clock.steady(21_000 + DAY_MS), 21_000);
        assert_eq!(clock.allowance(later), ROWS_BY_JUMP);
        clock.spend(ROWS_BY_JUMP, false);
        assert_eq!(clock.allowance(later + Duration::from_mins(59)), 0);
        assert_eq!(clock.allowance(later + HOUR), ROWS_BY_JUMP);
        clock.spend(5, true);
        assert!(!clock.is_behind());
    }

    #[test]
    fn a_clock_that_was_set_right_leaves_nothing_behind() {
        let (mut clock, start) = (SteadyClock::default(), Instant::now());
        clock.begin(0);
        clock.observe(1_000, start);
        clock.observe(1_000 + DAY_MS, start);
        assert_eq!(clock.observe(1_000, start), 0);
        assert!(!clock.is_behind());
    }

    #[test]
    fn a_process_that_begins_after_a_long_silence_does_not_trust_its_clock() {
        let mut clock = SteadyClock::default();
        clock.begin(5_000);
        assert_eq!(clock.observe(5_000 + DAY_MS, Instant::now()), DAY_MS - SILENCE_MS);
        let mut clock = SteadyClock::default();
        clock.begin(5_000);
        assert_eq!((clock.observe(6_000, Instant::now()), clock.is_behind()), (0, false));
    }
}
