//! A model of the bus. Nodes run the bus as the server does, each over its link to an engine in memory, in a time that passes only when all
//! wait. Devices, backends, links, the engine and the nodes themselves do what `oracle` thinks of, in a random order. What must hold is in
//! `checks`, and when all faults have ended, in `world`; that the model finds a broken rule is tested, too.
//!
//! `BUS_MODEL_SEEDS` is the number of seeds, `BUS_MODEL_STEPS` the number of steps with all of them, and `BUS_MODEL_FIRST_SEED` the first
//! seed. A long run takes some 2 s for 20,000 steps:
//!
//! ```sh
//! BUS_MODEL_SEEDS=200 BUS_MODEL_STEPS=4000000 cargo test --lib cluster::model::what -- --nocapture
//! ```

mod checks;
mod histories;
mod joins;
mod leases;
mod link;
mod memory;
mod node;
mod oracle;
mod scenarios;
mod wire;
mod world;

use std::cell::Cell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use self::{checks::Log, oracle::Model, world::World};
use super::broken::{Rule, breaking};

pub(super) use self::wire::Dialer;
pub(crate) use self::{link::Link, oracle::NODES};

const SEEDS: u32 = 4;
const STEPS: u32 = 20_000;
/// Steps of one case, at most.
const CASE: usize = 120;
/// Cases in which a broken rule must be found.
const MAX_CASES: u32 = 400;

thread_local! {
    static RECEIPTS: Cell<[u64; 3]> = const { Cell::new([0; 3]) };
}

/// Notes the receipts of a case.
fn note(log: &Log) {
    let [complete, partial, failed] = RECEIPTS.get();
    RECEIPTS.set([complete + log.complete, partial + log.partial, failed + log.failed]);
}

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration")]
fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Runs cases of a seed for so many steps. The error tells the first case in which something does not hold, and after how many steps.
fn run(seed: u32, steps: u64, shrinks: u32) -> Result<(), (u64, String)> {
    let config = Config { cases: u32::MAX, max_shrink_iters: shrinks, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config.clone(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let done = Cell::new(0);
    while done.get() < steps {
        let case = Model::sequential_strategy(CASE / 2..CASE).new_tree(&mut runner).unwrap();
        let ran = runner.run_one(case, |(model, transitions, seen)| {
            done.set(done.get() + transitions.len() as u64);
            // Only a case that is to be shrunk may tell how far it came.
            let counter = seen.filter(|_| shrinks > 0);
            World::test_sequential(config.clone(), model, transitions, counter);
            Ok(())
        });
        match ran {
            Ok(_) => {}
            Err(TestError::Fail(reason, (_, transitions, _))) => {
                return Err((done.get(), format!("seed {seed}: {reason}\n{transitions:#?}")));
            }
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
    }
    Ok(())
}

#[test]
#[expect(clippy::print_stdout, reason = "shown by --nocapture")]
fn what_receipts_say_is_true_whatever_happens_to_nodes_engine_and_links() {
    let (seeds, steps) = (number("BUS_MODEL_SEEDS", SEEDS), number("BUS_MODEL_STEPS", STEPS));
    let first = number("BUS_MODEL_FIRST_SEED", 0);
    for seed in first..first + seeds {
        if let Err((_, told)) = run(seed, (steps / seeds).into(), 300) {
            panic!("{told}");
        }
    }
    let [complete, partial, failed] = RECEIPTS.get();
    println!(
        "{seeds} seeds, {steps} steps: {complete} complete receipts, {partial} partial ones, {failed} calls failed"
    );
    assert!(complete > 0 && partial > 0 && failed > 0);
}

/// Runs cases until the model finds that a rule is broken.
#[track_caller]
#[expect(clippy::print_stdout, reason = "shown by --nocapture")]
fn finds(rule: Rule) {
    let found = breaking(rule, || run(0, u64::from(MAX_CASES) * CASE as u64, 0));
    let Err((steps, reason)) = found else { panic!("not found: {rule:?}") };
    println!("{rule:?}: found after {steps} steps: {}", reason.lines().take(3).collect::<Vec<_>>().join(" "));
}

#[test]
fn a_receipt_that_does_not_compare_ready_nodes_with_live_ones_is_found() {
    finds(Rule::ReadyIsCompared);
}

#[test]
fn a_node_that_is_ready_before_its_rooms_is_found() {
    finds(Rule::ReadyIsLast);
}

#[test]
fn a_late_frame_that_is_executed_is_found() {
    finds(Rule::LateIsNotExecuted);
}

#[test]
fn peers_that_are_forgotten_with_the_engine_are_found() {
    finds(Rule::OutageKeepsPeers);
}

#[test]
fn a_room_that_is_given_up_while_a_connection_joins_it_is_found() {
    finds(Rule::PinKeepsRoom);
}
