//! A model of kept rooms at three nodes: rooms whose messages are stored, and one with a history, which the nodes share. Each node runs delivery and
//! the bus as the server does, over its link to an engine in memory, and a store over its link to one database in memory, in a time that passes only
//! when all wait. Backends, devices, links, the engine and the database do what `oracle` thinks of, in a random order. What must hold of receipts is
//! in `checks`, of devices in `device`, `history` and `world`, and when all faults have ended, in `healing`; that the model finds a broken rule is
//! tested, too.
//!
//! `KEPT_MODEL_SEEDS` is the number of seeds, `KEPT_MODEL_STEPS` the number of steps with all of them, and `KEPT_MODEL_FIRST_SEED` the first seed:
//!
//! ```sh
//! KEPT_MODEL_SEEDS=50 KEPT_MODEL_STEPS=100000 cargo test --lib delivery::tests::kept::each -- --nocapture
//! ```

mod checks;
mod device;
mod healing;
mod history;
mod oracle;
mod world;

use std::{cell::Cell, time::Duration};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use self::{
    checks::Log,
    oracle::{COMMON, HISTORY, Model, Transition},
    world::World,
};
use crate::delivery::broken::{Rule, breaking};

const SEEDS: u32 = 50;
const STEPS: u32 = 100_000;
/// Steps of one case, at most.
const CASE: usize = 120;
/// Within so many steps a broken rule must be found.
const MAX_STEPS: u32 = 300_000;

thread_local! {
    static RECEIPTS: Cell<[u64; 4]> = const { Cell::new([0; 4]) };
}

/// Notes the receipts of a case.
fn note(log: &Log) {
    let [complete, partial, failed, duplicates] = RECEIPTS.get();
    let counts = [complete + log.complete, partial + log.partial, failed + log.failed, duplicates + log.duplicates];
    RECEIPTS.set(counts);
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
fn each_device_has_all_that_is_kept_once_and_in_order_whatever_happens_to_nodes_engine_and_store() {
    let (seeds, steps) = (number("KEPT_MODEL_SEEDS", SEEDS), number("KEPT_MODEL_STEPS", STEPS));
    let first = number("KEPT_MODEL_FIRST_SEED", 0);
    for seed in first..first + seeds {
        if let Err((_, told)) = run(seed, (steps / seeds).into(), number("KEPT_MODEL_SHRINKS", 300)) {
            panic!("{told}");
        }
    }
    let [complete, partial, failed, duplicates] = RECEIPTS.get();
    println!(
        "{seeds} seeds, {steps} steps: {complete} complete receipts, {partial} partial ones, {duplicates} of repetitions, {failed} calls failed"
    );
    assert!(complete > 0 && partial > 0 && failed > 0 && duplicates > 0);
}

/// Runs cases until the model finds that a rule is broken.
#[track_caller]
#[expect(clippy::print_stdout, reason = "shown by --nocapture")]
fn finds(rule: Rule) {
    let found = breaking(rule, || run(0, MAX_STEPS.into(), 0));
    let Err((steps, reason)) = found else { panic!("not found: {rule:?}") };
    println!("{rule:?}: found after {steps} steps: {}", reason.lines().take(3).collect::<Vec<_>>().join(" "));
}

#[test]
fn a_frame_that_is_sent_before_what_is_missing_is_found() {
    finds(Rule::HoleIsRead);
}

#[test]
fn a_message_that_is_sent_again_by_its_frame_is_found() {
    finds(Rule::PublishedIsNotSentAgain);
}

#[test]
fn a_node_that_does_not_look_into_the_store_while_it_is_cut_off_is_found() {
    finds(Rule::StoreIsPolled);
}

#[test]
fn a_head_that_is_kept_though_what_stood_there_is_lost_is_found() {
    finds(Rule::StoodMustStand);
}

#[test]
fn a_replay_that_goes_beyond_the_head_is_found() {
    finds(Rule::ReplayEndsAtHead);
}

#[test]
fn messages_that_no_node_is_told_of_are_found() {
    finds(Rule::UncertainIsTold);
}

#[test]
fn devices_that_are_not_told_what_they_may_have_missed_before_their_room_was_read_are_found() {
    finds(Rule::LateReadIsTold);
}

#[test]
fn positions_that_are_compared_across_epochs_are_found() {
    finds(Rule::EpochsAreCompared);
}

#[test]
fn a_frame_that_is_sent_before_what_is_missing_of_its_history_is_found() {
    finds(Rule::HistoryHoleIsRead);
}

#[test]
fn a_message_of_a_history_that_is_sent_again_by_its_frame_is_found() {
    finds(Rule::SentIsNotSentAgain);
}

#[test]
fn a_frame_of_a_sequence_that_is_over_is_found() {
    finds(Rule::EndedSequenceIsNotSent);
}

#[test]
fn a_history_that_begins_anew_and_is_not_told_is_found() {
    finds(Rule::BegunAnewIsTold);
}

#[test]
fn devices_that_are_not_told_what_they_may_have_missed_before_their_history_was_known_are_found() {
    finds(Rule::LateHeadIsTold);
}

/// Plays fixed steps, and heals.
fn play(steps: impl IntoIterator<Item = Transition>) {
    let world = steps.into_iter().fold(World::init_test(&Model), |world, step| World::apply(world, &Model, step));
    World::teardown(world, Model);
}

#[test]
fn a_device_that_comes_as_an_epoch_begins_is_not_told_a_position_of_the_one_before() {
    play([
        Transition::Connect { device: 2, node: 2 },
        Transition::SlowStore { node: 2, latency: Duration::from_millis(5) },
        Transition::Wait(Duration::from_millis(30)),
        Transition::Connect { device: 1, node: 2 },
        Transition::EmitAtAll(0),
        Transition::RestartStore,
        Transition::Emit { node: 0, room: COMMON, is_stored: true, is_keyed: false },
        Transition::Wait(Duration::from_secs(1)),
        Transition::Disconnect { device: 1, unseen: 0 },
    ]);
}

#[test]
fn devices_are_told_what_they_may_have_missed_before_the_first_frame_of_a_history_that_was_not_read() {
    let emit = Transition::Emit { node: 1, room: HISTORY, is_stored: false, is_keyed: false };
    play([
        // The device comes without the engine, and waits for its mailbox before it is read where its history stands.
        Transition::HangStore(Some(0)),
        Transition::CrashEngine { keeps_data: true },
        Transition::Connect { device: 0, node: 0 },
        Transition::Wait(Duration::from_secs(10)),
        Transition::StartEngine,
        Transition::Wait(Duration::from_secs(2)),
        Transition::LoseSubscription(0),
        emit.clone(),
        Transition::Wait(Duration::from_secs(2)),
        emit,
    ]);
}

#[test]
fn a_device_that_comes_for_the_first_time_while_the_store_hangs_is_given_what_other_devices_were_meanwhile() {
    play([
        Transition::HangStore(Some(2)),
        Transition::Connect { device: 0, node: 2 },
        Transition::Connect { device: 2, node: 0 },
        Transition::Wait(Duration::from_millis(700)),
        Transition::EmitAtAll(COMMON),
        Transition::EmitAtAll(0),
        Transition::FailOverStore,
        Transition::Wait(Duration::from_millis(30)),
        Transition::Disconnect { device: 2, unseen: 0 },
        Transition::Connect { device: 2, node: 0 },
    ]);
}
