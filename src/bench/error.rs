use std::{io, net::SocketAddr, path::PathBuf};

use tonic::Status;

use super::latency::LatencyError;
use crate::auth::MintError;
use crate::client;

/// Why a bench has no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not have so many connections.
    #[error(
        "{devices} devices need more file descriptors than this process may have: at most {most} devices (raise the hard limit, \
         `ulimit -Hn`)"
    )]
    Descriptors {
        /// How many are wanted.
        devices: usize,
        /// How many can be.
        most: u64,
    },
    /// The limit of file descriptors is not known.
    #[error("cannot raise the limit of file descriptors")]
    Limit(#[source] io::Error),
    /// This is no address.
    #[error("{0:?} is no address for {1}: give http://HOST:PORT, without a path; TLS is not built into this command")]
    Url(String, &'static str),
    /// The address is not known.
    #[error("cannot find the address of {host}")]
    Unknown {
        /// Of which host.
        host: String,
        /// What happened.
        source: io::Error,
    },
    /// Devices' tokens cannot be signed.
    #[error("the devices' tokens cannot be minted")]
    Mint(#[from] MintError),
    /// The server's own directory or log cannot be written or read.
    #[error("cannot prepare the server in {}", directory.display())]
    Prepare {
        /// Where.
        directory: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The server did not start.
    #[error("the server did not start; its log ends with:\n{0}")]
    Start(String),
    /// There is no engine to run.
    #[error("cannot run redis-server, which several nodes need: it is to be in PATH, of version 7 or later")]
    Engine(#[source] io::Error),
    /// The engine did not start.
    #[error("redis-server did not start; its log ends with:\n{0}")]
    EngineStart(String),
    /// The nodes do not know one another.
    #[error("after 20 s a node knows {ready} ready nodes, and {nodes} were started")]
    Peers {
        /// How many it knows.
        ready: u64,
        /// How many there should be.
        nodes: usize,
    },
    /// A process of the bench has no processor time.
    #[error("the processor time of process {0} is not known: it ended, or there is no /proc")]
    NoTime(u32),
    /// A node that was started takes no calls.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Something did not come.
    #[error(
        "of {expected} deliveries {missing} are missing, and nothing has come for 30 s{}",
        .cut_off.as_ref().map(|first| format!("; cut off: {first}")).unwrap_or_default()
    )]
    Missing {
        /// How many there should be.
        expected: u64,
        /// How many did not come.
        missing: u64,
        /// What became of the first device that was cut off.
        cut_off: Option<String>,
    },
    /// The admin port does not answer, or not with a process's metrics.
    #[error("no figures of the server's process at {address}")]
    Admin {
        /// Where they were looked for.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// A device was not let in.
    #[error("device {number} cannot connect to {address}")]
    Connect {
        /// Which.
        number: usize,
        /// Where.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// An emit was refused.
    #[error("an emit was refused")]
    Refused(#[source] Box<Status>),
    /// The warm-up did not come to its end.
    #[error(
        "of {expected} deliveries of the warm-up {missing} are missing, and nothing has come for 30 s{}",
        .cut_off.as_ref().map_or_else(
            || ": see that the devices' address and the backends' are of one server".to_owned(),
            |first| format!("; cut off: {first}"),
        )
    )]
    WarmUp {
        /// How many there should be.
        expected: u64,
        /// How many did not come.
        missing: u64,
        /// What became of the first device that was cut off.
        cut_off: Option<String>,
    },
    /// Latencies cannot be counted.
    #[error(transparent)]
    Latency(#[from] LatencyError),
    /// A part of the load generator died.
    #[error("a caller ended before its work")]
    Caller(#[from] tokio::task::JoinError),
    /// The thread that keeps the rate cannot be.
    #[error("cannot keep a rate")]
    Rate(#[source] io::Error),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}
