use std::{sync::Arc, time::Duration};

use super::NewDirect;
use crate::message::{EventName, MessageId, Payload, RoomName, UserId, bytes_of_users};

/// A message that is to be kept.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Whose mailbox it goes into.
    pub room: RoomName,
    /// Its id.
    pub id: MessageId,
    /// Its event.
    pub event: EventName,
    /// Its payload, as it is sent.
    pub payload: Payload,
    /// Users who are not to get it.
    pub except_users: Vec<UserId>,
    /// How long it is of use; none: as long as it is kept.
    pub ttl: Option<Duration>,
    /// Makes its repetition harmless.
    pub idempotency: Option<IdempotencyKey>,
    /// The direct message whose entry it is: it makes the payload, too.
    pub direct: Option<Arc<NewDirect>>,
}

/// An idempotency key, and what was asked for under it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// The name of the API key.
    pub caller: Arc<str>,
    /// The idempotency key.
    pub key: Arc<str>,
    /// A digest of what was asked for.
    pub request_hash: [u8; 32],
}

/// A room's sequence of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// The last position that was given; 0: none.
    pub last: u64,
    /// Up to here messages may have been trimmed by age or count.
    pub trimmed: u64,
}

impl NewMessage {
    /// What it adds to a transaction, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let direct = self.direct.as_ref().map_or(0, |direct| direct.bytes());
        self.room.as_str().len()
            + self.event.as_str().len()
            + self.payload.len()
            + bytes_of_users(&self.except_users)
            + direct
    }
}
