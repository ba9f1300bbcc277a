//! Answers as bytes, and back.

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    ack_codec,
    codec::connection,
    frame::{AckPart, Answer, Counts},
    sketch::{REGISTERS, Sketch},
};
use crate::message::{ConnectionId, ConnectionInfo, NodeStats, Page, RoomName, RoomUsers, Transport, UserId};
use crate::proto::bus::v1::{self, answer::Body};

/// What comes back to the node that sent a frame.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Answer(Answer),
    Acks(AckPart),
}

pub(super) fn encode(number: u64, reply: Reply) -> v1::Answer {
    let body = match reply {
        Reply::Acks(acks) => Body::Acks(v1::Acks { acks: acks.iter().map(ack_codec::encode).collect() }),
        Reply::Answer(answer) => match answer {
            Answer::Counts(Counts { matched, enqueued, dropped, asked, is_repeated: repeated }) => {
                let asked = asked.into_iter().map(|(user, id)| target(&user, &id)).collect();
                Body::Counts(v1::Counts { matched, enqueued, dropped, asked, repeated })
            }
            Answer::Count(count) => Body::Count(count),
            Answer::Connections(list) => {
                Body::Connections(v1::Connections { connections: list.into_iter().map(encode_connection).collect() })
            }
            Answer::Room(RoomUsers { page, connections, .. }, users) => Body::Page(v1::Page {
                connections: connections as u64,
                users: Some(encode_sketch(users)),
                ..encode_page(page.items, page.more)
            }),
            Answer::Page(page) => Body::Page(encode_page(page.items, page.more)),
            Answer::Stats(NodeStats { node, users, connections, rooms }, user_sketch, room_sketch) => {
                Body::Stats(v1::NodeStats {
                    node: node.to_string(),
                    users,
                    connections,
                    rooms,
                    user_sketch: Some(encode_sketch(user_sketch)),
                    room_sketch: Some(encode_sketch(room_sketch)),
                })
            }
            Answer::Late => Body::Late(true),
            Answer::Refused => Body::Refused(true),
        },
    };
    v1::Answer { number, body: Some(body) }
}

/// Reads an answer. What cannot be read counts as refused: its node has another version.
pub(super) fn decode(answer: v1::Answer) -> (u64, Reply) {
    let reply = answer.body.and_then(decode_body);
    (answer.number, reply.unwrap_or(Reply::Answer(Answer::Refused)))
}

fn decode_body(body: Body) -> Option<Reply> {
    Some(Reply::Answer(match body {
        Body::Acks(v1::Acks { acks }) => {
            return acks.into_iter().map(ack_codec::decode).collect::<Option<_>>().map(Reply::Acks);
        }
        Body::Counts(v1::Counts { matched, enqueued, dropped, asked, repeated: is_repeated }) => {
            let asked = asked.iter().map(|asked| named(&asked.user, &asked.connection)).collect::<Option<_>>()?;
            Answer::Counts(Counts { matched, enqueued, dropped, asked, is_repeated })
        }
        Body::Count(count) => Answer::Count(count),
        Body::Connections(v1::Connections { connections }) => {
            Answer::Connections(connections.into_iter().map(decode_connection).collect::<Option<_>>()?)
        }
        Body::Page(v1::Page { items, more, connections, users: Some(users) }) => {
            let users = decode_sketch(users)?;
            let item = |item: &v1::Item| Some((UserId::new(&item.name).ok()?, usize::try_from(item.connections).ok()?));
            let page = Page { items: items.iter().map(item).collect::<Option<_>>()?, more };
            let (count, connections) = (usize::try_from(users.count()).ok()?, usize::try_from(connections).ok()?);
            Answer::Room(RoomUsers { page, users: count, connections }, users)
        }
        Body::Page(v1::Page { items, more, .. }) => {
            let item = |item: v1::Item| Some((item.name, usize::try_from(item.connections).ok()?));
            Answer::Page(Page { items: items.into_iter().map(item).collect::<Option<_>>()?, more })
        }
        Body::Stats(v1::NodeStats { node, users, connections, rooms, user_sketch, room_sketch }) => Answer::Stats(
            NodeStats { node: node.into(), users, connections, rooms },
            decode_sketch(user_sketch?)?,
            decode_sketch(room_sketch?)?,
        ),
        Body::Late(_) => Answer::Late,
        Body::Refused(_) => Answer::Refused,
    }))
}

fn target(user: &UserId, id: &ConnectionId) -> v1::Target {
    v1::Target { user: user.to_string(), connection: connection(id) }
}

fn named(user: &str, connection: &[u8]) -> Option<(UserId, ConnectionId)> {
    Some((UserId::new(user).ok()?, ConnectionId::from_bytes(connection)?))
}

fn encode_page<K: ToString>(items: Vec<(K, usize)>, more: bool) -> v1::Page {
    let item = |(name, connections): (K, usize)| v1::Item { name: name.to_string(), connections: connections as u64 };
    v1::Page { items: items.into_iter().map(item).collect(), more, connections: 0, users: None }
}

fn encode_connection(info: ConnectionInfo) -> v1::Connection {
    let transport = Transport::ALL.iter().position(|transport| *transport == info.transport).unwrap_or_default();
    v1::Connection {
        id: connection(&info.id),
        node: info.node.to_string(),
        transport: u32::try_from(transport).unwrap_or_default(),
        rooms: info.rooms.iter().map(ToString::to_string).collect(),
        connected_at_us: info.connected_at.as_microsecond(),
        address: info.address.to_string(),
        user_agent: info.user_agent,
    }
}

fn decode_connection(info: v1::Connection) -> Option<ConnectionInfo> {
    let rooms = info.rooms.iter().map(|room| RoomName::new(room).ok());
    Some(ConnectionInfo {
        id: ConnectionId::from_bytes(&info.id)?,
        node: info.node.into(),
        transport: *Transport::ALL.get(info.transport as usize)?,
        rooms: rooms.collect::<Option<_>>()?,
        connected_at: Timestamp::from_microsecond(info.connected_at_us).ok()?,
        address: info.address.parse().ok()?,
        user_agent: info.user_agent,
    })
}

fn encode_sketch(sketch: Sketch) -> v1::Sketch {
    match sketch {
        Sketch::Few(hashes) => v1::Sketch { hashes: hashes.into_iter().collect(), registers: Bytes::new() },
        Sketch::Many(registers) => v1::Sketch { hashes: Vec::new(), registers: registers.into() },
    }
}

fn decode_sketch(sketch: v1::Sketch) -> Option<Sketch> {
    if sketch.registers.is_empty() {
        return Some(Sketch::Few(sketch.hashes.into_iter().collect()));
    }
    (sketch.registers.len() == REGISTERS).then(|| Sketch::Many(Box::from(&*sketch.registers)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{Ack, AckOutcome};

    fn user() -> UserId {
        UserId::new("42").unwrap()
    }

    #[test]
    fn every_answer_is_read_as_it_was_written() {
        let id = ConnectionId::random();
        let info = ConnectionInfo {
            id,
            node: "a".into(),
            transport: Transport::WebSocket,
            rooms: vec![RoomName::everyone()],
            connected_at: Timestamp::from_second(1).unwrap(),
            address: "::1".parse().unwrap(),
            user_agent: "agent".to_owned(),
        };
        let stats = NodeStats { node: "a".into(), users: 1, connections: 2, rooms: 3 };
        let users = Sketch::of(["42"].into_iter());
        let outcomes = [
            AckOutcome::Replied(Some("[1]".into())),
            AckOutcome::Replied(None),
            AckOutcome::Timeout,
            AckOutcome::Gone,
            AckOutcome::Unsupported,
            AckOutcome::Dropped,
            AckOutcome::Pending,
        ];
        let acks =
            outcomes.map(|outcome| Ack { user: user(), connection: id, outcome, elapsed: Duration::from_micros(7) });
        let room = RoomUsers { page: Page { items: vec![(user(), 2)], more: false }, users: 1, connections: 2 };
        let replies = [
            Answer::Counts(Counts {
                matched: 3,
                enqueued: 2,
                dropped: 1,
                asked: vec![(user(), id)],
                is_repeated: true,
            }),
            Answer::Count(7),
            Answer::Connections(vec![info]),
            Answer::Room(room, users.clone()),
            Answer::Page(Page { items: vec![("a".to_owned(), 1)], more: true }),
            Answer::Stats(stats, users, Sketch::Many(vec![1; REGISTERS].into())),
            Answer::Late,
            Answer::Refused,
        ];
        let replies = replies.map(Reply::Answer).into_iter().chain([Reply::Acks(acks.to_vec())]);
        for reply in replies {
            assert_eq!(decode(encode(9, reply.clone())), (9, reply));
        }
    }

    #[test]
    fn an_answer_without_a_known_body_counts_as_refused() {
        assert_eq!(decode(v1::Answer { number: 3, body: None }), (3, Reply::Answer(Answer::Refused)));
    }
}
