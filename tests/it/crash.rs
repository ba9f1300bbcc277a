//! What is left when the process is killed under load: emits are on their way and devices are connected.
//!
//! `BUGLE_KILLS=50 cargo test --release --test it crash -- --nocapture` kills it more often. Over PostgreSQL each process waits for 4 s until the
//! lease of the killed one has ended.

use std::{collections::BTreeMap, io::Write as _, net::SocketAddr, time::Duration};

use bugle::proto::v1::{
    Emit, EmitOptions, EmitStreamRequest,
    emit::{Payload, Target},
    emit_result,
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tokio_stream::{StreamExt, wrappers::IntervalStream};

use super::{interleavings::times, resume::kept};
use crate::harness::{Device, Launch, PATIENCE, ServerProcess, deadline, new_database, token};

const USERS: u64 = 4;
const PER_SECOND: u64 = 1_000;
/// Numbers that the emits of one process may have.
const NUMBERS: u64 = 1_000_000;

/// What a device of a user has got.
#[derive(Default)]
struct Got {
    numbers: Vec<u64>,
    position: Option<String>,
}

/// What became of all emits.
#[derive(Default)]
struct Emits {
    /// By user, the numbers that were answered as stored, with their positions.
    answered: BTreeMap<u64, Vec<(u64, u64)>>,
    /// Those without an answer when their process was killed.
    in_flight: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sqlite_has_stored_outlives_a_kill_at_any_moment_once_and_without_holes() {
    let directory = tempfile::tempdir().expect("a directory");
    kill_again_and_again(&format!("sqlite:{}/bugle.db", directory.path().display()), 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_has_stored_outlives_a_kill_at_any_moment_once_and_without_holes() {
    kill_again_and_again(&new_database(), 3).await;
}

async fn start(url: &str) -> ServerProcess {
    let launch = Launch { variables: &[("BUGLE_STORE__URL", url)], ..Launch::default() };
    let server = launch.start().unwrap_or_else(|logged| panic!("it does not start:\n{logged}"));
    server.is_ready(true).await;
    server
}

async fn kill_again_and_again(url: &str, usual: u64) {
    let mut got: BTreeMap<u64, Got> = (0..USERS).map(|user| (user, Got::default())).collect();
    let (mut emits, kills) = (Emits::default(), times("BUGLE_KILLS", usual));
    for kill in 0..kills {
        let mut server = start(url).await;
        let (clients, grpc) = (server.clients, server.grpc);
        // Devices are connected before the first emit.
        let mut devices = Vec::new();
        for (user, got) in &got {
            devices.push(device(clients, *user, got).await);
        }
        let (count, mut counted) = watch::channel(0);
        let killing = async {
            let wanted = 50 + kill * 7_919 % 350;
            deadline("emits to be answered", counted.wait_for(|count| *count >= wanted)).await.expect("it counts");
            server.kill_9();
        };
        let receiving = futures_util::future::join_all(devices.into_iter().zip(got.values_mut()).map(receive));
        let emitting = emit_until_killed(grpc, kill * NUMBERS, &mut emits, &count);
        tokio::join!(killing, receiving, emitting);
    }
    let (answered, in_flight) = (emits.answered.values().map(Vec::len).sum::<usize>(), emits.in_flight);
    let server = start(url).await;
    for (user, got) in &mut got {
        check(&server, *user, got, emits.answered.remove(user).unwrap_or_default()).await;
    }
    let numbers: usize = got.values().map(|got| got.numbers.len()).sum();
    // Not by a macro, whose text the test harness keeps for itself.
    let scheme = url.split(':').next().expect("a URL");
    writeln!(
        std::io::stderr(),
        "{scheme}: {kills} kills, {answered} emits answered as stored, {in_flight} in flight when their process was killed, \
         {numbers} messages received once and in order"
    )
    .expect("stderr is open");
}

/// All that was answered as stored comes, once and at its position.
async fn check(server: &ServerProcess, user: u64, got: &mut Got, answered: Vec<(u64, u64)>) {
    assert!(!answered.is_empty(), "something was stored for user {user}");
    let most = answered.iter().map(|(number, _)| *number).max();
    let mut device = device(server.clients, user, got).await;
    while got.numbers.last() < most.as_ref() {
        take(got, &deadline("what was stored", device.next_event()).await);
    }
    assert!(got.numbers.is_sorted_by(|one, other| one < other), "in order, none twice");
    for (number, position) in answered {
        let index = got.numbers.binary_search(&number).unwrap_or_else(|_| panic!("{number} was lost"));
        assert_eq!(index as u64 + 1, position, "positions are dense");
    }
}

async fn device(clients: SocketAddr, user: u64, got: &Got) -> Device {
    let resume = got.position.as_ref().map_or(json!({}), |position| json!({ format!("user:{user}"): position }));
    let device = Device::builder(clients).token(token(&user.to_string())).resume(resume);
    device.connect().await.expect("it connects")
}

fn take(got: &mut Got, event: &crate::harness::Event) {
    if event.name == "bugle:resumed" {
        let resumed = event.value();
        let rooms = resumed["rooms"].as_object().expect("they are named");
        assert!(rooms.values().all(|room| room["recovered"] == true), "{resumed}");
        return;
    }
    let (number, position) = kept(event);
    got.numbers.push(number);
    got.position = Some(position);
}

/// Takes what comes until the connection ends.
async fn receive((mut device, got): (Device, &mut Got)) {
    while let Some(event) = device.try_next(2 * PATIENCE).await {
        take(got, &event);
    }
}

/// Emits to all users in turn, and takes note of what was answered as stored. The first emit has the number after `begin`.
async fn emit_until_killed(grpc: SocketAddr, begin: u64, emits: &mut Emits, count: &watch::Sender<u64>) {
    let backend = crate::harness::Backend::connect(grpc, crate::harness::API_KEY).await;
    let (sending, sent) = watch::channel(begin);
    let requests = IntervalStream::new(interval(Duration::from_micros(1_000_000 / PER_SECOND))).map(move |_| {
        sending.send_modify(|number| *number += 1);
        let number = *sending.borrow();
        EmitStreamRequest {
            correlation_id: number.to_string(),
            emit: Some(Emit {
                target: Some(Target::UserId((number % USERS).to_string())),
                event: "e".into(),
                payload: Some(Payload::Json(number.to_string())),
                options: Some(EmitOptions { store: true, ..EmitOptions::default() }),
            }),
        }
    });
    let mut results = backend.notify().emit_stream(requests).await.expect("a stream is accepted").into_inner();
    while let Ok(Ok(Some(result))) = timeout(2 * PATIENCE, results.message()).await {
        let number: u64 = result.correlation_id.parse().expect("a number");
        let result = result.result.and_then(|result| result.result);
        let Some(emit_result::Result::Receipt(receipt)) = result else { panic!("{number} is refused: {result:?}") };
        let position = receipt.position.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        emits.answered.entry(number % USERS).or_default().push((number, position.expect("a position")));
        count.send_modify(|count| *count += 1);
    }
    emits.in_flight += *sent.borrow() - begin - *count.borrow();
}
