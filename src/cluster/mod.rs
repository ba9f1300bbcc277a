//! The bus between nodes: it carries what was accepted on one node to the nodes that execute it, and queries to those that can answer. A
//! node that is alone calls itself; several share an engine (Redis), or one for each shard of the rooms.

mod config;
pub use config::Config;

mod address;

mod functions;

mod probe;

mod engine;
pub use engine::Engine;

mod shards;
pub use shards::Shards;

mod receipt;
pub use receipt::{decode_receipt, decode_retained, encode_receipt, encode_retained};

use std::future::{Future, ready};

use crate::message::RoomName;

/// Carries frames and queries between nodes.
#[derive(Clone, Copy, Debug, Default)]
pub enum Bus {
    /// This node is the only one: each call is a direct one.
    #[default]
    Solo,
}

/// Why the other nodes may not have executed or answered. A node that is alone never returns this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// There is no connection: nothing was sent.
    #[error("the engine between the nodes (cluster.redis) cannot be reached")]
    Away,
    /// There was no answer in time: it may have been done.
    #[error("the engine between the nodes (cluster.redis) did not answer in time")]
    Unanswered,
    /// The engine refuses it, which the log tells.
    #[error("the engine between the nodes (cluster.redis) refused a command")]
    Refused,
}

impl Bus {
    /// Has what is published to these rooms come to this node, and returns once it does: a connection joins after that.
    pub fn subscribe<'a>(
        self,
        _rooms: impl IntoIterator<Item = &'a RoomName>,
    ) -> impl Future<Output = Result<(), BusError>> + Send {
        match self {
            Self::Solo => ready(Ok(())),
        }
    }

    /// Publishes what was accepted to the nodes that have its room. `execute` is this node's part.
    pub fn publish<T>(self, execute: impl FnOnce() -> T) -> T {
        match self {
            Self::Solo => execute(),
        }
    }

    /// Asks the nodes that have something to answer. `answer` is this node's part.
    pub fn ask<T: Send>(self, answer: impl FnOnce() -> T) -> impl Future<Output = Result<T, BusError>> + Send {
        match self {
            Self::Solo => ready(Ok(answer())),
        }
    }
}
