//! Each fault of the engine, a node or the network between them, three times in the middle of more than 1,000 emits a second: no complete receipt for
//! what did not arrive, nobody waits for longer than the deadline, presence is right within a second afterwards, and there is no ghost.
//!
//! `cargo bench --bench faults` does all of them; `cargo bench --bench faults -- --rounds 1 SIGSTOP clock` once those whose names have one of these
//! texts. It prints a table in Markdown, and fails if something that must hold does not, or if this machine cannot do one of the faults. With
//! `BUGLE_BENCH_BINARY` in the environment the nodes are another binary than this build's.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks to people")]

#[allow(dead_code, unused_imports, reason = "the same as in tests/it, where the rest is used")]
#[path = "../../it/harness/mod.rs"]
mod harness;
#[allow(dead_code, unused_imports, reason = "tests/cluster has shorter scenes")]
#[path = "../../cluster/scene/mod.rs"]
mod scene;

use std::{process::ExitCode, time::Duration};

use scene::{Fault, Limits, Outcome, Size};

/// How many nodes there are.
const NODES: usize = 3;
const ROUNDS: usize = 3;
const LIMITS: Limits = Limits {
    // The deadline of the nodes is 500 ms; the rest is the machine's, which everything here shares.
    call: Duration::from_millis(750),
    presence: Duration::from_secs(1),
    // A lease, a heartbeat, and the second that presence has.
    fence: Duration::from_secs(7),
    rate: 1_000,
};

fn main() -> ExitCode {
    let mut rounds = ROUNDS;
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => match arguments.next().and_then(|count| count.parse().ok()) {
                Some(count) => rounds = count,
                None => return usage("--rounds wants a number"),
            },
            // Cargo's.
            "--bench" => {}
            option if option.starts_with("--") => return usage(&format!("{option} is no option")),
            _ => wanted.push(argument),
        }
    }
    let is_wanted = |fault: &Fault| wanted.is_empty() || wanted.iter().any(|text| fault.to_string().contains(text));
    let faults: Vec<_> = Fault::EACH.into_iter().filter(is_wanted).collect();
    if faults.is_empty() {
        return usage("no fault has such a name");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit of file descriptors can be raised");
    print_head();
    let mut all_holds = true;
    for fault in faults {
        for round in 1..=rounds {
            eprintln!("{fault}, {round} of {rounds} …");
            match runtime.block_on(fault.run(Size::FULL)) {
                Ok(outcome) => all_holds &= print(fault, round, &outcome),
                Err(why) => {
                    println!("| {fault} | {round} | NOT RUN: {why} |");
                    all_holds = false;
                }
            }
        }
    }
    if all_holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("{problem}; the faults are:");
    for fault in Fault::EACH {
        eprintln!("  {fault}");
    }
    ExitCode::from(64)
}

fn print_head() {
    println!(
        "| fault | round | emits | a second outside it | in it | complete | partial | refused | wrong complete | longest call | not counted after | \
         presence right after | ghosts | holds |"
    );
    println!("|{}", "---|".repeat(14));
}

/// Returns whether all holds.
fn print(fault: Fault, round: usize, outcome: &Outcome) -> bool {
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let problems = [outcome.violations.clone(), outcome.late(LIMITS)].concat();
    let holds = outcome.wrong == 0 && outcome.ghosts == 0 && problems.is_empty();
    println!(
        "| {fault} | {round} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        outcome.emits,
        outcome.rate,
        outcome.rate_in_fault,
        outcome.complete,
        outcome.partial,
        outcome.refused,
        outcome.wrong,
        seconds(outcome.longest),
        outcome.fenced_after.map_or_else(|| "–".to_owned(), seconds),
        seconds(outcome.presence_after),
        outcome.ghosts,
        if holds { "yes" } else { "**no**" },
    );
    for problem in problems {
        eprintln!("  {fault}, {round}: {problem}");
    }
    holds
}
