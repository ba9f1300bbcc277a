use super::{EventName, MessageId, Payload, UserId};

/// A message of a room that is kept for devices that come later.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// Its number in the room's sequence.
    pub number: u64,
    /// Its id.
    pub id: MessageId,
    /// Its event.
    pub event: EventName,
    /// Its payload, as it is sent.
    pub payload: Payload,
    /// Users who are not to get it.
    pub except_users: Vec<UserId>,
    /// When it was kept, in milliseconds since 1970.
    pub stored_at_ms: i64,
}
