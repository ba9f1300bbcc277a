//! A model of nodes that share the watermark of one user. Backends, devices, transactions and crashes act in a random order on the state machines
//! of three nodes and on the rows that they merge into. That the model finds a broken rule is tested, too.
//!
//! `PROPTEST_CASES` is the number of runs.

mod row;
mod world;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{TestError, TestRunner},
};

use self::world::{From, NODES, Op, Outcome, World};
use crate::store::broken::{Rule, breaking};

const CASES: u32 = 5_000;
/// Cases in which a broken rule must be found.
const MAX_CASES: u32 = 20_000;

fn op() -> impl Strategy<Value = Op> {
    let (node, connection) = (0..NODES, 0..8_usize);
    let from = prop_oneof![
        3 => Just(From::Watermark),
        2 => Just(From::FirstResume),
        1 => (0..12_u64).prop_map(From::Position),
    ];
    let outcome = prop_oneof![
        4 => Just(Outcome::Committed),
        1 => Just(Outcome::RolledBack),
        1 => Just(Outcome::Unknown),
    ];
    let dropped = prop_oneof![3 => Just(0), 1 => any::<u8>()];
    let (max, heard) = (1..5_usize, prop::bool::weighted(0.8));
    prop_oneof![
        4 => Just(Op::Append),
        8 => (node.clone(), dropped).prop_map(|(node, dropped)| Op::FanOut { node, dropped }),
        4 => (node.clone(), from).prop_map(|(node, from)| Op::Connect { node, from }),
        10 => (connection.clone(), heard).prop_map(|(connection, is_heard)| Op::Give { connection, is_heard }),
        1 => connection.clone().prop_map(|connection| Op::GiveUp { connection }),
        6 => (connection.clone(), 1..5_usize).prop_map(|(connection, count)| Op::Prove { connection, count }),
        3 => connection.prop_map(|connection| Op::Cut { connection }),
        5 => (node.clone(), max).prop_map(|(node, max)| Op::Write { node, max }),
        5 => (node.clone(), outcome).prop_map(|(node, outcome)| Op::End { node, outcome }),
        1 => node.prop_map(|node| Op::Crash { node }),
        1 => Just(Op::Wait),
    ]
}

fn run(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.apply(*op);
    }
    world.finish();
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    // The library's own number, unless `PROPTEST_CASES` is set.
    let cases = if default.cases == 256 { CASES } else { default.cases };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_message_is_lost_by_nodes_that_share_a_watermark(ops in vec(op(), 1..120)) {
        run(&ops);
    }
}

/// Runs cases until the model finds that a rule is broken.
#[track_caller]
#[expect(clippy::print_stdout, reason = "shown by --nocapture")]
fn finds(rule: Rule) {
    let config = ProptestConfig { cases: MAX_CASES, max_shrink_iters: 2_000, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..config });
    let test = |ops: Vec<Op>| {
        run(&ops);
        Ok(())
    };
    let found = breaking(rule, || runner.run(&vec(op(), 1..120), test).err());
    let Some(TestError::Fail(reason, ops)) = found else { panic!("not found in {MAX_CASES} cases: {rule:?}") };
    println!("{rule:?}: {reason} by {ops:?}");
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
fn a_proof_that_is_not_written_as_the_node_has_skipped_nothing_is_found() {
    finds(Rule::EachSharedProofIsWritten);
}

#[test]
fn a_position_that_is_written_before_what_it_has_skipped_is_found() {
    finds(Rule::PositionFollowsSkipped);
}

#[test]
fn a_write_that_replaces_what_other_nodes_have_skipped_is_found() {
    finds(Rule::SkippedIsUnited);
}

#[test]
fn a_skip_of_what_another_node_has_proven_is_found() {
    finds(Rule::PassedIsNotSkippedAnew);
}

#[test]
fn a_watermark_that_goes_back_is_found() {
    finds(Rule::WatermarkOnlyRises);
}

#[test]
fn a_write_that_deletes_skipped_messages_of_which_it_knows_nothing_is_found() {
    finds(Rule::OnlyProvenIsDeleted);
}

#[test]
fn a_first_resume_that_does_not_begin_where_another_one_did_is_found() {
    finds(Rule::FirstResumesBeginTogether);
}

#[test]
fn a_node_that_does_not_read_what_others_have_skipped_is_found() {
    finds(Rule::SkippedElsewhereIsRead);
}
