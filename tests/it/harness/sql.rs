use std::process::{Command, Stdio};

/// Executes statements in a database that [`super::new_database`] has made.
pub fn execute(url: &str, sql: &str) {
    let done = Command::new("psql").args([url, "-v", "ON_ERROR_STOP=1", "-qc", sql]).stdout(Stdio::null()).status();
    assert!(done.expect("psql runs").success(), "{sql}");
}
