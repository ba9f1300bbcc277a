//! Resident memory for each idle connection, and what stays when all have left.

use std::time::Duration;

use bugle::bench::{Backend, Speech};

use crate::{report::Report, server::Server};

const SOME: usize = 5_000;
const ALL: usize = 15_000;
const MOST_KIB: f64 = 9.0;
const MOST_KIB_PLAIN: f64 = 4.5;
const MOST_KIB_LEFT: f64 = 1.0;
const MOST_GROWTH: f64 = 1.05;
/// Longer than what a connection holds for its beginning alone.
const SETTLES: Duration = Duration::from_secs(7);

struct Hall {
    server: Server,
    backend: Backend,
    before: u64,
}

/// Resident memory, in KiB.
struct Cycle {
    with_some: u64,
    with_all: u64,
    left: u64,
}

pub async fn run(report: &mut Report) {
    socketio(report).await;
    let mut hall = Hall::new().await;
    let plain = hall.cycle(Speech::Plain).await;
    let what = format!("resident memory per idle plain WebSocket connection, slope from {SOME} to {ALL}");
    report.at_most(what, plain.slope(), MOST_KIB_PLAIN, "KiB");
}

async fn socketio(report: &mut Report) {
    let mut hall = Hall::new().await;
    report.figure("resident memory with no device", format!("{} KiB", hall.before));
    let first = hall.cycle(Speech::SocketIo).await;
    let what = "resident memory per idle WebSocket connection";
    report.figure(format!("{what}, of {SOME}"), format!("{:.1} KiB", hall.each(first.with_some, SOME)));
    report.at_most(format!("{what}, slope from {SOME} to {ALL}"), first.slope(), MOST_KIB, "KiB");
    let what_is_left = format!("the same when all {ALL} have left");
    report.at_most(what_is_left, hall.each(first.left, ALL), MOST_KIB_LEFT, "KiB");
    let second = hall.cycle(Speech::SocketIo).await;
    let mut compare = |when, first, second| {
        let what = format!("resident memory when {when}, as a multiple of the first time");
        report.must(
            what,
            format!("{second} / {first} KiB = {:.3} (at most {MOST_GROWTH})", ratio(second, first)),
            ratio(second, first) <= MOST_GROWTH,
        );
    };
    compare("all have come again", first.with_all, second.with_all);
    compare("all have left again", first.left, second.left);
}

impl Cycle {
    /// What each of those takes up that have come last, in KiB.
    #[expect(clippy::cast_precision_loss, reason = "counts of KiB are small")]
    fn slope(&self) -> f64 {
        (self.with_all as f64 - self.with_some as f64) / (ALL - SOME) as f64
    }
}

impl Hall {
    async fn new() -> Self {
        let server = Server::start().await;
        let mut backend = server.backend().await;
        connections(&mut backend).await;
        let before = server.resident_kib();
        Self { server, backend, before }
    }

    /// Connects the devices and lets them go again.
    async fn cycle(&mut self, speech: Speech) -> Cycle {
        let mut tokens = self.server.tokens(ALL, &[]);
        let rest = tokens.split_off(SOME);
        let some = self.server.silent(speech, tokens).await;
        let with_some = self.settled(SOME).await;
        let others = self.server.silent(speech, rest).await;
        let with_all = self.settled(ALL).await;
        drop((some, others));
        let left = self.settled(0).await;
        Cycle { with_some, with_all, left }
    }

    /// The memory when there have been so many connections for a while. Over plain WebSocket nobody is told when the token is accepted.
    async fn settled(&mut self, devices: usize) -> u64 {
        while connections(&mut self.backend).await != devices as u64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(SETTLES).await;
        self.server.resident_kib()
    }

    /// What each of so many devices takes up, in KiB.
    #[expect(clippy::cast_precision_loss, reason = "counts of KiB are small")]
    fn each(&self, resident: u64, devices: usize) -> f64 {
        (resident as f64 - self.before as f64) / devices as f64
    }
}

async fn connections(backend: &mut Backend) -> u64 {
    backend.connections().await.expect("presence answers")
}

#[expect(clippy::cast_precision_loss, reason = "counts of KiB are small")]
fn ratio(second: u64, first: u64) -> f64 {
    second as f64 / first as f64
}
