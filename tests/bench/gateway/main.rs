//! What the gateway costs and what it keeps up under load, measured on the release binary with cheap devices of its own.
//!
//! `cargo bench --bench gateway` runs all scenarios but `soak` and prints a table in Markdown; `cargo bench --bench gateway -- memory room` runs
//! those. With `BUGLE_BENCH_BINARY` in the environment it measures another binary than this build's. It fails if something that must hold does not.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks to people")]

mod figures;
#[allow(dead_code, unused_imports, reason = "the same as in tests/it, where the rest is used")]
#[path = "../../it/harness/mod.rs"]
mod harness;
mod load;
#[allow(dead_code, reason = "the bench of faults has servers in it")]
mod namespace;
mod paced;
mod payload;
mod report;
mod scenarios;
mod server;
mod slow_disk;
#[path = "../../it/stops/mod.rs"]
mod stops;

use std::process::ExitCode;

use report::Report;
use scenarios::{costs, growth, half_open, marks, memory, order, replays, soak, stalled, stored};

/// How many nodes a server of the harness has.
const NODES: usize = 1;

const SCENARIOS: [&str; 14] = [
    "memory",
    "unary",
    "stream",
    "room",
    "growth",
    "rooms",
    "stored",
    "marks",
    "replays",
    "order",
    "stalled",
    "half-open",
    "stops",
    SOAK,
];
/// Takes ten minutes, so it runs only when it is named.
const SOAK: &str = "soak";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    if let [command, address, token] = arguments.as_slice()
        && command == half_open::DEVICE
    {
        runtime.block_on(half_open::be_the_device(address, token));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.iter().find(|argument| !SCENARIOS.contains(&argument.as_str())) {
        eprintln!("{unknown} is none of {}", SCENARIOS.join(", "));
        return ExitCode::from(64);
    }
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit of file descriptors can be raised");
    let mut report = Report::default();
    for scenario in SCENARIOS {
        if arguments.is_empty() && scenario != SOAK || arguments.iter().any(|argument| argument == scenario) {
            eprintln!("{scenario} …");
            report.begin(scenario);
            runtime.block_on(run(scenario, &mut report));
        }
    }
    report.print();
    if report.all_holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(scenario: &str, report: &mut Report) {
    match scenario {
        "memory" => memory::run(report).await,
        "unary" => costs::unary(report).await,
        "stream" => costs::stream(report).await,
        "room" => costs::room(report).await,
        "growth" => growth::devices(report).await,
        "rooms" => growth::rooms(report).await,
        "stored" => stored::run(report).await,
        "marks" => marks::run(report).await,
        "replays" => replays::run(report).await,
        "order" => order::run(report).await,
        "stalled" => stalled::run(report).await,
        "stops" => scenarios::stops::run(report).await,
        SOAK => soak::run(report).await,
        _ => half_open::run(report).await,
    }
}
