//! Frames as bytes, and back.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{
    frame::{EmitFrame, Frame},
    head::Head,
};
use crate::message::{
    AckMode, AckRequest, Audience, ConnectionId, Emit, EventName, Exceptions, LARGEST_PAGE, MessageId, Payload,
    RoomName, UserId,
};
use crate::proto::bus::v1::{self, emit, frame::Body};

/// A frame as it is on a channel.
pub(super) fn encode(head: &Head, frame: &Frame, sent_at_ms: i64) -> Vec<u8> {
    let frame = v1::Frame { sent_at_ms, body: Some(body(frame)) };
    let mut bytes = Vec::with_capacity(Head::LEN + frame.encoded_len());
    head.write(&mut bytes);
    // A vector has room.
    let _ = frame.encode(&mut bytes);
    bytes
}

/// Reads a frame, and when it was sent. `None`: it is not one of this version.
pub(super) fn decode(bytes: Bytes) -> Option<(Frame, i64)> {
    let v1::Frame { sent_at_ms, body } = v1::Frame::decode(bytes).ok()?;
    Some((frame(body?)?, sent_at_ms))
}

fn body(frame: &Frame) -> Body {
    match frame {
        Frame::Emit(frame) => {
            let EmitFrame { id, emit, once, stored } = &**frame;
            let stored = stored.as_ref().map(ToString::to_string).unwrap_or_default();
            Body::Emit(v1::Emit { once: *once, stored, ..encode_emit(*id, emit) })
        }
        Frame::Disconnect { user, reason, except } => Body::Disconnect(v1::Disconnect {
            user: user.to_string(),
            reason: reason.to_string(),
            except_connections: except.iter().map(connection).collect(),
        }),
        Frame::Join(user, room, ttl) => Body::Join(v1::RoomChange {
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            ..change(user, room)
        }),
        Frame::Leave(user, room) => Body::Leave(change(user, room)),
        Frame::Forbid(user, room) => Body::Forbid(change(user, room)),
        Frame::CountUser(user) => Body::CountUser(user.to_string()),
        Frame::GetUser(user) => Body::GetUser(user.to_string()),
        Frame::GetRoom(room, after, size) => {
            Body::GetRoom(v1::GetRoom { room: room.to_string(), after: after.clone(), size: count32(*size) })
        }
        Frame::ListUsers(after, size) => {
            Body::ListUsers(v1::List { prefix: String::new(), after: after.clone(), size: count32(*size) })
        }
        Frame::ListRooms(prefix, after, size) => {
            Body::ListRooms(v1::List { prefix: prefix.clone(), after: after.clone(), size: count32(*size) })
        }
        Frame::Stats => Body::Stats(v1::Stats {}),
        Frame::Collapses(event) => Body::Collapses(event.to_string()),
        Frame::Wake(room, position) => Body::Wake(v1::Wake { room: room.to_string(), position: position.to_string() }),
        Frame::Unread(room, users) => {
            Body::Unread(v1::Unread { room: room.to_string(), users: users.iter().map(ToString::to_string).collect() })
        }
    }
}

fn frame(body: Body) -> Option<Frame> {
    Some(match body {
        Body::Emit(emit) => {
            let once = emit.once;
            let stored = if emit.stored.is_empty() { None } else { Some(emit.stored.parse().ok()?) };
            let (id, emit) = decode_emit(emit)?;
            Frame::Emit(Box::new(EmitFrame { id, emit, once, stored }))
        }
        Body::Disconnect(v1::Disconnect { user, reason, except_connections }) => Frame::Disconnect {
            user: UserId::new(&user).ok()?,
            reason: reason.into(),
            except: connections(&except_connections)?,
        },
        Body::Join(change) => {
            let (user, room) = changed(&change)?;
            Frame::Join(user, room, Duration::from_millis(change.ttl_ms))
        }
        Body::Leave(change) => changed(&change).map(|(user, room)| Frame::Leave(user, room))?,
        Body::Forbid(change) => changed(&change).map(|(user, room)| Frame::Forbid(user, room))?,
        Body::CountUser(user) => Frame::CountUser(UserId::new(&user).ok()?),
        Body::GetUser(user) => Frame::GetUser(UserId::new(&user).ok()?),
        Body::GetRoom(v1::GetRoom { room, after, size }) => {
            Frame::GetRoom(RoomName::new(&room).ok()?, after, page_size(size))
        }
        Body::ListUsers(v1::List { after, size, .. }) => Frame::ListUsers(after, page_size(size)),
        Body::ListRooms(v1::List { prefix, after, size }) => Frame::ListRooms(prefix, after, page_size(size)),
        Body::Stats(v1::Stats {}) => Frame::Stats,
        Body::Collapses(event) => Frame::Collapses(EventName::of_peer(&event).ok()?),
        Body::Wake(v1::Wake { room, position }) => Frame::Wake(RoomName::new(&room).ok()?, position.parse().ok()?),
        Body::Unread(v1::Unread { room, users }) => {
            let users = users.iter().map(|user| UserId::new(user).ok());
            Frame::Unread(RoomName::new(&room).ok()?, users.collect::<Option<_>>()?)
        }
    })
}

pub(super) fn encode_emit(id: MessageId, emit: &Emit) -> v1::Emit {
    let payload = match &emit.payload {
        Payload::None => None,
        Payload::Json(raw) => Some(emit::Payload::Json(raw.get().to_owned())),
        Payload::Binary(bytes) => Some(emit::Payload::Binary(bytes.clone())),
    };
    let ack = emit.ack.as_ref().map(|ack| v1::AckRequest {
        all: ack.mode == AckMode::All,
        timeout_ms: u32::try_from(ack.timeout.as_millis()).unwrap_or(u32::MAX),
        max_reply_bytes: count32(ack.max_reply_bytes),
    });
    v1::Emit {
        room: emit.audience.room().to_string(),
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        event: emit.event.to_string(),
        payload,
        volatile: emit.volatile,
        alone: emit.alone,
        ack,
        except_connections: emit.except.connections.iter().map(connection).collect(),
        except_users: emit.except.users.iter().map(ToString::to_string).collect(),
        except_rooms: emit.except.rooms.iter().map(ToString::to_string).collect(),
        once: false,
        stored: String::new(),
    }
}

pub(super) fn decode_emit(emit: v1::Emit) -> Option<(MessageId, Emit)> {
    let payload = match emit.payload {
        None => Payload::None,
        Some(emit::Payload::Json(text)) => Payload::json(&text).ok()?,
        Some(emit::Payload::Binary(bytes)) => Payload::Binary(bytes),
    };
    let ack = emit.ack.map(|ack| {
        let mode = if ack.all { AckMode::All } else { AckMode::Any };
        let timeout = Duration::from_millis(ack.timeout_ms.into());
        Box::new(AckRequest { mode, timeout, max_reply_bytes: ack.max_reply_bytes as usize })
    });
    let users = emit.except_users.iter().map(|user| UserId::new(user));
    let rooms = emit.except_rooms.iter().map(|room| RoomName::new(room));
    let except = Exceptions {
        connections: connections(&emit.except_connections)?,
        users: users.collect::<Result<_, _>>().ok()?,
        rooms: rooms.collect::<Result<_, _>>().ok()?,
    };
    let decoded = Emit {
        audience: Audience::of_room(RoomName::new(&emit.room).ok()?),
        except,
        event: EventName::of_peer(&emit.event).ok()?,
        payload,
        volatile: emit.volatile,
        envelope: false,
        retain: false,
        store: false,
        ttl: None,
        collapse_key: None,
        ack,
        alone: emit.alone,
    };
    Some((MessageId::from_bytes(&emit.message_id)?, decoded))
}

/// Another node asks for no more than a caller may.
fn page_size(size: u32) -> usize {
    LARGEST_PAGE.min(size as usize)
}

fn change(user: &UserId, room: &RoomName) -> v1::RoomChange {
    v1::RoomChange { user: user.to_string(), room: room.to_string(), ttl_ms: 0 }
}

fn changed(change: &v1::RoomChange) -> Option<(UserId, RoomName)> {
    Some((UserId::new(&change.user).ok()?, RoomName::new(&change.room).ok()?))
}

pub(super) fn connection(id: &ConnectionId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn connections(ids: &[Bytes]) -> Option<Vec<ConnectionId>> {
    ids.iter().map(|id| ConnectionId::from_bytes(id)).collect()
}

pub(super) fn count32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Position;

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn emits() -> Vec<Emit> {
        let payload = Payload::json(r#"{"amount":1.10}"#).unwrap();
        let plain = Emit::plain(Audience::of_room(room("listing:1")), EventName::own("bid"), payload);
        let except = Exceptions {
            connections: vec![ConnectionId::random()],
            users: vec![UserId::new("7").unwrap()],
            rooms: vec![room("a"), room("b")],
        };
        let ack = AckRequest::new(AckMode::All, Duration::from_millis(1_500)).into();
        vec![
            Emit { payload: Payload::None, volatile: true, ..plain.clone() },
            Emit { payload: Payload::Binary("bytes".into()), except, ack: Some(ack), alone: false, ..plain.clone() },
            plain,
        ]
    }

    #[test]
    fn every_frame_is_read_as_it_was_written() {
        let (user, position) = (UserId::new("42").unwrap(), Position::new("a1".into(), 17));
        let mut frames = vec![
            Frame::Disconnect {
                user: user.clone(),
                reason: "out".into(),
                except: vec![ConnectionId::random(), ConnectionId::random()],
            },
            Frame::Join(user.clone(), room("r"), Duration::from_hours(1)),
            Frame::Leave(user.clone(), room("r")),
            Frame::Forbid(user.clone(), room("r")),
            Frame::CountUser(user.clone()),
            Frame::GetUser(user),
            Frame::GetRoom(room("r"), "a".to_owned(), 3),
            Frame::ListUsers(String::new(), 100),
            Frame::ListRooms("p".to_owned(), "q".to_owned(), 1),
            Frame::Stats,
            Frame::Collapses(EventName::own("e")),
            Frame::Wake(room("r"), position.clone()),
            Frame::Unread(room("r"), vec![UserId::new("42").unwrap(), UserId::new("7").unwrap()]),
        ];
        let id = MessageId::at(jiff::Timestamp::UNIX_EPOCH);
        let emits = emits().into_iter().enumerate();
        frames.extend(emits.map(|(index, emit)| {
            let stored = (index == 1).then(|| position.clone());
            Frame::Emit(Box::new(EmitFrame { id, emit, once: index == 0, stored }))
        }));
        for frame in frames {
            let head = Head::plain(1, 2, 3);
            let bytes = Bytes::from(encode(&head, &frame, 17));
            let (read, body) = Head::split(&bytes).unwrap();
            assert_eq!((read, decode(bytes.slice_ref(body))), (head, Some((frame, 17))));
        }
    }

    #[test]
    fn a_frame_that_no_node_sends_is_no_frame_or_does_no_harm() {
        let read = |body| {
            let frame = v1::Frame { sent_at_ms: 1, body: Some(body) };
            decode(frame.encode_to_vec().into()).map(|(frame, _)| frame)
        };
        let (room, after) = ("r".to_owned(), String::new());
        let huge = Body::GetRoom(v1::GetRoom { room: room.clone(), after: after.clone(), size: u32::MAX });
        assert_eq!(read(huge), Some(Frame::GetRoom(RoomName::new(&room).unwrap(), after, LARGEST_PAGE)));
        for event in ["", "disconnect", "a\nb", &"e".repeat(300_000)] {
            let message_id = Bytes::copy_from_slice(MessageId::at(jiff::Timestamp::UNIX_EPOCH).as_bytes());
            let emit = v1::Emit { room: room.clone(), message_id, event: event.to_owned(), ..v1::Emit::default() };
            assert_eq!(read(Body::Emit(emit)), None);
        }
    }

    #[test]
    fn bytes_of_a_stranger_are_no_frame() {
        for bytes in [&b""[..], b"\xff\xff", b"\x12\x05hello"] {
            assert_eq!(decode(Bytes::copy_from_slice(bytes)), None);
        }
    }
}
