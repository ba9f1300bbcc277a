use std::{fmt::Display, io::Write as _};

/// Tells on standard error that something was not tested, and why this machine cannot. `tests/run` counts these lines.
pub fn not_run(what: &dyn Display, why: &str) {
    // Not by a macro, whose text the test harness keeps for itself.
    writeln!(std::io::stderr(), "{what}: NOT RUN, {why}").expect("stderr is open");
}
