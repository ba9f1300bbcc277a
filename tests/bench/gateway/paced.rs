//! Stored emits on a fixed schedule, and how long each waits for its answer.

use std::time::{Duration, Instant};

use bugle::{
    bench::{Backend, stream_item, user},
    proto::v1::{EmitStreamRequest, emit::Target},
};
use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::IntervalStream;

use crate::{load::ACCEPTED, payload::ordinary, report::percentile};

/// An emit that is stored, for one of so many users.
pub fn stored(number: usize, users: usize) -> EmitStreamRequest {
    stream_item(number.to_string(), Target::UserId(user(number % users)), ordinary(number), true)
}

/// How long emits waited, in microseconds, in rising order.
pub struct Waits(Vec<u32>);

impl Waits {
    /// In milliseconds, the wait that a share of all did not exceed.
    pub fn millis(&self, share: f64) -> f64 {
        f64::from(percentile(&self.0, share)) / 1_000.0
    }
}

/// Sends so many emits to so many users on one stream, one each period. Each waits from the time that it was due.
pub async fn paced(backend: &mut Backend, period: Duration, emits: usize, users: usize) -> Waits {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let numbers = IntervalStream::new(ticks).zip(stream::iter(0..emits));
    let items = numbers.map(move |(_, number)| stored(number, users));
    let mut waits = Vec::with_capacity(emits);
    backend
        .emit_stream(items, |number, _| {
            let due = period * number.parse::<u32>().expect("a number of this stream");
            let waited = begun.elapsed().saturating_sub(due);
            waits.push(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
        })
        .await
        .expect(ACCEPTED);
    waits.sort_unstable();
    Waits(waits)
}
