//! A hundred devices of one user come back to a mailbox of 10,000 messages at once: emits to that user go on.

use std::time::{Duration, Instant};

use bugle::{
    bench::{Backend, Fleet, Setup, Speech, user},
    proto::v1::Receipt,
};
use futures_util::stream;
use tokio::time::timeout;

use crate::{
    harness::new_database,
    load::ACCEPTED,
    paced::{paced, stored},
    report::Report,
    server::{Server, program},
};

const DEVICES: usize = 100;
const MISSED: usize = 10_000;
/// While they catch up, and for as long again without devices.
const EMIT_EVERY: Duration = Duration::from_millis(20);
const EMITS: usize = 500;
const MOST_MILLIS: f64 = 20.0;
/// Of all deliveries.
const DEADLINE: Duration = Duration::from_mins(2);

pub async fn run(report: &mut Report) {
    for (database, store) in [("SQLite", None), ("PostgreSQL", Some(new_database()))] {
        let more = "max_messages = 20_000\n".to_owned();
        let setup = Setup { store, more, ..Setup::default() };
        measure(report, database, &setup).await;
    }
}

async fn measure(report: &mut Report, database: &str, setup: &Setup) {
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
    let (beside, replayed) = tokio::join!(paced(&mut backend, EMIT_EVERY, EMITS, 1), timeout(DEADLINE, come_back));
    let all = (DEVICES * (MISSED + 2 * EMITS)) as u64;
    let came = timeout(DEADLINE, tally.reach(all)).await.is_ok();
    report.figure(
        format!("p50 and p99 of the answer of a stored emit to one user without devices, {database}"),
        format!("{:.1} and {:.1} ms", alone.millis(0.5), alone.millis(0.99)),
    );
    let took = replayed.map_or_else(|_| "never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
    report.figure(format!("{DEVICES} devices of that user get {MISSED} messages each in, {database}"), took);
    report.figure(format!("p50 of the answers meanwhile, {database}"), format!("{:.1} ms", beside.millis(0.5)));
    report.at_most(format!("p99 of the same, {database}"), beside.millis(0.99), MOST_MILLIS, "ms");
    let arrived = tally.arrived();
    report.must(
        format!("messages that came to them, of {all}, {database}"),
        match tally.first_cut() {
            None => arrived.to_string(),
            Some(cut) => format!("{arrived}; {} devices were cut off: {cut}", tally.cut_off()),
        },
        came && arrived == all && fleet.connected() == DEVICES,
    );
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
