//! The bus between nodes: it carries what was accepted on one node to the nodes that execute it, and queries to those that can answer. A
//! node that is alone calls itself; several share an engine (Redis), or one for each shard of the rooms.
//!
//! Each room is a channel of the engine. A node is subscribed to the rooms in which it has a connection. `PUBLISH` tells how many nodes got a
//! frame, and so how many answers to wait for; the subscribers of each peer's `ready`, counted in the same transaction, tell whether a node with
//! connections was left out. One engine gives all nodes one order of a room's frames.

mod config;
pub use config::Config;

mod address;

mod functions;

mod probe;

mod engine;
pub use engine::Engine;

mod shards;
pub use shards::Shards;

mod sketch;
pub use sketch::Sketch;
mod receipt;
pub use receipt::{
    KeptMessage, decode_kept, decode_receipt, decode_retained, encode_kept, encode_receipt, encode_retained,
};

mod frame;
pub use frame::{AckPart, Answer, Counts, EmitFrame, Frame};

mod kept;
pub use kept::Kept;

mod head;

mod codec;

mod ack_codec;

mod answer_codec;

mod pending;
pub use pending::{Fate, Gathered, PublishError, Ticket};

mod engine_clock;

mod shard;

mod publisher;

mod answering;
pub use answering::{AckResponder, Responder};

mod rooms;

mod live_peers;

mod peers;

mod incoming;

mod subscriber;

#[cfg(test)]
mod broken;

#[cfg(test)]
pub(crate) mod model;

mod redis_bus;
pub use redis_bus::{Cluster, StartError, Subscribed};

use std::sync::Arc;

use self::incoming::WaitingBytes;
use crate::message::RoomName;

/// Carries frames and queries between nodes.
#[derive(Clone, Default)]
pub enum Bus {
    /// This node is the only one: each call is a direct one.
    #[default]
    Solo,
    /// This node is one of several.
    Redis(Cluster),
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
    /// The engine has no memory left, and what needs some was not done.
    #[error("the engine between the nodes (cluster.redis) has no memory left (its maxmemory)")]
    Full,
    /// The engine refuses it, which the log tells.
    #[error("the engine between the nodes (cluster.redis) refused a command")]
    Refused,
}

/// What executes frames. The bus calls it from its own task: nothing here may wait.
pub trait Node: Send + Sync + 'static {
    /// Executes a frame, after those of the same room that came before, and answers it.
    fn receive(&self, received: Received);

    /// Notes the number of a change of what a room retains. Its frame is not executed: it is too late, or of another version.
    fn missed_change(&self, room: &RoomName, change: u64);

    /// Notes a message of a room's history. Its frame is not executed, for the same reasons.
    fn missed_message(&self, room: &RoomName, kept: Kept);

    /// Notes that what is published to a room does not come any more: no connection is there, or about to join.
    fn given_up(&self, room: &RoomName);

    /// Whether a connection is in a room.
    fn is_occupied(&self, room: &RoomName) -> bool;

    /// Called when all rooms of a shard are subscribed again: what was published there meanwhile did not come. `is_same_data`: the engine
    /// still has all that it had.
    fn recovered(&self, shard: usize, is_same_data: bool);
}

/// A frame that came from a node, maybe this one.
pub struct Received {
    /// What to do.
    pub frame: Frame,
    /// The number of the retained value that it brings; 0: none.
    pub retained: u64,
    /// The place in the room's history of the message that it brings.
    pub kept: Option<Kept>,
    /// Where the answer goes.
    pub responder: Responder,
    /// Counts it as waiting until it is dropped.
    pub waiting: Waiting,
}

/// A frame's part of what may wait for execution.
pub struct Waiting(#[expect(dead_code, reason = "it counts until it is dropped")] WaitingBytes);

impl Bus {
    /// The other nodes, if there are any.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Solo => None,
            Self::Redis(cluster) => Some(cluster),
        }
    }

    /// The name of this node.
    pub fn node(&self) -> Arc<str> {
        match self {
            Self::Solo => "solo".into(),
            Self::Redis(cluster) => cluster.name().clone(),
        }
    }

    /// Has what is published to these rooms come to this node, and returns once it does: a connection joins after that, while it keeps the
    /// returned value.
    pub async fn subscribe(&self, rooms: impl IntoIterator<Item = &RoomName> + Send) -> Subscribed {
        match self {
            Self::Solo => Subscribed::default(),
            Self::Redis(cluster) => {
                let rooms = rooms.into_iter().cloned().collect();
                cluster.subscribe(rooms).await
            }
        }
    }
}
