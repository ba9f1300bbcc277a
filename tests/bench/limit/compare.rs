//! Bugle next to what the machine allows, in interleaved rounds.

use std::{hint::black_box, sync::Arc, time::Instant};

use bugle::{
    bench::{Backend, Fleet, Place, Speech},
    message::Payload,
};
use parking_lot::Mutex;

use crate::{
    bare_write,
    child::Child,
    figures::median,
    load::{ACCEPTED, cost, emit_to_users, fill},
    no_op,
    payload::ordinary,
    server::{Server, expect},
    table::{Rounds, Table},
};

/// Before them there is one that only warms up.
const ROUNDS: usize = 5;
const USERS: usize = 1_000;
/// So many that a round takes both sides a second of processor time or more: the kernel counts it in hundredths.
const CALLS: usize = 60_000;
const DELIVERIES: usize = 600_000;
const TEXTS: usize = 1_000_000;
const MOST_CALLS: f64 = 1.4;
const MOST_WRITES: f64 = 1.5;

pub async fn unary(table: &mut Table) {
    let server = Server::start().await;
    let fleet = server.counting(server.tokens(USERS, &[])).await;
    let (mut emits, mut texts) = (Vec::new(), Vec::new());
    for callers in [8, 64] {
        let rounds = unary_rounds(&server, &fleet, callers).await;
        emits.push(rounds.bugle());
        table.at_most(
            format!("EmitToUser, one device each, {callers} callers; a call of tonic that does nothing"),
            &rounds,
            MOST_CALLS,
        );
    }
    for round in 0..=ROUNDS {
        let micros = json();
        if round > 0 {
            texts.push(micros);
        }
    }
    let bytes = ordinary(0).len();
    let what = format!("EmitToUser, 8 callers; whether its payload of {bytes} bytes is JSON, which is a part of it");
    table.part(what, emits[0], median(texts));
}

async fn unary_rounds(server: &Server, fleet: &Fleet, callers: usize) -> Rounds {
    let limit = Child::start(&[no_op::NAME]);
    let backend = server.backend().await;
    // The child looks at no key.
    let url = format!("http://{}", limit.address());
    let bare = Backend::connect(&url, &"none".into()).await.expect("the child listens");
    let mut rounds = Rounds::default();
    for round in 0..=ROUNDS {
        let emit_all = async {
            let begun = fleet.tally().arrived();
            emit_to_users(&backend, callers, CALLS, USERS).await;
            expect(fleet, begun + CALLS as u64).await;
        };
        let emit = cost(server.process(), CALLS, emit_all).await;
        let call = cost(limit.process(), CALLS, emit_to_users(&bare, callers, CALLS, USERS)).await;
        if round > 0 {
            rounds.add(emit, call);
        }
    }
    rounds
}

/// What it takes to see that one text is JSON, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "small")]
fn json() -> f64 {
    let texts: Vec<_> = (0..TEXTS).map(ordinary).collect();
    let begun = Instant::now();
    for text in texts {
        // What is given back is dropped here, as after an emit.
        black_box(Payload::json(black_box(&text)).expect("it is JSON"));
    }
    begun.elapsed().as_secs_f64() * 1e6 / TEXTS as f64
}

pub async fn room(table: &mut Table) {
    let event = event().await;
    for devices in [1_000, 5_000, 9_000] {
        let server = Server::start().await;
        let mut backend = server.backend().await;
        let fleet = server.counting(server.tokens(devices, &["room"])).await;
        let mut limit = Child::start(&[bare_write::NAME, &devices.to_string(), &event]);
        let nobody = vec![String::new(); devices];
        let bare = Fleet::counting(&Place::from(limit.address()), Speech::SocketIo, nobody).await;
        let bare = bare.expect("the devices connect");
        let mut rounds = Rounds::default();
        for round in 0..=ROUNDS {
            let emits = fill(&mut backend, &fleet, devices, DELIVERIES, 1);
            let delivery = cost(server.process(), DELIVERIES, emits).await;
            let process = limit.process();
            let write = cost(process, DELIVERIES, write_all(&mut limit, &bare, devices)).await;
            if round > 0 {
                rounds.add(delivery, write);
            }
        }
        let what = format!("delivery to a room of {devices}, one emit at a time; write(2) of the same bytes");
        table.at_most(what, &rounds, MOST_WRITES);
    }
}

async fn write_all(limit: &mut Child, fleet: &Fleet, devices: usize) {
    let begun = fleet.tally().arrived();
    for number in 1..=DELIVERIES / devices {
        limit.tell();
        expect(fleet, begun + (number * devices) as u64).await;
    }
}

/// The event as Bugle sends it.
async fn event() -> String {
    let server = Server::start().await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let noted = got.clone();
    let note = move |_: usize, event: &[u8]| *noted.lock() = event.to_vec();
    let fleet = server.noting(server.tokens(1, &["room"]), note).await;
    let receipt = server.backend().await.emit_to_room("shared:room", ordinary(0)).await.expect(ACCEPTED);
    assert_eq!(receipt.enqueued, 1);
    expect(&fleet, 1).await;
    let event = std::mem::take(&mut *got.lock());
    String::from_utf8(event).expect("it is a text")
}
