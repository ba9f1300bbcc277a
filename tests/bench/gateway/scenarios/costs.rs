//! The server's processor time, its own and the kernel's for it.

use bugle::{
    bench::{Backend, stream_item, user},
    proto::v1::emit::Target,
};
use futures_util::stream;

use crate::{
    figures::{median, micros},
    load::{ACCEPTED, call, cost, emit_to_users, fill},
    payload::ordinary,
    report::Report,
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

pub async fn unary(report: &mut Report) {
    let server = Server::start().await;
    let backend = server.backend().await;
    let fleet = server.counting(server.tokens(USERS, &[])).await;
    let (mut idle, mut emits) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let stats = async |mut backend: Backend, _| {
            assert_eq!(backend.connections().await.expect("presence answers"), USERS as u64);
        };
        let per_stats = cost(server.process(), CALLS, call(&backend, CALLERS, CALLS, stats)).await;
        let emit_all = async {
            emit_to_users(&backend, CALLERS, CALLS, USERS).await;
            expect(&fleet, ((round + 1) * CALLS) as u64).await;
        };
        let per_emit = cost(server.process(), CALLS, emit_all).await;
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
        let per_emit = cost(server.process(), STREAMED, emit_all).await;
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
            let one_by_one =
                cost(server.process(), DELIVERIES, fill(&mut backend, &fleet, devices, DELIVERIES, 1)).await;
            let ahead =
                cost(server.process(), DELIVERIES, fill(&mut backend, &fleet, devices, DELIVERIES, AHEAD)).await;
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
