//! The server's processor time, its own and the kernel's for it.

use bugle::{
    bench::{Backend, Fleet, stream_item, user},
    proto::v1::emit::Target,
};
use futures_util::stream;
use tokio::task::JoinSet;

use crate::{
    payload::ordinary,
    report::{Report, median},
    server::{Server, expect},
};

const ROUNDS: usize = 5;
const USERS: usize = 1_000;
const CALLERS: usize = 8;
const CALLS: usize = 10_000;
const STREAMED: usize = 50_000;
const DELIVERIES: usize = 200_000;
/// How far emits to a room may be ahead of what its devices have got.
const AHEAD: usize = 32;
const ACCEPTED: &str = "the emit is accepted";

pub async fn unary(report: &mut Report) {
    let server = Server::start().await;
    let backend = server.backend().await;
    let fleet = server.counting(server.tokens(USERS, &[])).await;
    let (mut idle, mut emits) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let stats = async |mut backend: Backend, _| {
            assert_eq!(backend.connections().await.expect("presence answers"), USERS as u64);
        };
        let per_stats = cost(&server, CALLS, call(&backend, stats)).await;
        let emit = async |mut backend: Backend, number| {
            let receipt = backend.emit_to_user(&user(number % USERS), ordinary(number)).await.expect(ACCEPTED);
            assert_eq!((receipt.matched, receipt.enqueued), (1, 1));
        };
        let emit_all = async {
            call(&backend, emit).await;
            expect(&fleet, ((round + 1) * CALLS) as u64).await;
        };
        let per_emit = cost(&server, CALLS, emit_all).await;
        // The first round only warms up.
        if round > 0 {
            idle.push(per_stats);
            emits.push(per_emit);
        }
    }
    let (idle, emits) = (median(idle), median(emits));
    report.figure("server CPU per unary EmitToUser, one device each", micros(emits));
    report.figure("server CPU per call that does next to nothing (GetStats)", micros(idle));
    report.figure("the first as a multiple of the second", format!("{:.2}", emits / idle));
}

/// Makes calls, from several callers at one time.
async fn call<F>(backend: &Backend, one: impl Fn(Backend, usize) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let backend = backend.clone();
        callers.spawn(async move {
            for number in (caller..CALLS).step_by(CALLERS) {
                one(backend.clone(), number).await;
            }
        });
    }
    callers.join_all().await;
}

pub async fn stream(report: &mut Report) {
    let server = Server::start().await;
    let mut backend = server.backend().await;
    let fleet = server.counting(server.tokens(USERS, &[])).await;
    let mut costs = Vec::new();
    for round in 0..=ROUNDS {
        let emit_all = async {
            let target = |number| Target::UserId(user(number % USERS));
            let item = move |number| stream_item(String::new(), target(number), ordinary(number), false);
            let mut enqueued = 0;
            let emits = stream::iter((0..STREAMED).map(item));
            backend.emit_stream(emits, |_, receipt| enqueued += receipt.enqueued).await.expect(ACCEPTED);
            assert_eq!(enqueued, STREAMED as u64);
            expect(&fleet, ((round + 1) * STREAMED) as u64).await;
        };
        let per_emit = cost(&server, STREAMED, emit_all).await;
        if round > 0 {
            costs.push(per_emit);
        }
    }
    report.figure("server CPU per emit to a user on one EmitStream, with its delivery", micros(median(costs)));
}

pub async fn room(report: &mut Report) {
    for devices in [1_000, 5_000] {
        let server = Server::start().await;
        let mut backend = server.backend().await;
        let fleet = server.counting(server.tokens(devices, &["room"])).await;
        let (mut single, mut many) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let one_by_one = cost(&server, DELIVERIES, fill(&mut backend, &fleet, devices, 1)).await;
            let ahead = cost(&server, DELIVERIES, fill(&mut backend, &fleet, devices, AHEAD)).await;
            if round > 0 {
                single.push(one_by_one);
                many.push(ahead);
            }
        }
        let what = format!("server CPU per delivery to a room of {devices}");
        report.figure(format!("{what}, one emit at a time"), micros(median(single)));
        report.figure(format!("{what}, up to {AHEAD} emits at a time"), micros(median(many)));
    }
}

/// Emits to the room, never further ahead of its devices than so many emits.
async fn fill(backend: &mut Backend, fleet: &Fleet, devices: usize, ahead: usize) {
    let begun = fleet.tally().arrived();
    let emits = DELIVERIES / devices;
    for number in 1..=emits {
        let receipt = backend.emit_to_room("shared:room", ordinary(number)).await.expect(ACCEPTED);
        assert_eq!(receipt.enqueued, devices as u64);
        let most_missing = if number == emits { 0 } else { ahead - 1 };
        expect(fleet, begun + (number.saturating_sub(most_missing) * devices) as u64).await;
    }
}

/// What the server spends on one of so many things, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "counts of microseconds are small")]
async fn cost(server: &Server, things: usize, work: impl Future<Output = ()>) -> f64 {
    let before = server.cpu_micros();
    work.await;
    (server.cpu_micros() - before) as f64 / things as f64
}

fn micros(figure: f64) -> String {
    format!("{figure:.2} µs")
}
