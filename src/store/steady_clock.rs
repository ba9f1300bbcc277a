use crate::clock::Uptime;

/// Messages that are deleted in an hour because of a jump alone.
pub(super) const ROWS_BY_JUMP: i64 = 10_000;
const HOUR_MS: i64 = 3_600_000;
/// The time of day may run ahead of the uptime by so much between two looks.
const TOLERANCE_MS: i64 = 60_000;
/// If it is not known how much time has passed since the last sweep, the time of day may be ahead of that by so much.
const AWAY_MS: i64 = 3_600_000;

/// Follows the time of day as long as that passes as the uptime of the machine does. When it has jumped ahead, or may have, it stays behind: after a
/// wrong clock was set right nothing is lost. If the time was right, what has expired is deleted slowly, the oldest first, and this clock follows:
/// it is never behind the time at which the first message that is left expires.
#[derive(Debug, Default)]
pub(super) struct SteadyClock {
    last: Option<(i64, Option<Uptime>)>,
    behind_ms: i64,
    /// Messages that were deleted because of a jump, in the hour that began then.
    hour: Option<(Uptime, i64)>,
}

/// Why the time of day is later than what has passed explains, and by how much, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// It has jumped ahead.
    Jump(i64),
    /// The last sweep was on another machine, or before this one was started: no process ran for so long, or the time has jumped ahead.
    Unknown(i64),
}

impl SteadyClock {
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// `swept_at_ms`: when the store was swept the last time, 0: never; `uptime`: of the machine then, if it is known; `behind_ms`: how far this
    /// clock was behind then.
    pub(super) fn begin(&mut self, swept_at_ms: i64, uptime: Option<Uptime>, behind_ms: i64) {
        let swept_at_ms = if swept_at_ms == 0 { i64::MAX } else { swept_at_ms };
        *self = Self { last: Some((swept_at_ms, uptime)), behind_ms, hour: None };
    }

    /// Takes note of the time of day. Returns the gap since the last look.
    pub(super) fn observe(&mut self, now_ms: i64, uptime: &Uptime) -> Option<Gap> {
        let (last_ms, at) = self.last.replace((now_ms, Some(uptime.clone())))?;
        let passed_ms = at.and_then(|at| uptime.since(&at));
        let ahead_ms = now_ms.saturating_sub(last_ms.saturating_add(passed_ms.unwrap_or_default()));
        let gap = match passed_ms {
            Some(_) => (ahead_ms > TOLERANCE_MS).then_some(Gap::Jump(ahead_ms)),
            None => (ahead_ms > AWAY_MS).then_some(Gap::Unknown(ahead_ms)),
        };
        // Time that is set back makes up for a jump ahead.
        if gap.is_some() || ahead_ms < -TOLERANCE_MS {
            self.behind_ms = self.behind_ms.saturating_add(ahead_ms).max(0);
        }
        gap
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

    /// Messages that may be deleted now because of a jump.
    pub(super) fn allowance(&mut self, uptime: &Uptime) -> i64 {
        match &self.hour {
            Some((since, deleted)) if uptime.since(since).is_some_and(|passed_ms| passed_ms < HOUR_MS) => {
                ROWS_BY_JUMP - deleted
            }
            Some(_) | None => {
                self.hour = Some((uptime.clone(), 0));
                ROWS_BY_JUMP
            }
        }
    }

    /// So many were.
    pub(super) fn spend(&mut self, rows: i64) {
        if let Some((_, deleted)) = &mut self.hour {
            *deleted += rows;
        }
    }

    /// Follows the time of day up to the moment before this one, when the first message that is left expires. `None`: none expires until now.
    pub(super) fn follow(&mut self, expires_ms: Option<i64>, now_ms: i64) {
        let behind_ms = expires_ms.map_or(0, |expires_ms| now_ms.saturating_sub(expires_ms).saturating_add(1));
        self.behind_ms = self.behind_ms.min(behind_ms.max(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn up(ms: i64) -> Uptime {
        Uptime { boot: "here".into(), ms }
    }

    #[test]
    fn after_a_jump_there_is_an_allowance_for_each_hour_and_the_clock_follows_what_is_left() {
        let mut clock = SteadyClock::default();
        clock.begin(1, None, 0);
        assert_eq!(clock.observe(1_000, &up(0)), None);
        assert_eq!(clock.observe(11_000, &up(10_000)), None, "it passes as it should");
        let now_ms = 21_000 + DAY_MS;
        assert_eq!(clock.observe(now_ms, &up(20_000)), Some(Gap::Jump(DAY_MS)));
        assert_eq!(clock.steady(now_ms), 21_000);
        assert_eq!(clock.allowance(&up(20_000)), ROWS_BY_JUMP);
        clock.spend(ROWS_BY_JUMP);
        assert_eq!(clock.allowance(&up(20_000 + HOUR_MS - 1)), 0);
        assert_eq!(clock.allowance(&up(20_000 + HOUR_MS)), ROWS_BY_JUMP);
        clock.follow(Some(500_000), now_ms);
        assert_eq!(clock.steady(now_ms), 499_999);
        clock.follow(Some(400_000), now_ms);
        assert_eq!(clock.steady(now_ms), 499_999, "it does not go back");
        clock.follow(None, now_ms);
        assert!(!clock.is_behind());
    }

    #[test]
    fn a_clock_that_was_set_right_leaves_nothing_behind() {
        let mut clock = SteadyClock::default();
        clock.begin(1, None, 0);
        clock.observe(1_000, &up(0));
        clock.observe(1_000 + DAY_MS, &up(0));
        assert_eq!(clock.observe(1_000, &up(0)), None);
        assert!(!clock.is_behind());
    }

    #[test]
    fn a_process_that_begins_long_after_the_last_sweep_trusts_its_clock_if_the_machine_has_been_up_for_as_long() {
        let observed = |swept_at_ms, behind_ms, uptime, now_ms| {
            let mut clock = SteadyClock::default();
            clock.begin(swept_at_ms, uptime, behind_ms);
            (clock.observe(now_ms, &up(DAY_MS)), clock.behind_ms())
        };
        let (elsewhere, then) = (Some(Uptime { boot: "elsewhere".into(), ms: 0 }), Some(up(0)));
        for unknown in [None, elsewhere, Some(up(2 * DAY_MS))] {
            assert_eq!(observed(5_000, 0, unknown.clone(), 5_000 + DAY_MS), (Some(Gap::Unknown(DAY_MS)), DAY_MS));
            assert_eq!(observed(5_000, 0, unknown, 5_000 + AWAY_MS), (None, 0), "an ordinary restart");
        }
        assert_eq!(observed(5_000, 0, then.clone(), 5_000 + DAY_MS), (None, 0), "it was stopped for a day");
        assert_eq!(observed(5_000, 0, then, 5_000 + 3 * DAY_MS), (Some(Gap::Jump(2 * DAY_MS)), 2 * DAY_MS));
        assert_eq!(observed(0, 0, None, DAY_MS), (None, 0), "it was never swept");
        assert_eq!(
            observed(5_000 + DAY_MS, DAY_MS, None, 6_000 + DAY_MS),
            (None, DAY_MS),
            "the jump was before the restart"
        );
        assert_eq!(observed(5_000 + DAY_MS, DAY_MS, None, 5_000), (None, 0), "it was set right meanwhile");
    }
}
