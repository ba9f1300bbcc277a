//! Messages as devices get them, over REST and in events.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{FieldNames, Messages, time_text};
use crate::message::{DirectMessage, Payload, UserId};
use crate::store::Conversation;

/// A message under the configured names.
pub struct MessageBody<'a> {
    message: &'a DirectMessage,
    names: &'a FieldNames,
}

/// A conversation in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationBody<'a> {
    user_id: &'a str,
    last_message: MessageBody<'a>,
    unread_count: u64,
}

impl Serialize for MessageBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { message, names } = self;
        let DirectMessage { id, sender, receiver, content, topic, is_read, created_at_ms, updated_at_ms } = message;
        let mut map = serializer.serialize_map(Some(9))?;
        map.serialize_entry(&names.id, &id.to_string())?;
        map.serialize_entry(&names.sender_id, sender.as_str())?;
        map.serialize_entry(&names.receiver_id, receiver.as_str())?;
        map.serialize_entry(&names.content, &**content)?;
        map.serialize_entry(&names.transaction_id, &topic.transaction.as_deref())?;
        map.serialize_entry(&names.listing_id, &topic.listing.as_deref())?;
        map.serialize_entry(&names.is_read, is_read)?;
        map.serialize_entry(&names.created_at, &time_text(*created_at_ms))?;
        map.serialize_entry(&names.updated_at, &time_text(*updated_at_ms))?;
        map.end()
    }
}

impl FieldNames {
    /// A message under these names.
    pub fn body<'a>(&'a self, message: &'a DirectMessage) -> MessageBody<'a> {
        MessageBody { message, names: self }
    }
}

impl Messages {
    /// A message as devices get it.
    pub fn body<'a>(&'a self, message: &'a DirectMessage) -> MessageBody<'a> {
        self.config().fields.body(message)
    }

    /// A conversation as its side gets it.
    pub fn conversation_body<'a>(&'a self, conversation: &'a Conversation) -> ConversationBody<'a> {
        let Conversation { peer, last, unread } = conversation;
        ConversationBody { user_id: peer.as_str(), last_message: self.body(last), unread_count: *unread }
    }
}

/// What devices get when messages were read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadBody<'a> {
    pub(super) message_ids: Vec<String>,
    pub(super) reader_id: &'a str,
    pub(super) read_at: String,
}

/// What devices get when a message was deleted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeletedBody {
    pub(super) message_id: String,
}

/// What devices get when a user types.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TypingBody<'a> {
    pub(super) user_id: &'a str,
}

impl<'a> TypingBody<'a> {
    pub(super) fn of(user: &'a UserId) -> Self {
        Self { user_id: user.as_str() }
    }
}

/// These bodies have texts, numbers and truth values alone: writing them does not fail.
pub(super) fn payload(body: &impl Serialize) -> Payload {
    serde_json::value::to_raw_value(body).map_or(Payload::None, |raw| Payload::Json(raw.into()))
}
