//! What is left when the process is killed.
//!
//! `BUGLE_KILLS=50 cargo test --release --test it crash` kills it more often.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bugle::proto::v1::{
    Emit, EmitOptions, EmitStreamRequest,
    emit::{Payload, Target},
    emit_result,
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};
use tokio_stream::{StreamExt, wrappers::IntervalStream};

use super::{interleavings::times, resume::kept};
use crate::harness::{API_KEY, Backend, Device, SECRET, deadline, token};

const USERS: u64 = 4;
const PER_SECOND: u64 = 1_000;

/// A server that keeps its messages in a file.
struct Process {
    child: Child,
    clients: SocketAddr,
    grpc: SocketAddr,
}

impl Process {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bugle"));
        command.arg("serve").env_clear().current_dir(directory).stdout(Stdio::null()).stderr(Stdio::piped());
        for listener in ["CLIENTS", "GRPC", "ADMIN"] {
            command.env(format!("BUGLE_{listener}__LISTEN"), "127.0.0.1:0");
        }
        let variables = [
            ("AUTH__JWT__KEYS__0__ALGORITHM", "HS256"),
            ("AUTH__JWT__KEYS__0__SECRET", SECRET),
            ("GRPC__API_KEYS__0__NAME", "test"),
            ("GRPC__API_KEYS__0__KEY", API_KEY),
            ("GRPC__API_KEYS__0__SCOPES", "emit"),
            ("LOG__FORMAT", "json"),
        ];
        command.envs(variables.map(|(name, value)| (format!("BUGLE_{name}"), value)));
        let mut child = command.spawn().expect("the binary is there");
        let log = child.stderr.take().expect("its log is ours");
        let mut lines = BufReader::new(log).lines().map(|line| line.expect("it is text"));
        let listening = lines.find(|line| line.contains("clients.listen")).expect("it says where it listens");
        // Whoever does not read on stops the one who writes.
        std::thread::spawn(move || lines.for_each(drop));
        let line: Value = serde_json::from_str(&listening).expect("it logs JSON");
        let address = |key: &str| {
            let fields = if line["fields"].is_object() { &line["fields"] } else { &line };
            fields[key].as_str().and_then(|text| text.parse().ok()).expect("an address")
        };
        Self { clients: address("clients.listen"), grpc: address("grpc.listen"), child }
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

/// What a device of a user has got.
#[derive(Default)]
struct Got {
    numbers: Vec<u64>,
    position: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_as_stored_outlives_a_kill_at_any_moment_once_and_without_holes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut got: BTreeMap<u64, Got> = (0..USERS).map(|user| (user, Got::default())).collect();
    let mut answered: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    let mut next = 0;
    for kill in 0..times("BUGLE_KILLS", 5) {
        let server = Process::start(directory.path());
        let lives = Duration::from_millis(150 + kill * 7_919 % 350);
        let (receiving, emitting) = tokio::join!(
            receive_all(&server, &mut got, Instant::now() + lives),
            emit_until_killed(server.grpc, &mut next, &mut answered, Instant::now() + lives),
        );
        let ((), ()) = (receiving, emitting);
        server.kill();
    }
    let server = Process::start(directory.path());
    for (user, got) in &mut got {
        let most = answered.get(user).and_then(|answered| answered.iter().map(|(number, _)| *number).max());
        let mut device = device(&server, *user, got).await;
        while got.numbers.last() < most.as_ref() {
            take(got, &deadline("what was stored", device.next_event()).await);
        }
        let answered = answered.remove(user).unwrap_or_default();
        assert!(!answered.is_empty(), "something was stored for user {user}");
        assert!(got.numbers.is_sorted_by(|one, other| one < other), "in order, none twice");
        for (number, position) in answered {
            let index = got.numbers.binary_search(&number).unwrap_or_else(|_| panic!("{number} was lost"));
            assert_eq!(index as u64 + 1, position, "positions are dense");
        }
    }
    server.kill();
}

async fn device(server: &Process, user: u64, got: &Got) -> Device {
    let resume = got.position.as_ref().map_or(json!({}), |position| json!({ format!("user:{user}"): position }));
    let device = Device::builder(server.clients).token(token(&user.to_string())).resume(resume);
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

async fn receive_all(server: &Process, got: &mut BTreeMap<u64, Got>, until: Instant) {
    let receive = async |user: u64, got: &mut Got| {
        let mut device = device(server, user, got).await;
        while let Ok(event) = tokio::time::timeout_at(until, device.next_event()).await {
            take(got, &event);
        }
        device.abort().await;
    };
    futures_util::future::join_all(got.iter_mut().map(|(user, got)| receive(*user, got))).await;
}

/// Emits to all users in turn, and takes note of what was answered as stored.
async fn emit_until_killed(
    grpc: SocketAddr,
    next: &mut u64,
    answered: &mut BTreeMap<u64, Vec<(u64, u64)>>,
    until: Instant,
) {
    let backend = Backend::connect(grpc, API_KEY).await;
    let begin = *next;
    *next += PER_SECOND;
    let mut number = begin;
    let emits = IntervalStream::new(interval(Duration::from_micros(1_000_000 / PER_SECOND))).map(move |_| {
        number += 1;
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
    let mut results = backend.notify().emit_stream(emits).await.expect("a stream is accepted").into_inner();
    while let Ok(Ok(Some(result))) = tokio::time::timeout_at(until, results.message()).await {
        let number: u64 = result.correlation_id.parse().expect("a number");
        if let Some(emit_result::Result::Receipt(receipt)) = result.result.and_then(|result| result.result) {
            let position = receipt.position.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
            answered.entry(number % USERS).or_default().push((number, position.expect("a position")));
        }
    }
}
