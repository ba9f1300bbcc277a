use std::sync::Arc;

use super::{Acks, DirectMessage, MessageId, Position};

/// What became of an emit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the API has as many")]
pub struct Receipt {
    /// The emit's id.
    pub message_id: MessageId,
    /// Connections in the audience that listen for the event, less the excepted ones.
    pub matched: u64,
    /// Of those, the ones whose queue took the event.
    pub enqueued: u64,
    /// Of those, the ones that could not take it.
    pub dropped: u64,
    /// The message is in the room's mailbox.
    pub stored: bool,
    /// Where it stands there.
    pub position: Option<Position>,
    /// The first emit with this idempotency key got this receipt; nothing was sent again.
    pub duplicate: bool,
    /// Held back by its collapse key: the counts are 0, and it goes when the window ends, unless a later one takes its place.
    pub deferred: bool,
    /// How many nodes answered.
    pub nodes: u32,
    /// Some node did not answer in time.
    pub partial: bool,
    /// What became of it at each connection, if it asked for acknowledgements.
    pub acks: Option<Arc<Acks>>,
    /// The direct message that it carries, as it was stored.
    pub direct: Option<Arc<DirectMessage>>,
}

impl Receipt {
    /// A receipt of this node that counts nothing yet.
    pub fn new(message_id: MessageId) -> Self {
        Self {
            message_id,
            matched: 0,
            enqueued: 0,
            dropped: 0,
            stored: false,
            position: None,
            duplicate: false,
            deferred: false,
            nodes: 1,
            partial: false,
            acks: None,
            direct: None,
        }
    }
}
