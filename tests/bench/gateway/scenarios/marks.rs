//! Devices mark messages as read in numbers, on a disk whose `fsync` takes 5 ms: stored emits go on.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::stream;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use bugle::bench::Setup;

use crate::{
    harness::Postgres,
    load::ACCEPTED,
    paced::{paced, stored},
    report::Report,
    server::{Server, program},
    slow_disk::{self, OnSlowDisk},
};

/// Connections that mark, and how often each does: 400 a second in all.
const CALLERS: usize = 32;
const PERIOD: Duration = Duration::from_millis(80);
const SECONDS: usize = 10;
const PER_SECOND: f64 = 400.0;
/// Each user has one message and marks it once.
const USERS: usize = 400 * SECONDS;
/// Emits go to a tenth of them, one in 10 ms.
const EMIT_EVERY: Duration = Duration::from_millis(10);
const EMITS: usize = 100 * SECONDS;
const MOST_MILLIS: f64 = 50.0;

pub async fn run(report: &mut Report) {
    let program = program();
    let slow = OnSlowDisk::new(&program);
    let postgres = Postgres::start(&slow_disk::POSTGRES, |_| ());
    let url = postgres.url(&postgres.new_database());
    measure(report, "SQLite", &slow.program, None).await;
    measure(report, "PostgreSQL", &program, Some(url)).await;
}

async fn measure(report: &mut Report, database: &str, program: &Path, store: Option<String>) {
    let server = Server::start_program(program, &Setup { store, ..Setup::default() }).await;
    let mut backend = server.backend().await;
    let unread = stream::iter((0..USERS).map(|number| stored(number, USERS)));
    backend.emit_stream(unread, |_, _| ()).await.expect(ACCEPTED);
    let alone = paced(&mut backend, EMIT_EVERY, EMITS, USERS / 10).await;
    let begun = Instant::now();
    let mut marking = JoinSet::new();
    let tokens = server.tokens(USERS, &[]);
    for tokens in tokens.chunks(USERS / CALLERS) {
        marking.spawn(mark(server.devices().address, tokens.to_vec()));
    }
    let beside = paced(&mut backend, EMIT_EVERY, EMITS, USERS / 10).await;
    let marked: usize = marking.join_all().await.into_iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let rate = marked as f64 / begun.elapsed().as_secs_f64();
    report.figure(
        format!("fsync takes 5 ms: p50 and p99 of a stored emit's answer, {database}"),
        format!("{:.1} and {:.1} ms", alone.millis(0.5), alone.millis(0.99)),
    );
    report.must(
        format!("messages marked as read a second beside them, none refused, {database}"),
        format!("{rate:.0}"),
        marked == USERS && rate >= 0.9 * PER_SECOND,
    );
    report.figure(format!("p50 of the answers meanwhile, {database}"), format!("{:.1} ms", beside.millis(0.5)));
    report.at_most(format!("p99 of the same, {database}"), beside.millis(0.99), MOST_MILLIS, "ms");
}

/// Marks everything of each user as read, one user each period. Says for how many that was answered OK.
async fn mark(server: SocketAddr, tokens: Vec<String>) -> usize {
    let stream = TcpStream::connect(server).await.expect("the devices' port is open");
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.expect("nothing is sent yet");
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut marked = 0;
    for token in tokens {
        ticks.tick().await;
        let request = Request::builder()
            .method(Method::PUT)
            .uri("/bugle/notifications/read")
            .header("host", server.to_string())
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .expect("it is a request");
        let response = sender.send_request(request).await.expect("it is answered");
        marked += usize::from(response.status() == StatusCode::OK);
        response.into_body().collect().await.expect("it is answered whole");
    }
    marked
}
