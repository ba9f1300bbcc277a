use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;

use super::{ConnectionId, RoomName, Transport};

/// What can be told of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// The node that holds it.
    pub node: Arc<str>,
    /// How it is connected now.
    pub transport: Transport,
    /// The rooms that it is in, ordered by name.
    pub rooms: Vec<RoomName>,
    /// Since when.
    pub connected_at: Timestamp,
    /// Where the device is.
    pub address: IpAddr,
    /// The device's User-Agent; may be empty.
    pub user_agent: String,
}

/// How much of everything there is on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStats {
    /// The node.
    pub node: Arc<str>,
    /// Users with a connection.
    pub users: u64,
    /// Connections.
    pub connections: u64,
    /// Rooms with a connection.
    pub rooms: u64,
}

/// How much of everything there is on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Users with a connection, each once. An estimate (±1 %) if there are several nodes and many users.
    pub users: u64,
    /// Connections.
    pub connections: u64,
    /// Rooms with a connection, each once; an estimate likewise.
    pub rooms: u64,
    /// The same per node.
    pub nodes: Vec<NodeStats>,
}

/// An answer of all nodes that have something to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfNodes<T> {
    /// What they answered together.
    pub answer: T,
    /// How many nodes answered.
    pub nodes: u32,
    /// Some node did not answer in time: what it has is missing.
    pub partial: bool,
}

impl<T> OfNodes<T> {
    /// The answer of the only node.
    pub fn of_one(answer: T) -> Self {
        Self { answer, nodes: 1, partial: false }
    }

    /// The same of something else.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> OfNodes<U> {
        OfNodes { answer: map(self.answer), nodes: self.nodes, partial: self.partial }
    }
}
