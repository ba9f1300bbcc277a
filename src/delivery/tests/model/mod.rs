//! A model of what is stored. Backends, two devices that resume, a plain WebSocket, the clock and the operator act in a random order on delivery
//! and a store in a file. What must hold is in `checks`; that the model finds a broken rule is tested, too.
//!
//! `PROPTEST_CASES` is the number of runs.

mod checks;
mod device;
mod oracle;
mod server;
mod world;

use std::cell::Cell;

use proptest::test_runner::{Config, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use self::{oracle::Model, world::World};
use crate::store::broken::{Rule, breaking};

const CASES: u32 = 120;
/// Cases in which a broken rule must be found.
const MAX_CASES: u32 = 400;

fn config() -> Config {
    let default = Config::default();
    // The library's own number, unless `PROPTEST_CASES` is set.
    let cases = if default.cases == 256 { CASES } else { default.cases };
    // Each step of shrinking takes as long as a case.
    Config { cases, max_shrink_iters: 200, ..default }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn what_is_stored_comes_to_each_device_as_promised(sequential 1..60 => World);
}

/// Runs cases until the model finds that a rule is broken.
#[track_caller]
#[expect(clippy::print_stdout, reason = "shown by --nocapture")]
fn finds(rule: Rule) {
    let config = Config { cases: MAX_CASES, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config.clone());
    let cases = Cell::new(0);
    let found = breaking(rule, || {
        runner
            .run(&Model::sequential_strategy(1..60), |(model, transitions, _)| {
                cases.set(cases.get() + 1);
                // Failing cases are not shrunk, so the count of transitions is not used.
                World::test_sequential(config.clone(), model, transitions, None);
                Ok(())
            })
            .err()
    });
    let Some(TestError::Fail(reason, _)) = found else { panic!("not found in {MAX_CASES} cases: {rule:?}") };
    println!("{rule:?}: found in case {}: {reason}", cases.get());
}

#[test]
fn a_watermark_that_moves_without_a_proof_is_found() {
    finds(Rule::ProofMovesWatermark);
}

#[test]
fn a_skipped_message_that_is_not_noted_is_found() {
    finds(Rule::SkippedIsNoted);
}

#[test]
fn a_replay_that_begins_one_late_is_found() {
    finds(Rule::ReplayFollowsPosition);
}

#[test]
fn a_late_message_that_is_not_published_is_found() {
    finds(Rule::LateIsPublished);
}

#[test]
fn a_position_that_stands_though_a_restore_has_lost_it_is_found() {
    finds(Rule::LostPositionFalls);
}
