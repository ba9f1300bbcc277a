//! A hundred devices of one user come back to a mailbox of 10,000 messages at once: emits to that user go on.

use std::time::{Duration, Instant};

use bugle::{
    bench::{Backend, Fleet, Setup, Speech, user},
    proto::v1::Receipt,
};
use futures_util::stream;
use tokio::time::timeout;

use crate::{
    figures::median,
    harness::new_database,
    load::ACCEPTED,
    paced::{Waits, paced, stored},
    report::Report,
    server::{Server, program},
};

const DEVICES: usize = 100;
const MISSED: usize = 10_000;
const ROUNDS: usize = 3;
/// While they catch up, and for as long again without devices.
const EMIT_EVERY: Duration = Duration::from_millis(20);
const EMITS: usize = 500;
const MOST_MILLIS: f64 = 20.0;
/// Of all deliveries.
const DEADLINE: Duration = Duration::from_mins(2);

/// What one round showed, in milliseconds.
struct Round {
    alone: Waits,
    beside: Waits,
    replay: f64,
}

pub async fn run(report: &mut Report) {
    for database in ["SQLite", "PostgreSQL"] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let store = (database == "PostgreSQL").then(new_database);
            let more = "max_messages = 20_000\n".to_owned();
            rounds.push(round(report, database, &Setup { store, more, ..Setup::default() }).await);
        }
        let figure = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let p50_and_p99 =
            |p50: fn(&Round) -> f64, p99: fn(&Round) -> f64| format!("{:.1} and {:.1} ms", figure(p50), figure(p99));
        report.figure(
            format!("p50 and p99 of a stored emit's answer, to a user without devices, {database}"),
            p50_and_p99(|round| round.alone.millis(0.5), |round| round.alone.millis(0.99)),
        );
        report.figure(
            format!("{DEVICES} devices of that user come back and get {MISSED} messages each in, {database}"),
            format!("{:.1} s", figure(|round| round.replay) / 1_000.0),
        );
        report.figure(
            format!("p50 of the answers meanwhile, {database}"),
            format!("{:.1} ms", figure(|round| round.beside.millis(0.5))),
        );
        let p99 = figure(|round| round.beside.millis(0.99));
        report.at_most(format!("p99 of the same, median of {ROUNDS} rounds, {database}"), p99, MOST_MILLIS, "ms");
    }
}

async fn round(report: &mut Report, database: &str, setup: &Setup) -> Round {
    let server = Server::start_program(&program(), setup).await;
    let mut backend = server.backend().await;
    let position = fill(&mut backend).await;
    let alone = paced(&mut backend, EMIT_EVERY, EMITS, 1).await;
    let mut fleet = Fleet::resuming(format!(r#"{{"user:{}":"{position}"}}"#, user(0)));
    let tally = fleet.tally();
    let begun = Instant::now();
    let come_back = async {
        let tokens = vec![server.token(&user(0), &[]); DEVICES];
        fleet.connect(&server.devices(), Speech::SocketIo, tokens, |_, _| ()).await.expect("the devices connect");
        tally.reach((DEVICES * (MISSED + EMITS)) as u64).await;
        begun.elapsed()
    };
    let (beside, replay) = tokio::join!(paced(&mut backend, EMIT_EVERY, EMITS, 1), timeout(DEADLINE, come_back));
    let all = (DEVICES * (MISSED + 2 * EMITS)) as u64;
    let came = timeout(DEADLINE, tally.reach(all)).await.is_ok();
    let (arrived, cut_off) = (tally.arrived(), tally.cut_off());
    if !came || arrived != all || cut_off > 0 {
        let why = tally.first_cut().unwrap_or_default();
        let figure = format!("{arrived}; {cut_off} devices were cut off {why}");
        report.must(format!("messages that came to them, of {all}, {database}"), figure, false);
    }
    Round { alone, beside, replay: replay.unwrap_or(DEADLINE).as_secs_f64() * 1_000.0 }
}

/// Stores the messages that the devices will have missed, and gives the position before them.
async fn fill(backend: &mut Backend) -> String {
    let emits = stream::iter((0..=MISSED).map(|number| stored(number, 1)));
    let mut position = None;
    // Answers may come in another order than emits.
    let note = |number: &str, receipt: &Receipt| {
        if number == "0" {
            position = Some(receipt.position.clone());
        }
    };
    backend.emit_stream(emits, note).await.expect(ACCEPTED);
    position.expect("the first emit is stored")
}
