//! How many of what, and how often, by whom.

mod rate;
pub use rate::{Meters, Rate, TooFast};

mod connections;
pub use connections::{AddressSlot, Connections, LimitExceeded};

mod client_events;
pub use client_events::{ClientEvents, ConnectionEvents, Excess};

use serde::{Deserialize, Serialize};
use transport::StrangerLimits;

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
    /// How often devices connect from one address.
    pub connects_per_address: Rate,
    /// How often devices of one user connect.
    pub connects_per_user: Rate,
    /// How often one connection sends events.
    pub client_events_per_connection: Rate,
    /// How often all connections of one user do.
    pub client_events_per_user: Rate,
    /// How often the backends with one API key emit.
    pub emits_per_api_key: Rate,
    /// The largest payload of an emit, in bytes.
    pub max_payload: usize,
    /// gRPC calls that are being answered at one time, streams until they have begun; more are refused.
    pub grpc_calls: usize,
    /// Idempotency keys that are remembered. A new key beyond that evicts the oldest.
    pub idempotency_keys: usize,
    /// Users in rooms by `JoinRoom`, counted per user and room.
    pub memberships: usize,
    /// Rights to join a room, by `AllowRoom`, counted likewise.
    pub grants: usize,
    /// Rooms that one connection is in by client events alone.
    pub rooms_per_connection: u32,
    /// Connections from which no token was accepted.
    pub unauthenticated: StrangerLimits,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No limit but what a test sets.
    pub(super) fn config() -> Config {
        const NONE: Rate = Rate { per_second: Rate::UNLIMITED, burst: 1 };
        Config {
            connections: u32::MAX,
            connections_per_address: u32::MAX,
            connections_per_user: u32::MAX,
            connects_per_address: NONE,
            connects_per_user: NONE,
            client_events_per_connection: NONE,
            client_events_per_user: NONE,
            emits_per_api_key: NONE,
            max_payload: 0,
            grpc_calls: 0,
            idempotency_keys: 0,
            memberships: 0,
            grants: 0,
            rooms_per_connection: 0,
            unauthenticated: StrangerLimits::UNLIMITED,
        }
    }
}
