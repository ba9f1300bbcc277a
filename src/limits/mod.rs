//! How many of what, by whom.

mod connections;
pub use connections::{AddressSlot, Connections, Refused};

use serde::{Deserialize, Serialize};

/// `[limits]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Device transports at one time, authenticated or not.
    pub connections: u32,
    /// Of those, from one address.
    pub connections_per_address: u32,
    /// Connections of one user.
    pub connections_per_user: u32,
    /// The largest payload of an emit, in bytes.
    pub max_payload: usize,
    /// gRPC calls that are being answered at one time, streams until they have begun; more are refused.
    pub grpc_calls: usize,
    /// Idempotency keys kept at one time; the oldest go first.
    pub idempotency_keys: usize,
    /// Users in rooms by `JoinRoom`, counted per user and room.
    pub memberships: usize,
    /// Rights to join a room, by `AllowRoom`, counted likewise.
    pub grants: usize,
    /// Rooms of one connection, past which its device's events join no more.
    pub rooms_per_connection: u32,
}
