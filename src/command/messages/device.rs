use std::sync::Arc;

use super::super::{Commands, DeviceRefused, Error, Violation};
use crate::auth::{Identity, text_of};
use crate::delivery::DirectAnswer;
use crate::message::{ConnectionId, DirectMessage, MessageId, RoomPattern, Topic, UserId};
use crate::messages::{self, Messages, Policy, SendMessage, Sent};
use crate::store::{Before, Conversation, DirectPage, Of};

/// A message that a device sends, as it says it.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    /// For whom it is.
    pub receiver: String,
    /// What it says.
    pub content: String,
    /// The transaction that it is about.
    pub transaction: Option<String>,
    /// The listing that it is about.
    pub listing: Option<String>,
    /// The device's own id of it.
    pub client_message_id: Option<String>,
}

/// A device that asks for something about its user's messages.
pub struct MessageDevice<'a> {
    commands: &'a Commands,
    messages: &'a Messages,
    identity: &'a Identity,
    /// The connection that asks by an event, which gets no event itself.
    connection: Option<ConnectionId>,
}

impl Commands {
    /// A device with this token's identity.
    pub fn message_device<'a>(
        &'a self,
        identity: &'a Identity,
        connection: Option<ConnectionId>,
    ) -> Result<MessageDevice<'a>, Error> {
        Ok(MessageDevice { commands: self, messages: self.messages()?, identity, connection })
    }
}

impl MessageDevice<'_> {
    fn user(&self) -> &UserId {
        &self.identity.user
    }

    /// Sends a message. `answer`: see [`Messages::send`].
    pub async fn send(&self, new: NewMessage, answer: Option<DirectAnswer>) -> Result<Sent, Error> {
        let names = &self.messages.config().fields;
        let receiver = user(&names.receiver_id, &new.receiver)?;
        let name = |field: &str, text: Option<String>| {
            let checked = text.map(|text| UserId::new(&text).map(|id| Arc::from(id.as_str())));
            checked.transpose().map_err(|invalid| Violation::of(field, &invalid))
        };
        let topic = Topic {
            transaction: name(&names.transaction_id, new.transaction)?,
            listing: name(&names.listing_id, new.listing)?,
        };
        let client_message_id = name(&names.client_message_id, new.client_message_id)?;
        if let Some(id) = &topic.transaction {
            self.check_right(&Of::Transaction(id.to_string())).await?;
        }
        if let Some(id) = &topic.listing {
            self.check_right(&Of::Listing(id.to_string())).await?;
        }
        let needs_grant = self.needs_grant(&receiver);
        let send = SendMessage {
            sender: self.user().clone(),
            receiver,
            content: new.content.into(),
            topic,
            client_message_id,
            connection: self.connection,
            needs_grant,
        };
        Ok(self.messages.send(send, answer).await?)
    }

    /// Whether only a backend can allow a conversation with this user.
    pub(super) fn needs_grant(&self, peer: &UserId) -> bool {
        let config = self.messages.config();
        if config.policy == Policy::Anyone {
            return false;
        }
        let claim = self.identity.claim(&config.claim);
        let values = claim.map(|claim| claim.as_array().map_or(std::slice::from_ref(claim), Vec::as_slice));
        let names_it = |pattern: &RoomPattern| pattern.matches(peer.as_str());
        let texts = values.unwrap_or_default().iter().filter_map(text_of);
        !texts.filter_map(|text| RoomPattern::new(&text).ok()).any(|pattern| names_it(&pattern))
    }

    /// Whether the user may name this, if a right is needed. True: one is, and the user has it.
    async fn check_right(&self, of: &Of) -> Result<bool, Error> {
        let Some(room) = self.messages.room_of(of)? else { return Ok(false) };
        let has_right = self.identity.rooms.contains(&room)
            || self.identity.may_join(&room)
            || self.commands.delivery.is_allowed(self.user(), &room).await;
        if has_right {
            return Ok(true);
        }
        Err(Error::PermissionDenied(
            "neither the token nor a backend gives this user the right to what the message is about".into(),
        ))
    }

    /// The user's conversations.
    pub async fn conversations(&self, limit: u32, before: Before) -> Result<Vec<Conversation>, Error> {
        Ok(self.messages.conversations(self.user(), limit, before).await?)
    }

    /// Messages that the user has sent or received. Of a transaction or listing about which the user has none, and for which no right is needed,
    /// a device is not told whether others have: it is not found.
    pub async fn list(&self, of: &Of, page: DirectPage) -> Result<Vec<DirectMessage>, Error> {
        let has_right = self.check_right(of).await?;
        let listed = self.messages.list(self.user(), of, page).await?;
        let is_first_page = page.offset == 0 && page.before == Before::Now;
        let is_hidden = listed.is_empty() && is_first_page && !has_right && !matches!(of, Of::Peer(_));
        if is_hidden {
            return Err(Error::NotFound("the user has no messages about this".into()));
        }
        Ok(listed)
    }

    /// How many messages the user has not read.
    pub async fn count_unread(&self) -> Result<u64, Error> {
        Ok(self.messages.count_unread(self.user()).await?)
    }

    /// Marks messages as read.
    pub async fn read(&self, ids: &[MessageId]) -> Result<u64, Error> {
        Ok(self.messages.read(self.user(), ids, self.connection).await?)
    }

    /// Marks the messages of a conversation as read.
    pub async fn read_conversation(&self, peer: &UserId) -> Result<u64, Error> {
        Ok(self.messages.read_conversation(self.user(), peer, self.connection).await?)
    }

    /// Deletes a message that the user has sent.
    pub async fn delete(&self, id: MessageId) -> Result<(), Error> {
        Ok(self.messages.delete(self.user(), id, self.connection).await?)
    }

    /// Whom the user has blocked.
    pub async fn blocked(&self) -> Result<Vec<UserId>, Error> {
        Ok(self.messages.blocked(self.user()).await?)
    }

    /// Blocks a user, or does not any more.
    pub async fn block(&self, peer: &UserId, is_blocked: bool) -> Result<(), Error> {
        Ok(self.messages.block(self.user(), peer, is_blocked).await?)
    }

    /// How messages are written.
    pub fn messages(&self) -> &Messages {
        self.messages
    }
}

/// A user that a field names.
pub(super) fn user(field: &str, text: &str) -> Result<UserId, Violation> {
    UserId::new(text).map_err(|invalid| Violation::of(field, &invalid))
}

impl From<messages::Error> for DeviceRefused {
    fn from(error: messages::Error) -> Self {
        Self::Error(error.into())
    }
}
