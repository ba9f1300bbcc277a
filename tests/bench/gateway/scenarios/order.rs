//! Several streams emit to shared rooms: all of it arrives, in one order per room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bugle::{
    bench::{stream_item, user},
    proto::v1::{EmitStreamRequest, emit::Target},
};
use futures_util::stream;
use tokio::task::JoinSet;

use crate::{
    payload::argument,
    report::Report,
    server::{Server, expect},
};

const DEVICES: usize = 1_000;
const ROOMS: usize = 20;
const STREAMS: usize = 8;
const EMITS_PER_STREAM: usize = 1_000;

/// What one device got, by room.
type Got = HashMap<usize, Vec<Emitted>>;

/// An emit: which stream's, and its number there.
type Emitted = (usize, usize);

pub async fn run(report: &mut Report) {
    let server = Server::start().await;
    let got: Arc<Vec<Mutex<Got>>> = Arc::new((0..DEVICES).map(|_| Mutex::default()).collect());
    let noting = got.clone();
    let note = move |device: usize, event: &[u8]| {
        if let Some((room, emitted)) = argument(event).and_then(read) {
            noting[device].lock().expect("nobody panics").entry(room).or_default().push(emitted);
        }
    };
    let fleet = server.noting(tokens(&server), note).await;
    let mut streams = JoinSet::new();
    for stream in 0..STREAMS {
        let mut backend = server.backend().await;
        streams.spawn(async move {
            let mut enqueued = 0;
            let emits = stream::iter(emits(stream));
            let emitted = backend.emit_stream(emits, |_, receipt| enqueued += receipt.enqueued).await;
            emitted.expect("the emits are accepted");
            enqueued
        });
    }
    let enqueued: u64 = streams.join_all().await.into_iter().sum();
    expect(&fleet, enqueued).await;
    // What comes now would be too much.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let arrived = fleet.tally().arrived();
    report.must(
        format!("sum of `enqueued` over {STREAMS} streams, and what {DEVICES} devices counted"),
        format!("{enqueued} and {arrived}"),
        enqueued == arrived,
    );
    drop(fleet);
    let got: Vec<Got> = got.iter().map(|got| std::mem::take(&mut *got.lock().expect("nobody panics"))).collect();
    let wrong = (0..ROOMS).filter(|room| !is_right(&got, *room)).count();
    report.must(
        format!("rooms whose members did not all get every emit, in one order, each stream's in its own, of {ROOMS}"),
        wrong.to_string(),
        wrong == 0,
    );
}

/// Each device is in two rooms.
fn rooms_of(device: usize) -> [usize; 2] {
    [device % ROOMS, (device / ROOMS + device + 1) % ROOMS]
}

fn tokens(server: &Server) -> Vec<String> {
    let rooms = |device| rooms_of(device).map(|room| room.to_string());
    (0..DEVICES).map(|device| server.token(&user(device), &rooms(device))).collect()
}

fn emits(stream: usize) -> impl Iterator<Item = EmitStreamRequest> {
    (0..EMITS_PER_STREAM).map(move |number| {
        let room = room_of((stream, number));
        let json = format!("[{room},{stream},{number}]");
        stream_item(String::new(), Target::Room(format!("shared:{room}")), json, false)
    })
}

fn room_of((stream, number): Emitted) -> usize {
    (stream * 7 + number * 3) % ROOMS
}

fn read(json: &str) -> Option<(usize, Emitted)> {
    let mut numbers = json.strip_prefix('[')?.strip_suffix(']')?.split(',').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, (next()?, next()?)))
}

/// Whether all members of the room, and they alone, got all that was sent there, in the same order, and each stream's in
/// that stream's.
fn is_right(got: &[Got], room: usize) -> bool {
    let is_member = |device: usize| rooms_of(device).contains(&room);
    let Some(order) = (0..DEVICES).find(|device| is_member(*device)).and_then(|device| got[device].get(&room)) else {
        return false;
    };
    let sent = |stream| (0..EMITS_PER_STREAM).map(move |number| (stream, number)).filter(|emit| room_of(*emit) == room);
    let from = |stream| order.iter().copied().filter(move |(from, _)| *from == stream);
    (0..STREAMS).all(|stream| from(stream).eq(sent(stream)))
        && got.iter().enumerate().all(|(device, got)| match got.get(&room) {
            Some(seen) => is_member(device) && seen == order,
            None => !is_member(device),
        })
}
