//! How long things took, without leaving out what was not sent meanwhile.

use hdrhistogram::{AdditionError, CreationError, Histogram};
use parking_lot::Mutex;
use serde::Serialize;

/// So many parts, so that devices seldom wait for one another.
const SHARDS: usize = 8;
/// The longest that is told from what is longer still, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Latencies in nanoseconds, recorded by many at one time.
pub struct Latencies {
    shards: [Mutex<Shard>; SHARDS],
}

struct Shard {
    histogram: Histogram<u64>,
    /// What was due before does not count: it is of the warm-up. None: nothing counts yet.
    from: Option<u64>,
    last: u64,
}

/// Of all latencies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Result<Self, LatencyError> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, SIGNIFICANT_DIGITS)?;
        let shard = || Mutex::new(Shard { histogram: histogram.clone(), from: None, last: 0 });
        Ok(Self { shards: std::array::from_fn(|_| shard()) })
    }

    /// From now on counts what is due at that time or later, and nothing of before.
    pub fn begin(&self, from: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.histogram.reset();
            (shard.from, shard.last) = (Some(from), 0);
        }
    }

    /// Notes that what was due then has come now; both on the same clock. Whose it is spreads the work.
    pub fn record(&self, whose: usize, due: u64, now: u64) {
        let mut shard = self.shards[whose % SHARDS].lock();
        if shard.from.is_some_and(|from| due >= from) {
            shard.histogram.saturating_record(now.saturating_sub(due));
            shard.last = now;
        }
    }

    /// When the last one came.
    pub fn last(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().last).max().unwrap_or_default()
    }

    /// All of them together.
    pub fn histogram(&self) -> Result<Histogram<u64>, LatencyError> {
        let mut all = self.shards[0].lock().histogram.clone();
        for shard in &self.shards[1..] {
            all.add(&shard.lock().histogram)?;
        }
        Ok(all)
    }
}

impl Percentiles {
    /// Of what was recorded; nothing of nothing. With an interval, what came later than that stands for those, too, that its caller
    /// would have sent meanwhile had it not waited (coordinated omission).
    pub fn of(histogram: &Histogram<u64>, interval: Option<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let corrected = interval.map(|interval| histogram.clone_correct(interval.max(1)));
        let histogram = corrected.as_ref().unwrap_or(histogram);
        let [p50, p90, p99, p99_9] = QUANTILES.map(|quantile| micros(histogram.value_at_quantile(quantile)));
        Some(Self { p50, p90, p99, p99_9, max: micros(histogram.max()) })
    }
}

/// To a tenth.
#[expect(clippy::cast_precision_loss, reason = "an hour at most")]
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

/// Why latencies cannot be kept: none of these comes of what is measured.
#[derive(Debug, thiserror::Error)]
#[error("the latencies cannot be counted")]
pub enum LatencyError {
    /// The bounds are wrong.
    Bounds(#[from] CreationError),
    /// The parts have different bounds.
    Addition(#[from] AdditionError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: u64 = 1_000;

    #[test]
    fn what_a_stall_kept_from_being_sent_counts_too() {
        let latencies = Latencies::new().unwrap();
        latencies.begin(0);
        for number in 0..99 {
            latencies.record(number, 0, 100 * MICRO);
        }
        // One caller was held up for a hundred of its intervals.
        latencies.record(99, 0, 10_000 * MICRO);
        let histogram = latencies.histogram().unwrap();
        let raw = Percentiles::of(&histogram, None).unwrap();
        assert!((99.0..=101.0).contains(&raw.p90), "{raw:?}");
        let corrected = Percentiles::of(&histogram, Some(100 * MICRO)).unwrap();
        assert!((7_500.0..=8_500.0).contains(&corrected.p90), "{corrected:?}");
        assert!((9_990.0..=10_010.0).contains(&corrected.max), "{corrected:?}");
    }

    #[test]
    fn what_was_due_before_the_beginning_does_not_count() {
        let latencies = Latencies::new().unwrap();
        latencies.record(0, 5, 10);
        latencies.begin(100);
        latencies.record(1, 99, 101);
        assert_eq!(Percentiles::of(&latencies.histogram().unwrap(), None), None);
        latencies.record(2, 100, 1_100);
        assert_eq!(latencies.histogram().unwrap().len(), 1);
        assert_eq!(latencies.last(), 1_100);
    }

    #[test]
    fn what_takes_longer_than_an_hour_is_no_error() {
        let latencies = Latencies::new().unwrap();
        latencies.begin(0);
        latencies.record(0, 0, u64::MAX);
        assert_eq!(latencies.histogram().unwrap().len(), 1);
    }
}
