//! Each fault of the engine, the database, a node or the network between them, three times in the middle of more than 1,000 plain emits a second and
//! 1,000 that are stored or kept in a history: no complete receipt for what did not arrive, nobody waits for longer than the deadline, presence is right
//! within a second afterwards, there is no ghost, and devices that come back to any node have all that is kept, in order, or were told.
//!
//! `cargo bench --bench faults` does all of them; `cargo bench --bench faults -- --rounds 1 SIGSTOP clock` once those whose names have one of these
//! texts; with `--short` they are as `tests/cluster` runs them, without limits of time. It prints a table in Markdown, and fails if something that must
//! hold does not, or if this machine cannot do one of the faults. With `BUGLE_BENCH_BINARY` in the environment the nodes are another binary than this
//! build's.

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
    kept_rate: 1_000,
};

fn main() -> ExitCode {
    let mut rounds = ROUNDS;
    let (mut size, mut limits) = (Size::FULL, Some(LIMITS));
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => match arguments.next().and_then(|count| count.parse().ok()) {
                Some(count) => rounds = count,
                None => return usage("--rounds wants a number"),
            },
            "--short" => (size, limits) = (Size::SHORT, None),
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
            match runtime.block_on(fault.run(size)) {
                Ok(outcome) => all_holds &= print(fault, round, &outcome, limits),
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
         presence right after | ghosts | kept emits: stored, in histories | a second outside it | refused: stored, in histories | connections made | gaps \
         told: stored, histories | all there after | holds |"
    );
    println!("|{}", "---|".repeat(20));
}

/// Returns whether all holds.
fn print(fault: Fault, round: usize, outcome: &Outcome, limits: Option<Limits>) -> bool {
    let kept = &outcome.kept;
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let problems = [outcome.violations.clone(), limits.map(|limits| outcome.late(limits)).unwrap_or_default()].concat();
    let holds = outcome.wrong == 0 && outcome.ghosts == 0 && problems.is_empty();
    println!(
        "| {fault} | {round} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {}, {} | {} | {}, {} | {} | {}, {} | {} | \
         {} |",
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
        kept.stored,
        kept.in_histories,
        kept.rate,
        kept.refused_stored,
        kept.refused_in_histories,
        kept.connections,
        kept.told_stored,
        kept.told_histories,
        seconds(kept.settled_after),
        if holds { "yes" } else { "**no**" },
    );
    for problem in problems {
        eprintln!("  {fault}, {round}: {problem}");
    }
    holds
}
