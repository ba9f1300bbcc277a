use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Unproven, WriteMode};
use crate::message::{EventName, MessageId, Payload, Position, RoomName};

/// An event on its way: made once for an emit, shared by all who get it.
#[derive(Debug)]
pub struct Frame {
    /// What the device listens for.
    pub event: EventName,
    /// The event's argument.
    pub payload: Payload,
    /// A full queue loses the frame instead of the connection.
    pub volatile: bool,
    /// It was there before the device: that it waits does not make the device slow.
    pub on_join: bool,
    /// Who writes it to those who are live.
    pub mode: WriteMode,
    /// Where the message stands in its room's sequence, if it is kept.
    pub entry: Option<EntryMeta>,
    /// Where connections report that the device has received it: set on stored messages of a user's own mailbox, live and replayed.
    pub unproven: Option<Arc<dyn Unproven>>,
    /// What edges write for it.
    pub written: Written,
}

/// A frame as an edge writes it, made once for all devices that get it in this form.
#[derive(Debug, Default)]
pub struct Written([OnceLock<Bytes>; Form::COUNT]);

/// What devices are told by a frame.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// The event.
    Event,
    /// The event, and where the message stands.
    EventAndPosition,
    /// The event's binary payload, as Engine.IO 4 has it.
    Attachment,
    /// The same, as Engine.IO 3 has it.
    AttachmentV3,
    /// The payload alone.
    Payload,
}

impl Form {
    const COUNT: usize = 5;
}

impl Written {
    /// The bytes in this form; `write` makes them the first time.
    pub fn get_or_write(&self, form: Form, write: impl FnOnce() -> Bytes) -> &Bytes {
        self.0[form as usize].get_or_init(write)
    }
}

/// What is kept besides being sent: devices that resume are told where it stands.
#[derive(Clone, Debug)]
pub struct EntryMeta {
    /// Where it stands in the room's sequence.
    pub position: Position,
    /// The event's second argument for them: `{ id, room, position }`.
    pub meta: Arc<RawValue>,
}

#[derive(Serialize)]
struct Meta<'a> {
    id: String,
    room: &'a str,
    position: String,
}

impl EntryMeta {
    /// A message that stands there.
    pub fn new(id: MessageId, room: &RoomName, position: &Position) -> Self {
        let meta = Meta { id: id.to_string(), room: room.as_str(), position: position.to_string() };
        // Texts always serialise.
        let meta = serde_json::value::to_raw_value(&meta).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { position: position.clone(), meta: meta.into() }
    }
}

impl Frame {
    /// A frame that must arrive.
    pub fn new(event: EventName, payload: Payload) -> Self {
        Self {
            event,
            payload,
            volatile: false,
            on_join: false,
            mode: WriteMode::Batched,
            entry: None,
            unproven: None,
            written: Written::default(),
        }
    }

    /// A frame for a connection that has just joined.
    pub fn on_join(event: EventName, payload: Payload) -> Self {
        Self { on_join: true, ..Self::new(event, payload) }
    }

    /// About what it takes up while it waits, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.event.as_str().len() + self.payload.len()
    }
}
