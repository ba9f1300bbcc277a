//! Keeps the house of DESIGN.md, section 3, in order by reading the sources: who may import whom, which external crate
//! is used where, how long files and functions may be, that files of one module form no circle, and that each file is reached.

#[path = "architecture/sources.rs"]
mod sources;

#[path = "architecture/paths.rs"]
mod paths;

#[path = "architecture/imports.rs"]
mod imports;

#[path = "architecture/circles.rs"]
mod circles;

#[path = "architecture/fences.rs"]
mod fences;

#[path = "architecture/sizes.rs"]
mod sizes;

#[path = "architecture/files.rs"]
mod files;

#[path = "architecture/bad_sources.rs"]
mod bad_sources;

use std::{fmt, path::Path};

use sources::Sources;

/// A module under `src/` and the modules of ours that it may import, besides itself and the [`LEAVES`].
type Row = (&'static str, &'static [&'static str]);

/// Who may import whom. A new module is a new row, in the same change.
const MODULES: &[Row] = &[
    ("message", &[]),
    ("clock", &[]),
    ("telemetry", &[]),
    ("lifecycle", &[]),
    ("memory", &[]),
    ("proto", &[]),
    ("limits", &["message"]),
    ("auth", &["message"]),
    ("hub", &["message"]),
    ("store", &["message"]),
    ("cluster", &["message", "proto"]),
    ("state", &["message", "cluster"]),
    ("delivery", &["message", "limits", "hub", "store", "state", "cluster"]),
    ("messages", &["message", "limits", "delivery", "store"]),
    ("command", &["message", "limits", "auth", "delivery", "messages", "store"]),
    ("grpc", &["message", "limits", "auth", "command", "proto"]),
    ("http", &["message", "limits", "auth", "command"]),
    ("socketio", &["message", "limits", "auth", "hub", "command"]),
    ("websocket", &["message", "limits", "auth", "hub", "command"]),
    (
        "config",
        &[
            "message",
            "limits",
            "auth",
            "hub",
            "store",
            "state",
            "cluster",
            "delivery",
            "messages",
            "command",
            "grpc",
            "http",
            "socketio",
            "websocket",
        ],
    ),
    (
        "app",
        &[
            "memory",
            "message",
            "proto",
            "limits",
            "auth",
            "hub",
            "store",
            "state",
            "cluster",
            "delivery",
            "messages",
            "command",
            "grpc",
            "http",
            "socketio",
            "websocket",
            "config",
        ],
    ),
    ("client", &[]),
    ("bench", &["auth", "client", "proto"]),
    ("cli", &["message", "app", "config", "auth", "client", "bench", "proto"]),
];

/// The directories under `src/` that are crates of their own, whose roots are their `lib.rs`. They know nothing of `bugle`;
/// who may name them is in the [`FENCES`].
const CRATES: &[&str] = &["transport", "engineio"];

/// What all but `message` may import; a leaf only those before it, so that they tie no knot.
const LEAVES: &[&str] = &["clock", "telemetry", "lifecycle"];

/// An external crate with its family (`tonic` stands for `tonic_health` too) or a path of the standard library, and the
/// modules that may name it.
const FENCES: &[Row] = &[
    ("tonic", &["proto", "grpc", "cluster", "client", "bench", "cli"]),
    ("prost", &["proto", "grpc", "cluster", "cli"]),
    ("socketioxide", &["socketio"]),
    // The crate of `src/engineio`, and the registry's `engineioxide_core`.
    ("engineioxide", &["socketio", "engineio"]),
    ("transport", &["engineio", "limits", "hub", "delivery", "grpc", "http", "socketio", "websocket", "config", "app"]),
    ("sqlx", &["store"]),
    ("redis", &["cluster", "state"]),
    ("jsonwebtoken", &["auth"]),
    ("hyper", &["transport", "engineio"]),
    ("axum", &["http", "websocket", "socketio", "app"]),
    ("hdrhistogram", &["bench"]),
    ("indicatif", &["cli"]),
    // `bench` and `cli` read no variables: a load generator needs a temporary directory, and its own program as the server.
    ("std::env", &["config", "bench", "cli"]),
];

const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 70;

/// Something that is not as the design has it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Failure {
    path: String,
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Everything that is wrong with the sources, in order of file and line.
fn failures(sources: &Sources) -> Vec<Failure> {
    let mut failures: Vec<_> = sources.unreadable().collect();
    failures.extend(circles::check(sources));
    for source in sources.files() {
        failures.extend(sizes::check(source));
        failures.extend(files::check(source, sources));
        if source.is_of_the_crate() && !sources.is_for_tests_only(source) {
            failures.extend(imports::check(source));
            failures.extend(fences::check(source));
        }
    }
    failures.sort();
    failures.dedup();
    failures
}

#[test]
fn the_house_is_in_order() {
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR")), &["src", "tests"]);
    let failures = failures(&sources);
    let report: Vec<_> = failures.iter().map(Failure::to_string).collect();
    assert!(report.is_empty(), "{} to put right:\n\n{}\n", report.len(), report.join("\n"));
}
