//! The time of day, from the system or from a test, and its jumps.

use std::{
    fs,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often is looked for a jump.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How far the time of day may go ahead of or stay behind what tokio's timers measure, without being a jump.
const MAX_DRIFT: SignedDuration = SignedDuration::from_secs(2);

/// Tells the time of day. Intervals are tokio's business; this is for what is compared with or shown to the outside:
/// expiry of tokens, timestamps, message ids.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    moved: Option<Arc<Moved>>,
}

/// How far a clock was moved, in milliseconds.
#[derive(Debug, Default)]
struct Moved {
    time_of_day: AtomicI64,
    uptime: AtomicI64,
}

/// How long this machine is up. A suspend counts; a change of the time of day does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uptime {
    /// Which machine, since which start.
    pub boot: Arc<str>,
    /// Milliseconds.
    pub ms: i64,
}

impl Uptime {
    /// The milliseconds that have passed since an earlier moment. `None`: that was on another machine, or before this one was started.
    pub fn since(&self, earlier: &Self) -> Option<i64> {
        let passed_ms = self.ms.saturating_sub(earlier.ms);
        (self.boot == earlier.boot && passed_ms >= 0).then_some(passed_ms)
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that starts at the system's time and can be moved with [`Clock::advance`].
    pub fn movable() -> Self {
        Self { moved: Some(Arc::default()) }
    }

    /// Moves a movable clock, and all its clones, forward. The system's clock does not move.
    pub fn advance(&self, by: Duration) {
        self.shift(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// The same, back.
    pub fn set_back(&self, by: Duration) {
        self.shift(i64::try_from(by.as_millis()).map_or(i64::MIN, |by| -by));
    }

    /// Lets time pass for a movable clock: unlike [`Clock::advance`] this is no jump.
    pub fn pass(&self, by: Duration) {
        self.advance(by);
        if let Some(moved) = &self.moved {
            moved.uptime.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    fn shift(&self, by_ms: i64) {
        if let Some(moved) = &self.moved {
            moved.time_of_day.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is where the time is read")]
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(SignedDuration::from_millis(self.ahead_ms())).unwrap_or(Timestamp::MAX)
    }

    /// How long this machine is up.
    pub fn uptime(&self) -> Uptime {
        let Booted { id, begun } = &*BOOTED;
        let ms = system_uptime_ms().unwrap_or_else(|| i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX));
        let moved_ms = self.moved.as_ref().map_or(0, |moved| moved.uptime.load(Ordering::SeqCst));
        Uptime { boot: id.clone(), ms: ms.saturating_add(moved_ms) }
    }

    /// How far a movable clock is ahead of the system's, in milliseconds.
    pub fn ahead_ms(&self) -> i64 {
        self.moved.as_ref().map_or(0, |moved| moved.time_of_day.load(Ordering::SeqCst))
    }

    /// How long it is until then; nothing if that has passed.
    pub fn until(&self, time: Timestamp) -> Duration {
        Duration::try_from(time.duration_since(self.now())).unwrap_or_default()
    }

    /// Returns what tells of jumps, and the work that looks for them, which does not end.
    pub fn watch_jumps(&self) -> (Jumps, impl Future<Output = ()> + Send + use<>) {
        let (jumped, jumps) = watch::channel(());
        (Jumps(jumps), look_for_jumps(self.clone(), jumped))
    }
}

/// This start of this machine.
struct Booted {
    id: Arc<str>,
    /// Used if the system does not tell its uptime: then the id is this process's.
    begun: Instant,
}

static BOOTED: LazyLock<Booted> = LazyLock::new(|| {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().filter(|_| system_uptime_ms().is_some());
    let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    Booted { id: id.trim().into(), begun: Instant::now() }
});

/// The first number of this file is in seconds, with two decimals.
fn system_uptime_ms() -> Option<i64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = text.split(' ').next()?.split_once('.')?;
    Some(seconds.parse::<i64>().ok()? * 1_000 + hundredths.parse::<i64>().ok()? * 10)
}

/// Reports jumps of the time of day: the clock was set, or the machine was suspended. tokio's timers stand still during a suspend and ignore
/// a clock that was set, so a wait for a time of day has to be computed again.
#[derive(Clone, Debug)]
pub struct Jumps(watch::Receiver<()>);

impl Jumps {
    /// Waits for the next jump. Jumps between two calls are one. Cancel safe.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The watching task has ended.
            std::future::pending::<()>().await;
        }
    }
}

async fn look_for_jumps(clock: Clock, jumped: watch::Sender<()>) {
    let mut pair = Pair { time: clock.now(), instant: Instant::now() };
    let mut tick = interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Some(jump) = pair.jump(clock.now(), Instant::now()) {
            tracing::warn!(clock.jump_s = jump.as_secs_f64(), "the time of day jumped, or the machine was suspended");
            jumped.send_replace(());
        }
    }
}

/// The time of day, and what timers go by, at one moment.
struct Pair {
    time: Timestamp,
    instant: Instant,
}

impl Pair {
    /// Returns how far the time of day has jumped since this moment, if it has; then the present becomes the moment.
    fn jump(&mut self, time: Timestamp, instant: Instant) -> Option<SignedDuration> {
        let measured = SignedDuration::try_from(instant - self.instant).unwrap_or(SignedDuration::MAX);
        let drift = time.duration_since(self.time).saturating_sub(measured);
        if drift.abs() <= MAX_DRIFT {
            return None;
        }
        *self = Self { time, instant };
        Some(drift)
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

    #[test]
    fn uptime_follows_what_passes_and_no_jump() {
        let clock = Clock::movable();
        let before = clock.uptime();
        clock.advance(Duration::from_hours(2));
        assert!(clock.uptime().since(&before).is_some_and(|passed_ms| passed_ms < 3_600_000));
        clock.pass(Duration::from_hours(2));
        assert!(clock.uptime().since(&before).is_some_and(|passed_ms| passed_ms >= 7_200_000));
        let elsewhere = Uptime { boot: "elsewhere".into(), ..before.clone() };
        assert_eq!((clock.uptime().since(&elsewhere), before.since(&clock.uptime())), (None, None));
    }

    #[test]
    fn a_jump_in_either_direction_is_seen_once_and_the_course_of_time_is_none() {
        let (time, instant, second) = (Clock::system().now(), Instant::now(), Duration::from_secs(1));
        let mut pair = Pair { time, instant };
        assert_eq!(pair.jump(time + 3600 * second, instant + 3600 * second), None);
        assert_eq!(pair.jump(time + 3601 * second, instant + 3600 * second), None, "a second is not far");
        let ahead = SignedDuration::from_hours(1);
        assert_eq!(pair.jump(time + 7200 * second, instant + 3600 * second), Some(ahead));
        assert_eq!(pair.jump(time + 7201 * second, instant + 3601 * second), None);
        assert_eq!(pair.jump(time + 3602 * second, instant + 3602 * second), Some(-ahead));
        assert_eq!(pair.jump(time + 3603 * second, instant + 3603 * second), None);
        let too_slow = Some(SignedDuration::from_secs(-3));
        assert_eq!(pair.jump(time + 3603 * second, instant + 3606 * second), too_slow, "a slow drift adds up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_is_told_of() {
        let clock = Clock::movable();
        let (mut jumps, looking) = clock.watch_jumps();
        let told = async {
            for jump in [Clock::advance, Clock::set_back] {
                jump(&clock, Duration::from_hours(1));
                jumps.next().await;
            }
        };
        tokio::select! {
            () = told => {}
            () = looking => unreachable!("it does not end"),
        }
    }
}
