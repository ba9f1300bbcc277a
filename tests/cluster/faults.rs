//! What becomes of emits, devices and presence when the engine, the database or a node fails under a load of more than a thousand plain emits a second
//! and some to rooms that keep them: no complete receipt for what did not arrive, nobody is blocked, nothing that is kept is lost, and all is right
//! again afterwards. `cargo bench --bench faults` has the same faults for
//! longer, and limits of time.

use std::io::Write as _;

use crate::harness::not_run;
use crate::scene::{Fault, KeptOutcome, Outcome, RATE, Size};

/// Runs a fault, and says what came of it. `None`: this machine cannot.
async fn run(fault: Fault) -> Option<Outcome> {
    // Not by a macro, whose text the test harness keeps for itself.
    let say = |text: String| writeln!(std::io::stderr(), "{fault}: {text}").expect("stderr is open");
    match fault.run(Size::SHORT).await {
        Ok(outcome) => {
            let Outcome { emits, rate, complete, partial, refused, .. } = &outcome;
            say(format!(
                "{emits} emits, {rate} a second ({RATE} aimed at) outside the fault: {complete} receipts complete, {partial} partial, {refused} \
                 refused"
            ));
            let KeptOutcome { stored, in_histories, connections, told_histories, .. } = &outcome.kept;
            say(format!(
                "{stored} stored and {in_histories} in histories, over {connections} connections, which were told of {told_histories} gaps in \
                 histories"
            ));
            assert_eq!((outcome.wrong, outcome.ghosts), (0, 0), "{outcome:#?}");
            assert!(outcome.violations.is_empty(), "{outcome:#?}");
            Some(outcome)
        }
        Err(why) => {
            not_run(&fault, &why);
            None
        }
    }
}

macro_rules! tests {
    ($($name:ident: $($fault:ident),+;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for fault in [$(Fault::$fault),+] {
                Box::pin(run(fault)).await;
            }
        }
    )*};
}

tests! {
    without_a_fault_every_receipt_is_complete_and_true: Nothing;
    an_engine_that_is_killed_and_restarted_makes_no_receipt_wrong: EngineKilled, EngineKilledKeepsData;
    an_engine_that_is_paused_makes_no_receipt_wrong: EnginePaused;
    subscriptions_that_the_engine_ends_make_no_receipt_wrong: SubscriptionsKilled;
    functions_that_the_engine_forgets_make_no_receipt_wrong: FunctionsFlushed;
    a_fail_over_that_sentinels_decide_makes_no_receipt_wrong: FailOver;
    a_fail_over_to_a_replica_that_was_behind_is_told_to_devices_that_resume: FailOverBehind;
    a_node_that_is_killed_leaves_no_ghost_and_makes_no_receipt_wrong: NodeKilled;
    a_node_that_is_paused_for_less_than_its_lease_makes_no_receipt_wrong: NodePaused;
    a_node_that_is_paused_for_longer_is_not_counted_until_it_runs_on: NodePausedForLong;
    a_node_whose_packets_are_dropped_is_not_counted_until_they_are_not: Dropped;
    a_node_whose_packets_are_rejected_is_not_counted_until_they_are_not: Rejected;
    a_node_with_a_slow_link_is_waited_for_under_load: Slow;
    a_node_slower_than_the_deadline_is_not_counted: SlowerThanDeadline;
    a_second_node_of_one_name_ends_and_disturbs_nobody: SameName;
    a_node_whose_name_was_taken_while_it_stood_still_ends: NameTaken;
    a_clock_that_is_off_changes_nothing: ClockAhead, ClockBehind;
    a_node_of_another_version_makes_receipts_partial_and_not_wrong: OtherVersion;
    a_database_that_is_killed_or_restarted_stops_what_is_stored_alone_and_loses_nothing: DatabaseKilled, DatabaseRestarted;
    a_database_that_hangs_stops_what_is_stored_alone_and_loses_nothing: DatabaseHangs;
}
