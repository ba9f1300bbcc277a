//! One device of a thousand stops reading: it is closed, and nobody else notices.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use bugle::{
    bench::{Backend, Device, Fleet, Options, stream_item, user},
    proto::v1::emit::Target,
};
use futures_util::stream;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    figures::median,
    payload::argument,
    report::{Report, percentile},
    server::{Server, expect},
};

const OTHERS: usize = 999;
const ROUNDS: usize = 5;
/// Emits to the room of all, a second.
const RATE: u32 = 50;
const EMITS: usize = 250;
/// What else the one device that stops reading is sent, a second, and in what pieces: so that its buffers are full in no time.
const FILLING_RATE: u32 = 100;
const FILLING_BYTES: usize = 16 << 10;
const MOST_SECONDS: f64 = 15.0;

/// Microseconds between an emit and its arrival, of each delivery.
type Latencies = Arc<Mutex<Vec<u32>>>;

struct Arena {
    server: Server,
    backend: Backend,
    fleet: Fleet,
    latencies: Latencies,
}

pub async fn run(report: &mut Report) {
    let server = Server::start().await;
    let backend = server.backend().await;
    let latencies = Latencies::default();
    let noting = latencies.clone();
    let note = move |_, event: &[u8]| {
        if let Some(sent) = argument(event).and_then(sent_at) {
            noting.lock().expect("nobody panics").push(now().saturating_sub(sent));
        }
    };
    let fleet = server.noting(server.tokens(OTHERS, &["room"]), note).await;
    let mut arena = Arena { server, backend, fleet, latencies };
    let (mut without, mut with, mut closing) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let calm = arena.calm_round().await;
        let (stalled, closed) = arena.stalled_round().await;
        // The first round only warms up.
        if round > 0 {
            without.push(calm);
            with.push(stalled);
            closing.push(closed);
        }
    }
    let of = |figures: &[(f64, f64)]| {
        let p50 = median(figures.iter().map(|(p50, _)| *p50).collect());
        let p99 = median(figures.iter().map(|(_, p99)| *p99).collect());
        format!("{p50:.2} and {p99:.2} ms")
    };
    report.figure(format!("p50 and p99 latency of {OTHERS} devices"), of(&without));
    report.figure("the same while one more has stopped reading", of(&with));
    let ratios = with.iter().zip(&without).map(|((_, with), (_, without))| with / without).collect();
    report.at_most("p99 with as a multiple of p99 without, median of 5 interleaved rounds", median(ratios), 2.0, "×");
    let longest = closing.iter().copied().fold(0.0, f64::max);
    report.at_most("from the stop to its close as slow, the longest of 5", longest, MOST_SECONDS, "s");
    let slow = arena.server.closes("slow").await;
    report.must("closed as slow", slow.to_string(), slow == (ROUNDS + 1) as u64);
    let connected = arena.fleet.connected();
    report.must("others still connected, none of whom missed anything", connected.to_string(), connected == OTHERS);
}

impl Arena {
    async fn calm_round(&mut self) -> (f64, f64) {
        let spare = Device::connect(self.server.devices().address, &self.one_more(), Options::default()).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(spare.expect("the device connects").run(|_| ()));
        let result = self.emit_to_all().await;
        drop(tasks);
        self.all_others_alone().await;
        result
    }

    /// Also says after how many seconds the device was forgotten.
    async fn stalled_round(&mut self) -> ((f64, f64), f64) {
        let sockets = self.server.sockets();
        let options = Options { receive_buffer: Some(4 << 10), ..Options::default() };
        let stalled = Device::connect(self.server.devices().address, &self.one_more(), options)
            .await
            .expect("the device connects");
        let stopped = Instant::now();
        let mut filling = JoinSet::new();
        filling.spawn(fill(self.backend.clone()));
        let mut presence = self.backend.clone();
        let mut forgetting = JoinSet::new();
        forgetting.spawn(async move {
            while presence.is_online(&user(OTHERS)).await.expect("presence answers") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stopped.elapsed()
        });
        let result = self.emit_to_all().await;
        let forgotten = tokio::time::timeout(Duration::from_mins(1), forgetting.join_next()).await;
        let forgotten = forgotten.expect("the device is closed in a minute").expect("one task runs");
        let forgotten = forgotten.expect("nobody panics");
        drop(filling);
        self.all_others_alone().await;
        let begun = Instant::now();
        while self.server.sockets() > sockets {
            assert!(begun.elapsed() < Duration::from_secs(2), "the file descriptor stays open");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(stalled);
        (result, forgotten.as_secs_f64())
    }

    /// Emits at a steady rate, waits until all have it all, and gives p50 and p99 in milliseconds.
    async fn emit_to_all(&mut self) -> (f64, f64) {
        self.latencies.lock().expect("nobody panics").clear();
        let arrived = self.fleet.tally().arrived();
        let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let emits = stream::unfold((tick, 0), async |(mut tick, number)| {
            tick.tick().await;
            let json = format!(r#"{{"sent":{},"text":"{}"}}"#, now(), "·".repeat(64));
            let item = stream_item(String::new(), Target::Room("shared:room".into()), json, false);
            (number < EMITS).then_some((item, (tick, number + 1)))
        });
        self.backend.emit_stream(emits, |_, _| ()).await.expect("the emits are accepted");
        expect(&self.fleet, arrived + (EMITS * OTHERS) as u64).await;
        let mut latencies = std::mem::take(&mut *self.latencies.lock().expect("nobody panics"));
        assert_eq!(latencies.len(), EMITS * OTHERS, "nobody missed anything");
        latencies.sort_unstable();
        let milliseconds = |share| f64::from(percentile(&latencies, share)) / 1_000.0;
        (milliseconds(0.5), milliseconds(0.99))
    }

    /// The token of the device that is there besides the others, in the same room.
    fn one_more(&self) -> String {
        self.server.token(&user(OTHERS), &["room".to_owned()])
    }

    async fn all_others_alone(&mut self) {
        let begun = Instant::now();
        while self.backend.connections().await.expect("presence answers") > OTHERS as u64 {
            assert!(begun.elapsed() < Duration::from_secs(5), "presence forgets who left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn fill(mut backend: Backend) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / FILLING_RATE);
    loop {
        tick.tick().await;
        let emitted = backend.emit_to_user(&user(OTHERS), format!("\"{}\"", "f".repeat(FILLING_BYTES))).await;
        emitted.expect("the emit is accepted");
    }
}

/// Microseconds since the first call.
fn now() -> u32 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    u32::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_micros()).expect("a bench takes less than an hour")
}

fn sent_at(json: &str) -> Option<u32> {
    json.strip_prefix(r#"{"sent":"#)?.split(',').next()?.parse().ok()
}
