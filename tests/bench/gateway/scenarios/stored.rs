//! Stored emits on one stream: how many are taken, and how long each waits for the disk.

use std::time::{Duration, Instant};

use futures_util::stream;

use crate::{
    figures::median,
    harness::new_database,
    load::ACCEPTED,
    paced::{paced, stored},
    report::Report,
    server::Server,
};

const ROUNDS: usize = 5;
const USERS: usize = 1_000;
const EMITS: usize = 10_000;
const LEAST_PER_SECOND: f64 = 5_000.0;
const PACED: usize = 5_000;
const MOST_MILLIS: f64 = 20.0;

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
        let waits = paced(&mut backend, Duration::from_millis(1), PACED, USERS).await;
        report.figure(
            format!("p50 of a stored emit's answer at 1,000 a second, {database}"),
            format!("{:.1} ms", waits.millis(0.5)),
        );
        report.at_most(format!("p99 of the same, {database}"), waits.millis(0.99), MOST_MILLIS, "ms");
    }
}
