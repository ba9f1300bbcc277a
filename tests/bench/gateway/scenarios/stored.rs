//! Stored emits on one stream: how many are taken, and how long each waits for the disk.

use std::time::{Duration, Instant};

use bugle::{
    bench::{Backend, stream_item, user},
    proto::v1::{EmitStreamRequest, emit::Target},
};
use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::IntervalStream;

use crate::{
    figures::median,
    payload::ordinary,
    postgres::new_database,
    report::{Report, percentile},
    server::Server,
};

const ROUNDS: usize = 5;
const USERS: usize = 1_000;
const EMITS: usize = 10_000;
const LEAST_PER_SECOND: f64 = 5_000.0;
const PACED: usize = 5_000;
const MOST_MILLIS: f64 = 20.0;
const ACCEPTED: &str = "the emits are accepted";

pub async fn run(report: &mut Report) {
    for (database, url) in [("SQLite", None), ("PostgreSQL", Some(new_database()))] {
        let server = Server::start_storing(url.as_deref()).await;
        let mut backend = server.backend().await;
        let _fleet = server.counting(server.tokens(USERS, &[])).await;
        for users in [USERS, 1] {
            let mut rates = Vec::new();
            for round in 0..=ROUNDS {
                let begun = Instant::now();
                let emits = stream::iter((0..EMITS).map(move |number| stored(number, users)));
                let mut enqueued = 0;
                backend.emit_stream(emits, |_, receipt| enqueued += receipt.enqueued).await.expect(ACCEPTED);
                assert_eq!(enqueued, EMITS as u64);
                // The first round only warms up.
                if round > 0 {
                    #[expect(clippy::cast_precision_loss, reason = "small")]
                    rates.push(EMITS as f64 / begun.elapsed().as_secs_f64());
                }
            }
            let rate = median(rates);
            report.must(
                format!("stored emits a second on one EmitStream, to {users} users, {database}"),
                format!("{rate:.0} (at least {LEAST_PER_SECOND:.0})"),
                rate >= LEAST_PER_SECOND,
            );
        }
        let mut waits = paced(&mut backend).await;
        waits.sort_unstable();
        let millis = |share: f64| f64::from(percentile(&waits, share)) / 1_000.0;
        report.figure(
            format!("p50 of a stored emit's answer at 1,000 a second, {database}"),
            format!("{:.1} ms", millis(0.5)),
        );
        report.at_most(format!("p99 of the same, {database}"), millis(0.99), MOST_MILLIS, "ms");
    }
}

fn stored(number: usize, users: usize) -> EmitStreamRequest {
    stream_item(number.to_string(), Target::UserId(user(number % users)), ordinary(number), true)
}

/// Sends one each millisecond, and gives how long each waited for its answer since it was due, in microseconds.
async fn paced(backend: &mut Backend) -> Vec<u32> {
    let period = Duration::from_millis(1);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let numbers = IntervalStream::new(ticks).zip(stream::iter(0..PACED));
    let emits = numbers.map(|(_, number)| stored(number, USERS));
    let mut waits = Vec::with_capacity(PACED);
    backend
        .emit_stream(emits, |number, _| {
            let due = period * number.parse::<u32>().expect("a number of this stream");
            let waited = begun.elapsed().saturating_sub(due);
            waits.push(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
        })
        .await
        .expect(ACCEPTED);
    waits
}
