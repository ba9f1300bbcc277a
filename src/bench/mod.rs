//! The load generator behind `bugle bench`, and for benches of other kinds: a fleet of devices that cost next to nothing, a backend, a
//! server as a child process, and what it all takes up.
//!
//! A [`Plan`] says what is measured, a [`Target`] at which server, and [`run`] gives the [`Report`]. Those who measure something else
//! use the parts: [`Server`], [`Fleet`] or [`Device`], [`Backend`], and [`process`] for figures.
//!
//! Latencies count from the time that an emit was due, which is in its payload: so an emit that waits behind a slow one is as slow as
//! it is for whoever waits for it.

mod plan;
pub use plan::{Emits, Plan, Target, To, Work, allow_devices, place};

mod run;
pub use run::run;

mod report;
pub use report::{Connect, Generator, Report, Server as ServerFigures};

mod progress;
pub use progress::{Counts, Progress, Status};

mod caller;
mod schedule;

mod latency;
pub use latency::{Latencies, LatencyError, Percentiles};

mod payload;
pub use payload::{EVENT, due, payload};

mod backend;
pub use backend::{Backend, stream_item};

mod tokens;
pub use tokens::{ROOM, token, tokens, user};

mod fleet;
pub use fleet::{Fleet, Place, Tally};

mod device;
pub use device::{Device, Options, Speech};

mod frame;

mod engine;

mod nodes;
pub use nodes::{Nodes, measure as measure_nodes};

mod nodes_report;
pub use nodes_report::{CallFigures, NodesReport, Spread};

mod server;
pub use server::{Server, Setup};

pub mod process;
pub use process::{Admin, Usage};

mod error;
pub use error::Error;
