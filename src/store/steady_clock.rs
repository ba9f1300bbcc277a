use crate::clock::Uptime;

/// Messages that are deleted in an hour because of a jump alone.
pub(super) const ROWS_BY_JUMP: i64 = 10_000;
const HOUR_MS: i64 = 3_600_000;
/// The time of day may run ahead of the uptime by so much between two sweeps.
const TOLERANCE_MS: i64 = 60_000;
/// If it is not known how much time has passed since the last sweep, the time of day may be ahead of that by so much.
const AWAY_MS: i64 = HOUR_MS;
/// After this number of hours in doubt more messages may be deleted each hour, and the doubt ends as soon as none are left.
const DOUBTED_HOURS: i64 = 24;
/// [`ROWS_BY_JUMP`] times two to this power is more than any store has.
const MAX_DOUBLINGS: i64 = 40;

/// Follows the time of day as long as that passes as the uptime of the machine does. When it has jumped ahead, or may have, this clock stays behind by as
/// much: after a wrong clock was set right little is lost. What has expired by the time of day alone is deleted slowly: [`ROWS_BY_JUMP`] messages an hour,
/// and twice as many in each hour after the first day, so that a store catches up however much expires.
#[derive(Debug, Default)]
pub(super) struct SteadyClock {
    last: Option<(i64, Option<Uptime>)>,
    doubt: Doubt,
}

/// How far the time of day is in doubt. It is stored with each sweep, since a restart ends no doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    /// By how much the clock is behind the time of day, in milliseconds. 0: there is no doubt.
    pub(super) behind_ms: i64,
    /// The uptime that has passed since the last jump, in milliseconds.
    pub(super) since_jump_ms: i64,
    /// Messages that were deleted because of a jump, in the hour of `since_jump_ms` that has begun.
    pub(super) deleted: i64,
}

/// What has become of the doubt. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The time of day has jumped ahead.
    Jumped(i64),
    /// The last sweep was on another machine, or before this one was started: no process ran for so long, or the time has jumped ahead.
    Unknown(i64),
    /// The time of day was set back.
    SetBack,
    /// The time of day was not set back for a day, and all that has expired by it was deleted: it is taken as right.
    Accepted,
}

impl SteadyClock {
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// `swept_at_ms`: when the store was swept the last time, 0: never; `uptime`: of the machine then, if it is known; `doubt`: as it was then.
    pub(super) fn begin(&mut self, swept_at_ms: i64, uptime: Option<Uptime>, doubt: Doubt) {
        let swept_at_ms = if swept_at_ms == 0 { i64::MAX } else { swept_at_ms };
        *self = Self { last: Some((swept_at_ms, uptime)), doubt };
    }

    /// Takes note of the time of day. Returns what has changed since the last sweep.
    pub(super) fn observe(&mut self, now_ms: i64, uptime: &Uptime) -> Option<Change> {
        let (last_ms, at) = self.last.replace((now_ms, Some(uptime.clone())))?;
        let passed_ms = at.and_then(|at| uptime.since(&at));
        self.doubt.pass(passed_ms.unwrap_or_default());
        let ahead_ms = now_ms.saturating_sub(last_ms.saturating_add(passed_ms.unwrap_or_default()));
        let jump = match passed_ms {
            Some(_) => (ahead_ms > TOLERANCE_MS).then_some(Change::Jumped(ahead_ms)),
            None => (ahead_ms > AWAY_MS).then_some(Change::Unknown(ahead_ms)),
        };
        if jump.is_some() {
            self.doubt.grow(ahead_ms);
            return jump;
        }
        if !self.is_behind() {
            return None;
        }
        if ahead_ms < -TOLERANCE_MS {
            let behind_ms = self.doubt.behind_ms.saturating_add(ahead_ms);
            self.doubt.behind_ms = if behind_ms > TOLERANCE_MS { behind_ms } else { 0 };
            return (!self.is_behind()).then_some(Change::SetBack);
        }
        None
    }

    /// Takes note that nothing is left that has expired by the time of day.
    pub(super) fn catch_up(&mut self) -> Option<Change> {
        let is_accepted = self.is_behind() && self.doubt.hour() >= DOUBTED_HOURS;
        is_accepted.then(|| {
            self.doubt.behind_ms = 0;
            Change::Accepted
        })
    }

    pub(super) fn doubt(&self) -> Doubt {
        self.doubt
    }

    pub(super) fn steady(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.doubt.behind_ms)
    }

    /// Takes all messages that may still be deleted in this hour because of a jump. Those that are not deleted are to be given back.
    pub(super) fn take_allowance(&mut self) -> i64 {
        let doublings = (self.doubt.hour() - DOUBTED_HOURS + 1).clamp(0, MAX_DOUBLINGS);
        let left = if self.is_behind() { (ROWS_BY_JUMP << doublings) - self.doubt.deleted } else { 0 };
        self.doubt.deleted += left;
        left
    }

    pub(super) fn give_back(&mut self, left: i64) {
        self.doubt.deleted -= left;
    }

    fn is_behind(&self) -> bool {
        self.doubt.behind_ms > 0
    }
}

impl Doubt {
    fn pass(&mut self, ms: i64) {
        let hour = self.hour();
        self.since_jump_ms = self.since_jump_ms.saturating_add(ms);
        if self.hour() != hour {
            self.deleted = 0;
        }
    }

    /// How many hours have passed since the jump.
    fn hour(self) -> i64 {
        self.since_jump_ms / HOUR_MS
    }

    /// The hour goes on: several jumps have one allowance.
    fn grow(&mut self, by_ms: i64) {
        self.behind_ms = self.behind_ms.saturating_add(by_ms);
        self.since_jump_ms %= HOUR_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * HOUR_MS;

    fn up(ms: i64) -> Uptime {
        Uptime { boot: "here".into(), ms }
    }

    fn begun() -> SteadyClock {
        let mut clock = SteadyClock::default();
        clock.begin(1, None, Doubt::default());
        assert_eq!(clock.observe(1_000, &up(0)), None);
        clock
    }

    #[test]
    fn after_a_jump_there_is_an_allowance_for_each_hour_which_doubles_after_a_day() {
        let mut clock = begun();
        assert_eq!(clock.observe(11_000, &up(10_000)), None, "it passes as it should");
        assert_eq!(clock.take_allowance(), 0);
        assert_eq!(clock.observe(11_000 + DAY_MS, &up(10_000)), Some(Change::Jumped(DAY_MS)));
        let mut at = |passed_ms: i64| {
            let changed = clock.observe(11_000 + DAY_MS + passed_ms, &up(10_000 + passed_ms));
            (changed, clock.steady(11_000 + DAY_MS + passed_ms) - 11_000, clock.take_allowance())
        };
        assert_eq!(at(0), (None, 0, ROWS_BY_JUMP));
        // The hours are those of the uptime that the clock knows.
        assert_eq!(at(HOUR_MS - 10_001), (None, HOUR_MS - 10_001, 0));
        assert_eq!(at(HOUR_MS), (None, HOUR_MS, ROWS_BY_JUMP));
        assert_eq!(at(DAY_MS - 10_001), (None, DAY_MS - 10_001, ROWS_BY_JUMP));
        assert_eq!(at(DAY_MS), (None, DAY_MS, 2 * ROWS_BY_JUMP));
        assert_eq!(at(DAY_MS + 3 * HOUR_MS), (None, DAY_MS + 3 * HOUR_MS, 16 * ROWS_BY_JUMP));
        let of_years = at(1_000 * DAY_MS);
        assert!(of_years.2 > i64::from(u32::MAX), "{of_years:?}");
    }

    #[test]
    fn the_time_is_taken_as_right_if_it_was_not_set_back_for_a_day_and_nothing_is_left() {
        let mut clock = begun();
        assert_eq!(clock.catch_up(), None, "there is no doubt");
        clock.observe(1_000 + 2 * DAY_MS, &up(0));
        clock.observe(1_000 + 3 * DAY_MS - 1, &up(DAY_MS - 1));
        assert_eq!((clock.catch_up(), clock.doubt().behind_ms), (None, 2 * DAY_MS), "it may still be set back");
        clock.observe(1_000 + 3 * DAY_MS, &up(DAY_MS));
        assert_eq!((clock.catch_up(), clock.doubt().behind_ms), (Some(Change::Accepted), 0));
    }

    #[test]
    fn what_is_not_deleted_may_be_later_and_several_jumps_have_one_allowance() {
        let mut clock = begun();
        clock.observe(1_000 + DAY_MS, &up(0));
        assert_eq!(clock.take_allowance(), ROWS_BY_JUMP);
        clock.give_back(3);
        assert_eq!(clock.observe(1_000 + 2 * DAY_MS, &up(0)), Some(Change::Jumped(DAY_MS)));
        assert_eq!(clock.take_allowance(), 3);
        assert_eq!(clock.observe(1_000, &up(0)), Some(Change::SetBack));
        assert_eq!(clock.observe(1_000 + DAY_MS, &up(0)), Some(Change::Jumped(DAY_MS)));
        assert_eq!(clock.take_allowance(), 0);
    }

    #[test]
    fn a_clock_that_was_set_right_leaves_no_doubt() {
        let mut clock = begun();
        clock.observe(1_000 + DAY_MS, &up(0));
        assert_eq!(clock.observe(1_000, &up(0)), Some(Change::SetBack));
        assert_eq!((clock.steady(1_000), clock.observe(2_000, &up(1_000))), (1_000, None));
    }

    #[test]
    fn a_process_that_begins_long_after_the_last_sweep_trusts_its_clock_if_the_machine_has_been_up_for_as_long() {
        let observed = |swept_at_ms, behind_ms, uptime, now_ms| {
            let mut clock = SteadyClock::default();
            clock.begin(swept_at_ms, uptime, Doubt { behind_ms, ..Doubt::default() });
            (clock.observe(now_ms, &up(DAY_MS)), clock.doubt().behind_ms)
        };
        let (elsewhere, then) = (Some(Uptime { boot: "elsewhere".into(), ms: 0 }), Some(up(0)));
        for unknown in [None, elsewhere, Some(up(2 * DAY_MS))] {
            assert_eq!(observed(5_000, 0, unknown.clone(), 5_000 + DAY_MS), (Some(Change::Unknown(DAY_MS)), DAY_MS));
            assert_eq!(observed(5_000, 0, unknown, 5_000 + AWAY_MS), (None, 0), "an ordinary restart");
        }
        assert_eq!(observed(5_000, 0, then.clone(), 5_000 + DAY_MS), (None, 0), "it was stopped for a day");
        assert_eq!(observed(5_000, 0, then, 5_000 + 3 * DAY_MS), (Some(Change::Jumped(2 * DAY_MS)), 2 * DAY_MS));
        assert_eq!(observed(0, 0, None, DAY_MS), (None, 0), "it was never swept");
        assert_eq!(
            observed(5_000 + DAY_MS, DAY_MS, None, 6_000 + DAY_MS),
            (None, DAY_MS),
            "the jump was before the restart"
        );
        assert_eq!(
            observed(5_000 + DAY_MS, DAY_MS, None, 5_000),
            (Some(Change::SetBack), 0),
            "it was set right meanwhile"
        );
    }
}
