use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use super::eventually;

/// Executes statements in a database that [`super::new_database`] has made.
pub fn execute(url: &str, sql: &str) {
    let mut psql = Command::new("psql");
    // Also where the database is made read-only.
    psql.env("PGOPTIONS", "-c default_transaction_read_only=off -c client_min_messages=error").args([
        url,
        "-v",
        "ON_ERROR_STOP=1",
        "-qc",
        sql,
    ]);
    assert!(psql.stdout(Stdio::null()).status().expect("psql runs").success(), "{sql}");
}

/// The number that a query in a database with this URL returns.
pub fn count(url: &str, sql: &str) -> u64 {
    let answer = Command::new("psql").args([url, "-Atqc", sql]).output().expect("psql runs");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8_lossy(&answer.stdout).trim().parse().expect("a number")
}

/// The connections of the database with this URL, besides the one that asks.
pub fn connections(url: &str) -> u64 {
    count(url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
}

/// Waits until the database with this URL has no connection.
#[track_caller]
pub fn no_connections(url: &str) -> impl Future<Output = ()> {
    eventually("all connections to PostgreSQL to be closed", async || connections(url) == 0)
}

/// Makes a database of [`super::new_database`] read-only, or writable again, for new connections, and ends all others.
pub fn set_read_only(url: &str, is_read_only: bool) {
    let name = url.rsplit('/').next().expect("it names a database");
    let value = if is_read_only { "on" } else { "off" };
    execute(url, &format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}"));
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(url, others);
}

/// Waits until a transaction in the database with this URL waits for a lock.
#[track_caller]
pub fn waits_for_lock(url: &str) -> impl Future<Output = ()> {
    const WAITING: &str =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = CURRENT_DATABASE() AND wait_event_type = 'Lock'";
    eventually("a transaction to wait for a lock", async || count(url, WAITING) > 0)
}

/// A transaction of another program: what it has locked stays locked until it is dropped or committed.
pub struct OpenTransaction(Child);

impl OpenTransaction {
    /// Begins it with a statement, and waits until that is executed.
    pub fn begin(url: &str, sql: &str) -> Self {
        let mut psql = Command::new("psql");
        psql.args([url, "-Atq", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut psql = psql.spawn().expect("psql runs");
        writeln!(psql.stdin.as_mut().expect("it is piped"), "BEGIN; {sql};\n\\echo begun").expect("psql reads");
        let mut lines = BufReader::new(psql.stdout.as_mut().expect("it is piped")).lines();
        assert!(lines.any(|line| line.expect("psql answers") == "begun"), "{sql}");
        drop(lines);
        Self(psql)
    }

    pub fn commit(mut self) {
        writeln!(self.0.stdin.take().expect("it is piped"), "COMMIT;").expect("psql reads");
        assert!(self.0.wait().expect("psql ends").success());
    }
}

impl Drop for OpenTransaction {
    /// As if the program were killed.
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
