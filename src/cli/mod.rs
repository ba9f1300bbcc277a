//! The command line: `bugle serve`, and what helps those who run it or call it.
//!
//! Answers go to standard output, everything else to standard error. Exit codes: 0 as asked, 64 bad configuration or usage, 1
//! anything else.

#![allow(clippy::print_stderr, reason = "this is where the process speaks to people")]

mod banner;
mod serve;

mod check_config;
mod token;

mod backend;
mod emit;
mod presence;
mod printed;

mod store;

mod bench;
mod figures;
mod nodes;
mod progress;

mod failure;
pub use failure::Failure;

use std::{
    future::Future,
    io::{ErrorKind, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use rustix::{fs::Mode, process::umask};

/// Delivers notifications from backends, over gRPC, to every device of a user, over Socket.IO.
#[derive(Parser)]
#[command(name = "bugle", version, arg_required_else_help = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until SIGTERM or SIGINT; a second signal stops it at once.
    Serve(serve::Serve),
    /// Make and verify devices' tokens.
    #[command(subcommand)]
    Token(token::Token),
    /// Print everything that is wrong with the configuration, each with its key.
    CheckConfig(check_config::CheckConfig),
    /// Send an event, and print the receipt as a line of JSON.
    #[command(subcommand)]
    Emit(emit::Emit),
    /// Tell who is connected, as lines of JSON: all counts; one user with each connection; several users in short.
    Presence(presence::Presence),
    /// Operate the store.
    #[command(subcommand)]
    Store(store::Store),
    /// Measure what a server keeps up and what that costs, with many devices: one of its own on this machine, or a given one.
    Bench(bench::Bench),
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file (TOML). Where there is none: the one that the variable `BUGLE_CONFIG` names, if it is set.
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

const AS_ASKED: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 64;

/// Does what the process's arguments say.
pub fn run() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => ended(cli.execute()),
        Err(error) => refused(&error),
    };
    ExitCode::from(code)
}

fn ended(result: Result<(), Failure>) -> u8 {
    let Err(failure) = result else {
        return AS_ASKED;
    };
    eprintln!("bugle: {}", failure.report());
    failure.exit_code()
}

fn refused(error: &clap::Error) -> u8 {
    // Nobody is left to tell if this fails.
    let _ = error.print();
    refusal_code(error)
}

/// Help and the version are no errors, though the library gives them as such.
fn refusal_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { USAGE } else { AS_ASKED }
}

impl Cli {
    fn execute(self) -> Result<(), Failure> {
        match self.command {
            Command::Serve(serve) => serve.execute(),
            Command::Token(token) => token.execute(),
            Command::CheckConfig(check) => check.execute(),
            Command::Emit(emit) => block_on(emit.execute()),
            Command::Presence(presence) => block_on(presence.execute()),
            Command::Store(store) => block_on(store.execute()),
            Command::Bench(bench) => bench.execute(),
        }
    }
}

/// Makes files and directories that the process creates from now on its user's alone: modes 0600 and 0700. The store, the audit log and log
/// files hold what users do.
fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(work)
}

/// Writes an answer. Whoever reads it may have enough of it: `bugle presence --list | head`.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
    print(&format!("{line}\n"))
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Failure::Input)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
