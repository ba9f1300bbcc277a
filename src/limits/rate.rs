use std::{
    hash::Hash,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed, keyed::DashMapStateStore},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How often something may happen: `per_second` on average, and `burst` at once.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// On average.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

/// A rate was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// When it may happen again.
    pub retry_after: Duration,
}

impl Rate {
    /// The highest `per_second`: so often that it is no limit, and nothing is counted.
    pub const UNLIMITED: u32 = 10_000_000;

    fn quota(self) -> Option<Quota> {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(self.per_second)).allow_burst(at_least_one(self.burst));
        (self.per_second < Self::UNLIMITED).then_some(quota)
    }
}

/// The time that tokio's timers go by, so that a test can stop it.
#[derive(Clone, Copy, Debug)]
struct Timer(Instant);

impl Clock for Timer {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Timer {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn too_fast(&self, until: &NotUntil<Duration>) -> TooFast {
        TooFast { retry_after: until.wait_time_from(self.now()) }
    }
}

/// One rate, of one thing.
pub(super) struct Meter {
    timer: Timer,
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, Timer, NoOpMiddleware<Duration>>>,
}

impl Meter {
    pub(super) fn new(rate: Rate) -> Self {
        Self::of(rate.quota())
    }

    /// So many times in each `period`.
    pub(super) fn within(period: Duration, times: u32) -> Self {
        let times = NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN);
        Self::of(Quota::with_period(period / times.get()).map(|quota| quota.allow_burst(times)))
    }

    fn of(quota: Option<Quota>) -> Self {
        let timer = Timer::start();
        Self { timer, limiter: quota.map(|quota| RateLimiter::direct_with_clock(quota, timer)) }
    }

    pub(super) fn take(&self) -> Result<(), TooFast> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        limiter.check().map_err(|until| self.timer.too_fast(&until))
    }
}

/// One rate, of each of many, such as users. What is known of those that have been quiet for a while is forgotten, so that strangers
/// cannot fill the memory.
pub struct Meters<K: Clone + Eq + Hash> {
    rate: Rate,
    timer: Timer,
    limiter: Option<RateLimiter<K, DashMapStateStore<K>, Timer, NoOpMiddleware<Duration>>>,
    until_sweep: AtomicUsize,
}

/// How many times something happens at least between two sweeps.
const SWEEP_AFTER: usize = 1_024;

impl<K: Clone + Eq + Hash> Meters<K> {
    /// Nothing has happened yet.
    pub fn new(rate: Rate) -> Self {
        let timer = Timer::start();
        let limiter = rate.quota().map(|quota| RateLimiter::dashmap_with_clock(quota, timer));
        Self { rate, timer, limiter, until_sweep: AtomicUsize::new(SWEEP_AFTER) }
    }

    /// The rate of each.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// It happens to this one, unless too often.
    pub fn take(&self, key: &K) -> Result<(), TooFast> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        self.sweep_if_due();
        limiter.check_key(key).map_err(|until| self.timer.too_fast(&until))
    }

    /// It happens to this one so many times, or not at all. None: it never can at once.
    pub fn take_all(&self, key: &K, times: u32) -> Option<Result<(), TooFast>> {
        let (Some(limiter), Some(times)) = (&self.limiter, NonZeroU32::new(times)) else {
            return Some(Ok(()));
        };
        self.sweep_if_due();
        let taken = limiter.check_key_n(key, times).ok()?;
        Some(taken.map_err(|until| self.timer.too_fast(&until)))
    }

    /// Forgets those that could use their burst in full. As often as there are keys, so that a sweep costs each of them
    /// the same however many there are, and what is kept is at most twice of what is needed.
    fn sweep_if_due(&self) {
        if let Some(limiter) = &self.limiter
            && self.until_sweep.fetch_sub(1, Ordering::Relaxed) == 1
        {
            limiter.retain_recent();
            self.until_sweep.store(limiter.len().max(SWEEP_AFTER), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_then_the_rate() {
        let meters = Meters::new(Rate { per_second: 10, burst: 3 });
        for _ in 0..3 {
            assert_eq!(meters.take(&"a"), Ok(()));
        }
        assert_eq!(meters.take(&"a"), Err(TooFast { retry_after: 100 * MS }));
        assert_eq!(meters.take(&"b"), Ok(()), "each has its own");
        advance(60 * MS).await;
        assert_eq!(meters.take(&"a"), Err(TooFast { retry_after: 40 * MS }));
        advance(40 * MS).await;
        assert_eq!(meters.take(&"a"), Ok(()));
        assert!(meters.take(&"a").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn several_are_taken_together_or_not_at_all() {
        let meters = Meters::new(Rate { per_second: 10, burst: 3 });
        assert_eq!(meters.take_all(&"a", 4), None, "more than the burst");
        assert_eq!(meters.take_all(&"a", 2), Some(Ok(())));
        assert_eq!(meters.take_all(&"a", 2), Some(Err(TooFast { retry_after: 100 * MS })));
        assert_eq!(meters.take_all(&"a", 1), Some(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_all_is_let_through() {
        let rate = Rate { per_second: Rate::UNLIMITED, burst: 1 };
        let (meter, meters) = (Meter::new(rate), Meters::new(rate));
        assert!((0..9).all(|_| meter.take().is_ok() && meters.take(&"a").is_ok()));
        assert_eq!(meters.take_all(&"a", 1_000), Some(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_are_forgotten() {
        let meters = Meters::new(Rate { per_second: 10, burst: 3 });
        let kept = || meters.limiter.as_ref().map_or(0, RateLimiter::len);
        for stranger in 0..20_000 {
            meters.take(&stranger).unwrap();
            advance(MS).await;
            assert!(kept() <= 2 * SWEEP_AFTER, "{}", kept());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_being_refused_is_not_forgotten() {
        let meters = Meters::new(Rate { per_second: 1, burst: 1 });
        meters.take(&0).unwrap();
        for stranger in 1..=SWEEP_AFTER {
            meters.take(&stranger).unwrap();
        }
        assert!(meters.take(&0).is_err());
    }
}
