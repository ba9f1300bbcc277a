use std::{fmt, sync::Arc};

use crate::message::{DirectMessage, Payload, Topic, UserId};

/// A direct message that is to be stored.
#[derive(Clone, Debug)]
pub struct NewDirect {
    /// Who writes it.
    pub sender: UserId,
    /// For whom it is.
    pub receiver: UserId,
    /// What it says.
    pub content: Arc<str>,
    /// What it is about.
    pub topic: Topic,
    /// It is stored only if a backend allows the conversation.
    pub needs_grant: bool,
    /// Makes the payload of the event.
    pub render: Render,
}

/// Makes the payload of an event of a direct message, once it is known when that was stored.
#[derive(Clone)]
pub struct Render(pub Arc<dyn Fn(&DirectMessage) -> Payload + Send + Sync>);

impl fmt::Debug for Render {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Render")
    }
}

/// Why a direct message is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectRefusal {
    /// The receiver has blocked the sender.
    Blocked,
    /// The sender has blocked the receiver.
    HasBlocked,
    /// No backend allows the conversation.
    NotGranted,
}

impl NewDirect {
    /// What it adds to a transaction, in bytes.
    pub(in crate::store) fn bytes(&self) -> usize {
        self.content.len() + self.sender.as_str().len() + self.receiver.as_str().len()
    }
}
