use std::{fmt::Display, io::Write as _};

/// Tells on standard error that something was not tested, since this machine cannot. Panics unless the variable `TEST_MAY_SKIP` is set: a
/// machine that is meant to test everything must not pass without.
pub fn not_run(what: &dyn Display, why: &str) {
    assert!(std::env::var_os("TEST_MAY_SKIP").is_some(), "{what}: cannot run, {why}: set TEST_MAY_SKIP=1 to skip it");
    // Not by a macro, whose text the test harness keeps for itself.
    writeln!(std::io::stderr(), "{what}: NOT RUN, {why}").expect("stderr is open");
}
