use std::time::Duration;

use super::{
    Error, Field, Messages,
    wire::{DeletedBody, payload},
};
use crate::message::{ConnectionId, DirectMessage, MessageId, RoomName, UserId};
use crate::store::Rule;

impl Messages {
    /// Deletes a message of a user for both sides, and tells the devices of both. Runs to completion even if the caller disconnects.
    pub async fn delete(&self, user: &UserId, id: MessageId, connection: Option<ConnectionId>) -> Result<(), Error> {
        let (messages, user) = (self.clone(), user.clone());
        self.inner.lifecycle.detach(async move { messages.delete_now(&user, id, connection).await }).await
    }

    async fn delete_now(&self, user: &UserId, id: MessageId, connection: Option<ConnectionId>) -> Result<(), Error> {
        const NOT_FOUND: &str = "there is no such message, or the user is neither its sender nor its receiver";
        let message = self.inner.store.direct_message(id).await?.filter(|message| message.peer_of(user).is_some());
        let message = message.ok_or(Error::NotFound(NOT_FOUND))?;
        if message.sender != *user {
            return Err(Error::Denied("the user has received this message: its sender deletes it"));
        }
        let deleted = self.inner.store.delete_direct(id).await?.ok_or(Error::NotFound(NOT_FOUND))?;
        self.tell_deleted(&deleted, connection).await;
        Ok(())
    }

    async fn tell_deleted(&self, message: &DirectMessage, connection: Option<ConnectionId>) {
        let payload = payload(&DeletedBody { message_id: message.id.to_string() });
        self.tell(&message.receiver, &self.inner.events.deleted, payload.clone(), None).await;
        self.tell(&message.sender, &self.inner.events.deleted, payload, connection).await;
        if !message.is_read {
            let receiver = &message.receiver;
            self.inner.delivery.tell_count(&RoomName::of_user(receiver), receiver).await;
        }
    }

    /// Deletes all conversations of a user, and tells those who had not read all of theirs how many messages are unread now. Returns how many
    /// messages there were.
    pub async fn erase(&self, user: &UserId) -> Result<u64, Error> {
        let (deleted, unread_by) = self.inner.store.erase_conversations(user).await?;
        for peer in unread_by {
            self.inner.delivery.tell_count(&RoomName::of_user(&peer), &peer).await;
        }
        Ok(deleted)
    }

    /// Has a user block another one, or not any more.
    pub async fn block(&self, user: &UserId, peer: &UserId, is_blocked: bool) -> Result<(), Error> {
        if user == peer {
            return Err(Error::invalid(Field::Peer, "is the user's own: name another user"));
        }
        if self.inner.store.set_rule(user, peer, Rule::Blocked(is_blocked)).await? {
            return Ok(());
        }
        Err(Error::Denied("the user has blocked 10,000 others, which is the most: unblock some first"))
    }

    /// Whom a user has blocked.
    pub async fn blocked(&self, user: &UserId) -> Result<Vec<UserId>, Error> {
        Ok(self.inner.store.blocked_by(user).await?)
    }

    /// Allows two users a conversation for a time; none: not any more.
    pub async fn allow(&self, user: &UserId, peer: &UserId, ttl: Option<Duration>) -> Result<(), Error> {
        if user == peer {
            return Err(Error::invalid(Field::Peer, "is the user's own: name another user"));
        }
        self.inner.store.set_rule(user, peer, Rule::Granted(ttl)).await?;
        Ok(())
    }
}
