//! Answers of the server as they are printed: the fields of the protocol, in its order.

#![expect(clippy::struct_excessive_bools, clippy::struct_field_names, reason = "the protocol's names")]

use jiff::Timestamp;
use serde::Serialize;

use crate::proto::v1;

#[derive(Serialize)]
pub(super) struct Receipt<'a> {
    message_id: &'a str,
    matched: u64,
    enqueued: u64,
    dropped: u64,
    stored: bool,
    position: &'a str,
    duplicate: bool,
    deferred: bool,
    nodes: u32,
    partial: bool,
    /// With the next, what only an emit that asks for acknowledgements has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    acks: Vec<Ack<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replied: Option<u64>,
}

#[derive(Serialize)]
struct Ack<'a> {
    user_id: &'a str,
    connection_id: &'a str,
    outcome: &'static str,
    json: &'a str,
    elapsed: Option<String>,
}

impl<'a> From<&'a v1::Ack> for Ack<'a> {
    fn from(ack: &'a v1::Ack) -> Self {
        Self {
            user_id: &ack.user_id,
            connection_id: &ack.connection_id,
            outcome: ack.outcome().as_str_name(),
            json: &ack.json,
            elapsed: ack.elapsed.as_ref().map(ToString::to_string),
        }
    }
}

impl<'a> From<&'a v1::Receipt> for Receipt<'a> {
    fn from(receipt: &'a v1::Receipt) -> Self {
        Self {
            message_id: &receipt.message_id,
            matched: receipt.matched,
            enqueued: receipt.enqueued,
            dropped: receipt.dropped,
            stored: receipt.stored,
            position: &receipt.position,
            duplicate: receipt.duplicate,
            deferred: receipt.deferred,
            nodes: receipt.nodes,
            partial: receipt.partial,
            acks: receipt.acks.iter().map(Ack::from).collect(),
            replied: (!receipt.acks.is_empty()).then_some(receipt.replied),
        }
    }
}

#[derive(Serialize)]
pub(super) struct User<'a> {
    pub(super) user_id: &'a str,
    pub(super) online: bool,
    pub(super) connections: Vec<Connection<'a>>,
}

#[derive(Serialize)]
pub(super) struct Connection<'a> {
    id: &'a str,
    node: &'a str,
    transport: &'static str,
    rooms: &'a [String],
    connected_at: Option<String>,
    address: &'a str,
    user_agent: &'a str,
}

impl<'a> From<&'a v1::Connection> for Connection<'a> {
    fn from(connection: &'a v1::Connection) -> Self {
        let connected_at = connection.connected_at.as_ref();
        Self {
            id: &connection.id,
            node: &connection.node,
            transport: connection.transport().as_str_name(),
            rooms: &connection.rooms,
            connected_at: connected_at
                .and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
                .map(|time| time.to_string()),
            address: &connection.address,
            user_agent: &connection.user_agent,
        }
    }
}

#[derive(Serialize)]
pub(super) struct UserSummary<'a> {
    user_id: &'a str,
    online: bool,
    connection_count: u32,
}

impl<'a> From<&'a v1::UserSummary> for UserSummary<'a> {
    fn from(user: &'a v1::UserSummary) -> Self {
        Self { user_id: &user.user_id, online: user.online, connection_count: user.connection_count }
    }
}

#[derive(Serialize)]
pub(super) struct Stats<'a> {
    users: u64,
    connections: u64,
    rooms: u64,
    nodes: Vec<NodeStats<'a>>,
}

#[derive(Serialize)]
struct NodeStats<'a> {
    node: &'a str,
    users: u64,
    connections: u64,
    rooms: u64,
}

impl<'a> From<&'a v1::GetStatsResponse> for Stats<'a> {
    fn from(stats: &'a v1::GetStatsResponse) -> Self {
        let nodes = stats.nodes.iter().map(|node| NodeStats {
            node: &node.node,
            users: node.users,
            connections: node.connections,
            rooms: node.rooms,
        });
        Self { users: stats.users, connections: stats.connections, rooms: stats.rooms, nodes: nodes.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn a_receipt_is_one_line_with_every_count() {
        let receipt = v1::Receipt {
            message_id: "0190".into(),
            matched: 3,
            enqueued: 2,
            dropped: 1,
            nodes: 1,
            ..v1::Receipt::default()
        };
        assert_eq!(
            line(&Receipt::from(&receipt)),
            r#"{"message_id":"0190","matched":3,"enqueued":2,"dropped":1,"stored":false,"position":"","duplicate":false,"deferred":false,"nodes":1,"partial":false}"#
        );
    }

    #[test]
    fn an_acknowledgement_shows_its_outcome_by_name_and_its_time_in_seconds() {
        let ack = v1::Ack {
            user_id: "42".into(),
            connection_id: "c1".into(),
            outcome: v1::ack::Outcome::Replied.into(),
            json: "[1.10]".into(),
            elapsed: Some(prost_types::Duration { seconds: 0, nanos: 12_000_000 }),
        };
        let receipt = v1::Receipt { acks: vec![ack], replied: 1, ..v1::Receipt::default() };
        let printed = line(&Receipt::from(&receipt));
        let acks = r#""acks":[{"user_id":"42","connection_id":"c1","outcome":"OUTCOME_REPLIED","json":"[1.10]","elapsed":"0.012s"}],"replied":1}"#;
        assert!(printed.ends_with(acks), "{printed}");
    }

    #[test]
    fn a_connection_shows_its_transport_by_name_and_its_time_as_rfc_3339() {
        let connection = v1::Connection {
            id: "c1".into(),
            node: "n1".into(),
            transport: v1::Transport::SocketioPolling.into(),
            rooms: vec!["everyone".into()],
            connected_at: Some(prost_types::Timestamp { seconds: 1_769_851_800, nanos: 5_000_000 }),
            address: "10.0.0.1".into(),
            user_agent: String::new(),
        };
        assert_eq!(
            line(&Connection::from(&connection)),
            r#"{"id":"c1","node":"n1","transport":"TRANSPORT_SOCKETIO_POLLING","rooms":["everyone"],"connected_at":"2026-01-31T09:30:00.005Z","address":"10.0.0.1","user_agent":""}"#
        );
    }

    #[test]
    fn the_counts_are_given_in_all_and_per_node() {
        let node = v1::NodeStats { node: "n1".into(), users: 1, connections: 2, rooms: 3 };
        let stats = v1::GetStatsResponse { users: 1, connections: 2, rooms: 3, nodes: vec![node], partial: false };
        assert_eq!(
            line(&Stats::from(&stats)),
            r#"{"users":1,"connections":2,"rooms":3,"nodes":[{"node":"n1","users":1,"connections":2,"rooms":3}]}"#
        );
    }
}
