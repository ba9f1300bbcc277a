use std::process::{Command, Stdio};

/// Executes statements in a database that [`super::new_database`] has made.
pub fn execute(url: &str, sql: &str) {
    let mut psql = Command::new("psql");
    // Also where the database is made read-only.
    psql.env("PGOPTIONS", "-c default_transaction_read_only=off").args([url, "-v", "ON_ERROR_STOP=1", "-qc", sql]);
    assert!(psql.stdout(Stdio::null()).status().expect("psql runs").success(), "{sql}");
}
