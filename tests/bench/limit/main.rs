//! What the machine allows, and Bugle as a multiple of it: a gRPC call that does nothing, a write of the same bytes to each device, and
//! a look whether a text is JSON.
//!
//! `cargo bench --bench limit` measures all and prints a table in Markdown; `cargo bench --bench limit -- unary` or `-- room` a part.
//! With `--check` it fails if a target is missed. With `BUGLE_BENCH_BINARY` in the environment it measures another binary than this
//! build's. What Bugle is compared with runs as a child process as Bugle does: this program, with other arguments.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks to people")]

mod bare_write;
mod child;
mod compare;
#[path = "../gateway/figures.rs"]
mod figures;
#[path = "../gateway/load.rs"]
mod load;
mod no_op;
#[path = "../gateway/payload.rs"]
#[allow(dead_code, reason = "the bench of the gateway reads payloads, too")]
mod payload;
#[path = "../gateway/server.rs"]
#[allow(dead_code, reason = "the bench of the gateway asks a server for more")]
mod server;
mod table;

use std::process::ExitCode;

use table::Table;

const PARTS: [&str; 2] = ["unary", "room"];
const CHECK: &str = "--check";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit of file descriptors can be raised");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [no_op::NAME] => return child::ended(runtime.block_on(no_op::serve())),
        [bare_write::NAME, devices, event] => return child::ended(bare_write::serve(devices, event)),
        _ => {}
    }
    let (options, parts): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|argument| argument.starts_with("--"));
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("{unknown} is none of {}", PARTS.join(", "));
        return ExitCode::from(64);
    }
    let is_asked_for = |name| parts.is_empty() || parts.iter().any(|part| part == name);
    let mut table = Table::default();
    if is_asked_for("unary") {
        runtime.block_on(compare::unary(&mut table));
    }
    if is_asked_for("room") {
        runtime.block_on(compare::room(&mut table));
    }
    table.print();
    let is_checked = options.iter().any(|option| option == CHECK);
    if is_checked && !table.is_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
