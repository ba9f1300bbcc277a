//! The `bugle` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    bugle::cli::run()
}
