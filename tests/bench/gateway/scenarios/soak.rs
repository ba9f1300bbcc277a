//! Devices come and leave and emits go on, for ten minutes: what is resident at the end is what was after the first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bugle::bench::{Backend, Device, Options, Place, user};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use uuid::Uuid;

use crate::{load::ACCEPTED, payload::ordinary, report::Report, server::Server};

const USERS: usize = 1_000;
const ROOMS: usize = 50;
const LONGEST_STAY: Duration = Duration::from_secs(20);
const LONGEST_AWAY: Duration = Duration::from_secs(5);
/// From one emit to the next: to a user and to a room in turn.
const PAUSE: Duration = Duration::from_millis(2);
const DEFAULT_SECONDS: u64 = 600;
const LONGEST_WARM_UP: Duration = Duration::from_mins(1);
/// Longer than what a connection holds for its beginning alone.
const SETTLES: Duration = Duration::from_secs(7);
const MOST_DRIFT: f64 = 0.05;

#[derive(Default)]
struct Counts {
    connects: AtomicU64,
    emits: AtomicU64,
    arrivals: AtomicU64,
    is_over: AtomicBool,
}

pub async fn run(report: &mut Report) {
    let length = length();
    let warm_up = LONGEST_WARM_UP.min(length / 4);
    let rest = length.saturating_sub(warm_up);
    let server = Server::start().await;
    let mut backend = server.backend().await;
    let warm = Arc::new(Counts::default());
    bustle(&server, &warm, warm_up).await;
    let before = alone(&server, &mut backend).await;
    let counts = Arc::new(Counts::default());
    bustle(&server, &counts, rest).await;
    let after = alone(&server, &mut backend).await;
    let count = |counted: &AtomicU64| counted.load(Ordering::Relaxed);
    report.figure(
        format!(
            "connects, emits and arrivals in the {} s after a warm-up of {} s",
            length.as_secs(),
            warm_up.as_secs()
        ),
        format!("{}, {} and {}", count(&counts.connects), count(&counts.emits), count(&counts.arrivals)),
    );
    #[expect(clippy::cast_precision_loss, reason = "counts of KiB are small")]
    let drift = after as f64 / before as f64 - 1.0;
    report.must(
        "resident memory with nobody connected: after the warm-up, at the end, and the difference (at most ± 5 %)",
        format!("{before} KiB, {after} KiB, {:+.1} %", drift * 100.0),
        drift.abs() <= MOST_DRIFT,
    );
}

fn length() -> Duration {
    let seconds = std::env::var_os("BUGLE_SOAK_SECONDS").map(|seconds| {
        let seconds = seconds.to_str().and_then(|seconds| seconds.parse().ok());
        seconds.expect("BUGLE_SOAK_SECONDS is a number of seconds")
    });
    Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS))
}

/// Has devices come and leave, and emits go to them, for so long; then all leave.
async fn bustle(server: &Server, counts: &Arc<Counts>, length: Duration) {
    let mut tasks = JoinSet::new();
    for number in 0..USERS {
        // Everyone is in two rooms.
        let rooms = [number, number / ROOMS + number + 1].map(|room| (room % ROOMS).to_string());
        let token = server.token(&user(number), &rooms);
        tasks.spawn(come_and_leave(server.devices(), token, counts.clone()));
    }
    tasks.spawn(emit(server.backend().await, counts.clone()));
    sleep(length).await;
    // Each stays as long as it meant to, so that the last leave one by one, too.
    counts.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("nobody panics");
    }
}

async fn come_and_leave(place: Place, token: String, counts: Arc<Counts>) {
    while !counts.is_over.load(Ordering::Relaxed) {
        sleep(up_to(LONGEST_AWAY)).await;
        let device = Device::connect(place.address, &token, Options::default()).await.expect("the device connects");
        counts.connects.fetch_add(1, Ordering::Relaxed);
        let note = |_: &[u8]| {
            counts.arrivals.fetch_add(1, Ordering::Relaxed);
        };
        let stays = timeout(up_to(LONGEST_STAY), device.run(note)).await;
        assert!(stays.is_err(), "the device is cut off: {stays:?}");
    }
}

async fn emit(mut backend: Backend, counts: Arc<Counts>) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    while !counts.is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let json = ordinary(number);
        let emitted = match number % 2 {
            0 => backend.emit_to_user(&user(below(USERS)), json).await,
            _ => backend.emit_to_room(&format!("shared:{}", below(ROOMS)), json).await,
        };
        emitted.expect(ACCEPTED);
        counts.emits.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
}

/// What is resident when nobody has been connected for a while, in KiB.
async fn alone(server: &Server, backend: &mut Backend) -> u64 {
    while backend.connections().await.expect("presence answers") > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(SETTLES).await;
    server.resident_kib()
}

fn up_to(longest: Duration) -> Duration {
    Duration::from_millis(below(usize::try_from(longest.as_millis()).expect("seconds")) as u64)
}

/// A random number.
fn below(end: usize) -> usize {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    usize::try_from(random >> 8).expect("64 bits") % end
}
