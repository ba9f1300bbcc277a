//! SIGTERM while the store fails: the server ends in order, with exit code 0. `cargo bench --bench gateway -- stops` measures how long that takes.

use futures_util::future::join_all;

use crate::harness::not_run;
use crate::stops::{Fault, Moment, stop_in};

/// Stops servers under load in a fault: one as the fault strikes, and one that has noticed it.
async fn stop(fault: Fault) {
    let moments = [Moment::AtOnce, Moment::Noticed].into_iter().take(if fault.is_noticed() { 2 } else { 1 });
    for (moment, ended) in join_all(moments.map(async |moment| (moment, stop_in(fault, moment).await))).await {
        match ended {
            Ok(ended) => {
                assert!(ended.is_good, "{fault}, {moment:?}: {ended:#?}");
                // Otherwise something was dropped at `drain.deadline`.
                assert_eq!(ended.last_message(), "stopped", "{fault}, {moment:?}: {ended:#?}");
                assert!(!ended.log.contains("panicked"), "{fault}, {moment:?}: {ended:#?}");
            }
            Err(why) => not_run(&fault, &why),
        }
    }
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
    postgres_without_a_fault: Postgres;
    postgres_that_is_far_away: PostgresFar;
    postgres_that_hangs: PostgresHangs;
    postgres_that_is_stopped: PostgresStopped;
    postgres_that_cuts_connections: PostgresCuts;
    postgres_at_its_connection_limit: PostgresLimit;
    postgres_that_is_read_only: PostgresReadOnly;
    postgres_whose_database_is_dropped: PostgresDropped;
    postgres_with_a_locked_table: PostgresTableLocked;
    postgres_held_by_another_process: PostgresHeld;
}
