//! SIGTERM while the store fails: the server ends in order, with exit code 0, within [`MAX_TOOK`]. `cargo bench --bench gateway -- stops` measures how long
//! the release binary takes, and fails if it takes longer.

use std::time::Duration;

use crate::harness::{Ended, not_run};
use crate::stops::{Fault, Moment, stop_in};

/// How long a stop may take, whatever the store does. Debug builds take up to 2.4 s, and 2.5 s on a machine that has five times as much to do as it can.
const MAX_TOOK: Duration = Duration::from_secs(3);
/// A machine that is busy may delay a stop, so one that takes longer is repeated. A server that waits for its store takes too long each time.
const ATTEMPTS: usize = 3;

/// Stops servers under load in a fault: one as the fault strikes, and one that has noticed it.
async fn stop(fault: Fault) {
    let moments = [Moment::AtOnce, Moment::Noticed].into_iter().take(if fault.is_noticed() { 2 } else { 1 });
    for moment in moments {
        let mut took = Vec::new();
        while took.len() < ATTEMPTS && took.last().is_none_or(|took| *took > MAX_TOOK) {
            match stop_in(fault, moment).await {
                Ok(ended) => {
                    check(fault, moment, &ended);
                    took.push(ended.took);
                }
                Err(why) => return not_run(&fault, &why),
            }
        }
        assert!(took.last().is_some_and(|took| *took <= MAX_TOOK), "{fault}, {moment:?}: {took:?}");
    }
}

fn check(fault: Fault, moment: Moment, ended: &Ended) {
    assert!(ended.is_good, "{fault}, {moment:?}: {ended:#?}");
    // Otherwise something was dropped at `drain.deadline`.
    assert_eq!(ended.last_message(), "stopped", "{fault}, {moment:?}: {ended:#?}");
    assert!(!ended.log.contains("panicked"), "{fault}, {moment:?}: {ended:#?}");
}

macro_rules! tests {
    ($($name:ident: $fault:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            Box::pin(stop(Fault::$fault)).await;
        }
    )*};
}

tests! {
    sqlite_without_a_fault: Sqlite;
    sqlite_whose_file_is_deleted: SqliteDeleted;
    sqlite_whose_file_is_replaced: SqliteRestored;
    sqlite_on_a_full_disk: SqliteFull;
    sqlite_on_a_read_only_file_system: SqliteReadOnly;
    sqlite_locked_by_another_program: SqliteBusy;
    sqlite_held_by_another_process: SqliteHeld;
    sqlite_with_damaged_messages: SqliteDamaged;
    postgres_without_a_fault: Postgres;
    postgres_that_is_far_away: PostgresFar;
    postgres_that_hangs: PostgresHangs;
    postgres_that_hangs_since_the_start: PostgresHangsSinceStart;
    postgres_that_is_stopped: PostgresStopped;
    postgres_that_cuts_connections: PostgresCuts;
    postgres_at_its_connection_limit: PostgresLimit;
    postgres_that_is_read_only: PostgresReadOnly;
    postgres_whose_database_is_dropped: PostgresDropped;
    postgres_with_a_locked_table: PostgresTableLocked;
    postgres_held_by_another_process: PostgresHeld;
    postgres_of_a_node_that_hangs: SharedHangs;
    postgres_of_a_node_that_is_stopped: SharedStopped;
}
