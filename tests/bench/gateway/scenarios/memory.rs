//! Resident memory for each idle connection, and what stays when all have left.

use std::time::Duration;

use bugle::bench::{Backend, Speech};

use crate::{report::Report, server::Server};

const DEVICES: usize = 5_000;
const MOST_KIB: f64 = 20.0;
/// Longer than what a connection holds for its beginning alone.
const SETTLES: Duration = Duration::from_secs(7);

pub async fn run(report: &mut Report) {
    let first = socketio(report).await;
    let (server, mut backend, before) = begin().await;
    let (plain, _) = cycle(Speech::Plain, &server, &mut backend, before).await;
    let what = format!("resident memory per idle plain WebSocket connection, of {DEVICES}; at most that of Socket.IO");
    report.at_most(what, plain, first, "KiB");
}

async fn begin() -> (Server, Backend, u64) {
    let server = Server::start().await;
    let mut backend = server.backend().await;
    connections(&mut backend).await;
    let before = server.resident_kib();
    (server, backend, before)
}

/// Gives the memory of each connection.
async fn socketio(report: &mut Report) -> f64 {
    let (server, mut backend, before) = begin().await;
    let (first, left) = cycle(Speech::SocketIo, &server, &mut backend, before).await;
    let what = format!("resident memory per idle WebSocket connection, of {DEVICES}");
    report.at_most(what.as_str(), first, MOST_KIB, "KiB");
    report.figure("the same when all have left", format!("{left:.1} KiB"));
    let (second, left) = cycle(Speech::SocketIo, &server, &mut backend, before).await;
    report.figure(format!("{what}, when they have come again"), format!("{second:.1} KiB"));
    report.figure("the same when all have left again", format!("{left:.1} KiB"));
    first
}

/// Connects all devices and lets them go again. Gives the memory for each, in KiB, while they are there and when they have left.
async fn cycle(speech: Speech, server: &Server, backend: &mut Backend, before: u64) -> (f64, f64) {
    let fleet = server.silent(speech, server.tokens(DEVICES, &[])).await;
    // Over plain WebSocket nobody is told when the token is accepted.
    while connections(backend).await < DEVICES as u64 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLES).await;
    let there = kib_each(before, server.resident_kib());
    drop(fleet);
    while connections(backend).await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLES).await;
    (there, kib_each(before, server.resident_kib()))
}

async fn connections(backend: &mut Backend) -> u64 {
    backend.connections().await.expect("presence answers")
}

#[expect(clippy::cast_precision_loss, reason = "counts of KiB are small")]
fn kib_each(before: u64, after: u64) -> f64 {
    (after as f64 - before as f64) / DEVICES as f64
}
