//! The time of day, from the system or from a test, and its jumps.

use std::{
    sync::{
        Arc,
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
        self.shift(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// The same, back.
    pub fn set_back(&self, by: Duration) {
        self.shift(i64::try_from(by.as_millis()).map_or(i64::MIN, |by| -by));
    }

    fn shift(&self, by_ms: i64) {
        if let Some(ahead) = &self.ahead_ms {
            ahead.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is where the time is read")]
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        let Some(ahead) = &self.ahead_ms else {
            return now;
        };
        let ahead = SignedDuration::from_millis(ahead.load(Ordering::SeqCst));
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

    /// Returns what tells of jumps, and the work that looks for them, which does not end.
    pub fn watch_jumps(&self) -> (Jumps, impl Future<Output = ()> + Send + use<>) {
        let (jumped, jumps) = watch::channel(());
        (Jumps(jumps), look_for_jumps(self.clone(), jumped))
    }
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
