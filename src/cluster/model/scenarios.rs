//! Cases that need so many faults in their order that chance hardly finds them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use proptest_state_machine::StateMachineTest;

use super::{
    RECEIPTS,
    oracle::{Model, NODES, ROOMS, Transition as T},
    world::World,
};
use crate::cluster::broken::{Rule, breaking};

const EVERYONE: usize = ROOMS - 1;

fn seconds(seconds: u64) -> T {
    T::Wait(Duration::from_secs(seconds))
}

fn connect(device: usize, node: usize) -> [T; 2] {
    [T::Connect { device, node, after: Duration::ZERO }, T::Wait(Duration::from_millis(200))]
}

fn emit(node: usize) -> [T; 2] {
    [T::Emit { node, room: EVERYONE }, T::Wait(Duration::from_millis(700))]
}

/// To the user of the second device: the connections that nodes have given up are not in that room.
fn emit_to_second(node: usize) -> [T; 2] {
    [T::Emit { node, room: 1 }, T::Wait(Duration::from_millis(50))]
}

/// A node can neither be reached nor counts as ready any more.
fn lose(node: usize) -> [T; 2] {
    [T::Cut(node), T::LoseSubscription(node)]
}

fn play(steps: &[T]) {
    let mut world = World::init_test(&Model);
    for step in steps {
        world = World::apply(world, &Model, step.clone());
    }
    World::teardown(world, Model);
}

/// What must hold does, and it does not without the rule. When heartbeats and backoffs end is random, and not each play meets the moment that the
/// rule is for. `steps`: of the play with this number.
#[track_caller]
fn needs(rule: Rule, steps: impl Fn(u64) -> Vec<T>) {
    const PLAYS: u64 = 50;
    (0..PLAYS).for_each(|number| play(&steps(number)));
    let fails = |number| breaking(rule, || catch_unwind(AssertUnwindSafe(|| play(&steps(number))))).is_err();
    assert!((0..PLAYS).any(fails), "not found: {rule:?}");
}

#[test]
fn a_node_that_was_cut_off_when_the_engine_lost_a_peer_it_never_knew_says_partial() {
    let steps = [
        &[T::Kill(1), seconds(8), T::Cut(0), T::Start(1), seconds(9)][..],
        &connect(0, 1),
        &[T::CrashEngine { keeps_data: false }, T::Cut(1), T::Restore(0), T::StartEngine, seconds(2)],
        &emit(0),
        &emit(0),
        &[T::Restore(1), seconds(8)],
        &emit(0),
    ];
    needs(Rule::UnknownPeersCount, |_| steps.concat());
}

#[test]
fn a_new_node_takes_no_connections_before_peers_that_were_not_told_of_it_know_it() {
    let steps = [
        &[T::Kill(1), seconds(8), T::Drop(0), T::Start(1), T::Wait(Duration::from_millis(150))][..],
        &connect(0, 1),
        &lose(1),
        &emit(0),
        &[T::Restore(1), seconds(8)],
        &connect(0, 1),
        &lose(1),
        &emit(0),
    ];
    needs(Rule::NewNodeIsKnown, |_| steps.concat());
}

#[test]
fn peers_count_also_if_the_engine_was_out_of_reach_for_long_after_it_had_started_without_its_data() {
    for (waits, cut) in [(3, 1), (9, 1), (9, 2)] {
        let steps = [
            &connect(0, 1)[..],
            &connect(1, 2),
            &[T::CrashEngine { keeps_data: false }, seconds(2), T::Cut(cut), T::FreezeEngine, T::StartEngine],
            &[seconds(waits), T::ThawEngine, seconds(1)],
            &emit(0),
            &emit(0),
            &[seconds(1)],
            &emit(0),
        ];
        play(&steps.concat());
    }
}

/// A device connects to a node that has given its connections up while the engine stood still, and that the engine counts as ready still. When
/// the engine goes on, it may come to a heartbeat of that node from before.
fn gives_up(number: u64, frozen: u64) -> Vec<T> {
    let wait = |ms| T::Wait(Duration::from_millis(ms));
    let steps = [
        &connect(0, 1)[..],
        &[T::Delay { node: 1, latency: Duration::from_millis(50) }, wait(7_000 + 20 * number)],
        &[T::FreezeEngine, wait(300), T::Cut(1), seconds(frozen)],
        &connect(1, 1),
        &[T::ThawEngine, wait(300)],
        &vec![[emit_to_second(0), emit_to_second(2)].concat(); 10].concat(),
        &[seconds(2)],
        &emit_to_second(0),
    ];
    steps.concat()
}

#[test]
fn a_peer_that_gave_its_connection_up_while_the_engine_stood_still_counts_as_one_that_is_not_ready() {
    for frozen in [3, 6, 9] {
        play(&gives_up(0, frozen));
    }
    needs(Rule::WhoRegistersIsNotBack, |number| gives_up(number, 20));
}

#[test]
fn receipts_are_complete_again_once_all_peers_are_back_after_the_engine_stood_still() {
    let steps =
        [&[seconds(7), T::FreezeEngine, seconds(20), T::ThawEngine, seconds(1)][..], &emit(0), &emit(1), &emit(2)];
    let complete = || RECEIPTS.get()[0];
    let before = complete();
    play(&steps.concat());
    let checked_at_the_end = NODES as u64;
    assert_eq!(complete() - before, 3 + checked_at_the_end);
}

#[test]
fn a_node_that_starts_while_a_peer_stands_still_is_counted_when_that_one_goes_on() {
    let steps = [
        &[T::Kill(1), seconds(8), T::Pause(0), T::Start(1), seconds(9)][..],
        &connect(0, 1),
        &[T::Resume(0)],
        &lose(1),
        &emit(0),
        &emit(0),
    ];
    play(&steps.concat());
}

#[test]
fn a_peer_that_could_not_come_before_the_engine_stood_still_counts_as_one_that_is_about_to() {
    let steps = [
        &connect(0, 1)[..],
        &[T::Kill(2), seconds(8), T::Cut(1), seconds(2), T::CrashEngine { keeps_data: false }, seconds(1)],
        &[T::StartEngine, seconds(4), T::FreezeEngine, seconds(8), T::ThawEngine, T::Wait(Duration::from_millis(200))],
        &emit(0),
    ];
    play(&steps.concat());
}

#[test]
fn a_node_that_stands_still_while_it_waits_for_its_name_starts_all_the_same() {
    let latency = Duration::from_millis(112);
    let paused = [T::Delay { node: 2, latency }, T::Wait(latency * 5), T::Pause(2), seconds(6)];
    play(&[&[T::Kill(2), T::Start(2), T::Wait(latency * 5)][..], &paused].concat());
}
