use std::time::Duration;

use tokio::time::Instant;

/// Rows that are deleted in an hour because of a jump alone.
pub(super) const ROWS_BY_JUMP: i64 = 10_000;
const HOUR: Duration = Duration::from_hours(1);
/// The time of day may run ahead of the monotonic clock by so much between two looks.
const TOLERANCE_MS: i64 = 60_000;
/// A process that begins so long after the last sweep may have been away, or its clock may be wrong.
const AWAY_MS: i64 = 3_600_000;

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

    /// `swept_at_ms`: when the store was swept the last time, 0: never; `behind_ms`: how far this clock was behind then.
    pub(super) fn begin(&mut self, swept_at_ms: i64, behind_ms: i64) {
        let swept_at_ms = if swept_at_ms == 0 { i64::MAX } else { swept_at_ms };
        *self = Self { last: Some((swept_at_ms, None)), behind_ms, hour: None };
    }

    /// Takes note of the time of day. Returns how far it has jumped ahead since the last look.
    pub(super) fn observe(&mut self, now_ms: i64, now: Instant) -> i64 {
        let Some((last_ms, at)) = self.last.replace((now_ms, Some(now))) else {
            return 0;
        };
        let (passed_ms, tolerance_ms) = match at {
            Some(at) => (i64::try_from((now - at).as_millis()).unwrap_or(i64::MAX), TOLERANCE_MS),
            None => (0, AWAY_MS),
        };
        let jumped = now_ms.saturating_sub(last_ms.saturating_add(passed_ms));
        // Time that is set back makes up for a jump ahead.
        if jumped > tolerance_ms || (jumped < -TOLERANCE_MS && self.behind_ms > 0) {
            self.behind_ms = self.behind_ms.saturating_add(jumped).max(0);
        }
        if jumped > tolerance_ms { jumped } else { 0 }
    }

    pub(super) fn behind_ms(&self) -> i64 {
        self.behind_ms
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
        clock.begin(1, 0);
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
        clock.begin(1, 0);
        clock.observe(1_000, start);
        clock.observe(1_000 + DAY_MS, start);
        assert_eq!(clock.observe(1_000, start), 0);
        assert!(!clock.is_behind());
    }

    #[test]
    fn a_process_that_begins_long_after_the_last_sweep_does_not_trust_its_clock() {
        let observed = |swept_at_ms, behind_ms, now_ms| {
            let mut clock = SteadyClock::default();
            clock.begin(swept_at_ms, behind_ms);
            (clock.observe(now_ms, Instant::now()), clock.behind_ms())
        };
        assert_eq!(observed(5_000, 0, 5_000 + DAY_MS), (DAY_MS, DAY_MS));
        assert_eq!(observed(5_000, 0, 5_000 + AWAY_MS), (0, 0), "an ordinary restart");
        assert_eq!(observed(0, 0, DAY_MS), (0, 0), "it was never swept");
        assert_eq!(observed(5_000 + DAY_MS, DAY_MS, 6_000 + DAY_MS), (0, DAY_MS), "the jump was before the restart");
        assert_eq!(observed(5_000 + DAY_MS, DAY_MS, 5_000), (0, 0), "it was set right meanwhile");
    }
}
