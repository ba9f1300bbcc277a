use std::sync::Arc;

use super::{MessageId, UserId};

/// A message from one user to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMessage {
    /// Its id, which is that of its entries in both users' mailboxes, too.
    pub id: MessageId,
    /// Who wrote it.
    pub sender: UserId,
    /// For whom it is.
    pub receiver: UserId,
    /// What it says.
    pub content: Arc<str>,
    /// What it is about.
    pub topic: Topic,
    /// Whether the receiver has read it.
    pub is_read: bool,
    /// When it was stored, in milliseconds since 1970. Of two messages of a conversation the later one has a larger number.
    pub created_at_ms: i64,
    /// When it was changed the last time, in milliseconds since 1970.
    pub updated_at_ms: i64,
}

/// What a direct message is about, if it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// A transaction's id.
    pub transaction: Option<Arc<str>>,
    /// A listing's id.
    pub listing: Option<Arc<str>>,
}

impl DirectMessage {
    /// The other side of the conversation, if the user is one side of it.
    pub fn peer_of(&self, user: &UserId) -> Option<&UserId> {
        match () {
            () if *user == self.sender => Some(&self.receiver),
            () if *user == self.receiver => Some(&self.sender),
            () => None,
        }
    }
}
