//! `bugle bench` as an operator runs it.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::interval;

use crate::harness::{API_KEY, SECRET, TestServer, deadline};

/// Each bench starts a server, and all of them run at one time.
const PATIENCE: Duration = Duration::from_mins(1);
const ANOTHER_SECRET: &str = "another-secret-of-thirty-two-bytes-or-more";

fn bench(arguments: &[&str], temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bugle"));
    command.arg("bench").args(arguments).env_clear().env("TMPDIR", temporary);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for its end, no longer than [`PATIENCE`].
async fn ended(child: Child) -> Output {
    let process = child.id();
    let waiting = tokio::task::spawn_blocking(|| child.wait_with_output());
    let Ok(output) = tokio::time::timeout(PATIENCE, waiting).await else {
        send("-KILL", process);
        panic!("the bench does not end");
    };
    output.expect("waiting does not panic").expect("it ends")
}

fn send(signal: &str, process: u32) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.expect("kill is there").success());
}

async fn run(arguments: &[&str]) -> Output {
    let temporary = tempfile::tempdir().expect("a directory");
    let output = ended(bench(arguments, temporary.path()).spawn().expect("the binary is there")).await;
    assert_eq!(entries(temporary.path()), 0, "nothing is left behind");
    output
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).expect("the directory is there").count()
}

/// With a server of its own; its report.
async fn report(arguments: &[&str]) -> Value {
    let output = run(arguments).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(told, "", "nothing is told but the report");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Calls with emits: so many deliveries, and each figure there.
async fn gives_figures(load: &str, more: &[&str], deliveries: u64) -> Value {
    let arguments = [&[load, "--json", "--devices", "20"], more].concat();
    let report = report(&arguments).await;
    assert_eq!(report["load"], load);
    assert_eq!((&report["deliveries"], &report["missing"]), (&deliveries.into(), &0.into()), "{report}");
    for of in ["delivery_us", "answer_us"] {
        let figures = ["p50", "p90", "p99", "p99_9", "max"].map(|name| report[of][name].as_f64().expect(name));
        assert!(figures[0] > 0.0 && figures.is_sorted(), "{report}");
    }
    for figure in ["cpu_seconds", "cpu_us_per_emit", "cpu_us_per_delivery", "resident_bytes_before", "resident_bytes"] {
        assert!(report["server"][figure].is_number(), "{figure}: {report}");
    }
    for figure in ["seconds", "emits_per_second", "deliveries_per_second"] {
        assert!(report[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {report}");
    }
    assert!(report["connect"]["server_cpu_us_per_connect"].is_number(), "{report}");
    assert!(report["generator"]["cpu_seconds"].is_number(), "{report}");
    report
}

#[tokio::test]
async fn emits_to_users_are_measured() {
    let report = gives_figures("user", &["--emits", "200"], 200).await;
    assert_eq!((&report["emits"], &report["concurrency"], &report["rate"]), (&200.into(), &8.into(), &Value::Null));
}

#[tokio::test]
async fn emits_on_streams_are_measured() {
    gives_figures("stream", &["--emits", "500", "--concurrency", "2"], 500).await;
}

#[tokio::test]
async fn emits_to_a_room_are_measured() {
    gives_figures("room", &["--emits", "30", "--payload", "2000"], 600).await;
}

#[tokio::test]
async fn emits_to_everyone_are_measured() {
    gives_figures("broadcast", &["--emits", "30", "--concurrency", "1"], 600).await;
}

#[tokio::test]
async fn stored_emits_are_measured() {
    gives_figures("stored", &["--emits", "200"], 200).await;
}

#[tokio::test]
async fn at_a_rate_emits_take_their_time() {
    let report = gives_figures("user", &["--emits", "500", "--rate", "1000"], 500).await;
    assert_eq!(report["rate"], 1_000);
    // The last is due 499 ms after the first.
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.499), "{report}");
}

#[tokio::test]
async fn connections_are_measured_without_emits() {
    let report = report(&["connect", "--json", "--devices", "50", "--settle", "10ms"]).await;
    assert_eq!((&report["load"], &report["devices"]), (&"connect".into(), &50.into()));
    assert_eq!((&report["emits"], &report["delivery_us"]), (&Value::Null, &Value::Null));
    assert!(report["connect"]["devices_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
    for figure in ["cpu_seconds", "resident_bytes_before", "resident_bytes", "resident_bytes_after"] {
        assert!(report["server"][figure].is_number(), "{figure}: {report}");
    }
}

#[tokio::test]
async fn people_get_a_table() {
    let output = run(&["room", "--devices", "5", "--emits", "10"]).await;
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("it is text");
    for part in ["bugle bench room: 5 devices, 10 emits of 100 bytes", "50 deliveries, 0 missing", "p99.9", "generator"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[tokio::test]
async fn several_nodes_are_measured_beside_one_and_the_others_get_nothing() {
    let report = report(&["--nodes", "3", "--devices", "2", "--emits", "50", "--concurrency", "4", "--json"]).await;
    assert_eq!((&report["nodes"], &report["partial_receipts"]), (&3.into(), &0.into()), "{report}");
    let frames: Vec<_> = report["frames_received"].as_array().expect("a list").iter().map(Value::as_u64).collect();
    // 4 calls, 5 rounds, 50 emits and 5 to warm up; what else came to the receiver is what its devices' rooms had.
    assert!(frames[1] >= Some(1_100) && frames[2] == Some(0), "{report}");
    let calls = report["calls"].as_array().expect("a list");
    let loads: Vec<_> = calls.iter().map(|call| (call["call"].as_str(), call["in_flight"].as_u64())).collect();
    let expected = [("user", 1), ("user", 4), ("stream", 1), ("stream", 4)];
    assert_eq!(loads, expected.map(|(call, in_flight)| (Some(call), Some(in_flight))));
    for call in calls {
        for (side, of) in ["solo", "several"].iter().flat_map(|side| [(side, "answer_us"), (side, "delivery_us")]) {
            let [p50, p99] = ["p50", "p99"].map(|name| call[side][of][name].as_f64().expect(name));
            assert!(p50 > 0.0 && p99 >= p50, "{report}");
        }
        for cpu in ["sender_cpu_us", "receiver_cpu_us", "engine_cpu_us", "others_cpu_us"] {
            assert!(call["several"][cpu].is_number(), "{cpu}: {report}");
        }
        for cpu in [&call["solo"]["cpu_us"], &call["nodes_over_solo_us"], &call["all_over_solo_us"]] {
            assert!(cpu.is_number(), "{report}");
        }
    }
}

#[tokio::test]
async fn several_nodes_are_shown_as_a_table() {
    let output = run(&["--nodes", "2", "--devices", "1", "--emits", "10", "--concurrency", "2"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it is text");
    for part in ["2 nodes beside one alone, 1 devices, 10 emits", "stream, 2 in flight", "frames received, by node: "] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[tokio::test]
async fn several_nodes_without_an_engine_to_start_are_a_failure_that_says_so() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = bench(&["--nodes", "2"], temporary.path());
    let output = ended(command.env("PATH", temporary.path()).spawn().expect("the binary is there")).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot run redis-server") && told.contains("PATH"), "{told}");
    assert_eq!(entries(temporary.path()), 0, "nothing is left behind");
}

/// What says where a server is that is there already.
fn given(server: &TestServer, secret: &str) -> Vec<String> {
    let url = |address| format!("http://{address}");
    let options = [
        ("--server", url(server.grpc())),
        ("--devices-url", url(server.clients())),
        ("--admin", url(server.admin())),
        ("--api-key", API_KEY.to_owned()),
        ("--secret", secret.to_owned()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

#[tokio::test]
async fn a_given_server_is_measured_and_left_as_it_was() {
    let server = TestServer::start().await;
    let given = given(&server, SECRET);
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    gives_figures("user", &[&["--emits", "100"], given.as_slice()].concat(), 100).await;
    server.connect("42").await;
}

#[tokio::test]
async fn a_secret_that_is_not_the_servers_is_a_failure_that_says_so() {
    let server = TestServer::start().await;
    let given = given(&server, ANOTHER_SECRET);
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let output = run(&[&["user"], given.as_slice()].concat()).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot connect") && told.contains("refused"), "{told}");
    assert!(!told.contains(ANOTHER_SECRET) && !told.contains(API_KEY), "{told}");
}

#[tokio::test]
async fn an_emit_that_is_refused_ends_the_bench_with_the_servers_message() {
    let server = TestServer::start().await;
    let given = given(&server, SECRET);
    let mut arguments = vec!["user", "--devices", "2", "--payload", "2000000"];
    arguments.extend(given.iter().map(String::as_str));
    let output = run(&arguments).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("INVALID_ARGUMENT"), "{told}");
}

#[tokio::test]
async fn a_secret_that_is_too_short_is_wrong_usage() {
    let server = TestServer::start().await;
    let given = given(&server, "short");
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let output = run(&[&["user"], given.as_slice()].concat()).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("32"));
}

#[tokio::test]
async fn more_devices_than_descriptors_are_refused_at_once() {
    let output = run(&["connect", "--devices", "1000000"]).await;
    let told = String::from_utf8_lossy(&output.stderr);
    // Whoever may have a million of them is not refused for that.
    assert!(output.status.code() == Some(64) && told.contains("at most"), "{told}");
}

#[tokio::test]
async fn a_bench_that_is_stopped_takes_its_server_with_it() {
    let temporary = tempfile::tempdir().expect("a directory");
    let command = &mut bench(&["user", "--devices", "5", "--emits", "100000", "--rate", "1"], temporary.path());
    let child = command.spawn().expect("the binary is there");
    let admin = deadline("the server of the bench", listening(temporary.path())).await;
    assert!(TcpStream::connect(&admin).is_ok());
    send("-TERM", child.id());
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped before the end"));
    assert_eq!(entries(temporary.path()), 0);
    assert!(TcpStream::connect(&admin).is_err(), "the server is gone");
}

/// Where the server listens whose log is somewhere in there.
async fn listening(temporary: &Path) -> String {
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        let directories = fs::read_dir(temporary).expect("the directory is there").filter_map(Result::ok);
        let logs = directories.filter_map(|entry| fs::read_to_string(entry.path().join("log")).ok());
        let mut lines = logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>());
        if let Some(line) = lines.find(|line| line.contains("admin.listen") && line.ends_with('}')) {
            let line: Value = serde_json::from_str(&line).expect("a line of JSON");
            let address = line.get("admin.listen").or_else(|| line["fields"].get("admin.listen"));
            return address.and_then(Value::as_str).expect("an address").to_owned();
        }
    }
}
