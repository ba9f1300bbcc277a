use std::time::Duration;

use super::super::{Commands, Error, rooms::check_ttl};
use crate::auth::Caller;
use crate::message::{DirectMessage, MessageId, UserId};
use crate::messages::{Messages, SendMessage, Sent};
use crate::store::{Before, Conversation, DirectPage, Of};

impl Commands {
    /// Direct messages, for a backend that may act for these users.
    fn messages_of(&self, caller: &Caller, users: &[&UserId]) -> Result<&Messages, Error> {
        users.iter().try_for_each(|user| caller.may_act_for(user))?;
        self.messages()
    }

    /// Sends a message as any user. It needs no grant; a block holds.
    pub async fn send_message(&self, caller: &Caller, send: SendMessage) -> Result<Sent, Error> {
        Ok(self.messages_of(caller, &[&send.sender])?.send(send, None).await?)
    }

    /// The conversations of a user.
    pub async fn list_conversations(
        &self,
        caller: &Caller,
        user: &UserId,
        limit: u32,
        before: Before,
    ) -> Result<Vec<Conversation>, Error> {
        Ok(self.messages_of(caller, &[user])?.conversations(user, limit, before).await?)
    }

    /// Messages that a user has sent or received.
    pub async fn list_direct(
        &self,
        caller: &Caller,
        user: &UserId,
        of: &Of,
        page: DirectPage,
    ) -> Result<Vec<DirectMessage>, Error> {
        Ok(self.messages_of(caller, &[user])?.list(user, of, page).await?)
    }

    /// Marks messages as read by a user, or all of a conversation.
    pub async fn read_direct(
        &self,
        caller: &Caller,
        user: &UserId,
        what: Result<&[MessageId], &UserId>,
    ) -> Result<u64, Error> {
        let messages = self.messages_of(caller, &[user])?;
        Ok(match what {
            Ok(ids) => messages.read(user, ids, None).await?,
            Err(peer) => messages.read_conversation(user, peer, None).await?,
        })
    }

    /// Deletes a message of a user.
    pub async fn delete_direct(&self, caller: &Caller, user: &UserId, id: MessageId) -> Result<(), Error> {
        Ok(self.messages_of(caller, &[user])?.delete(user, id, None).await?)
    }

    /// Deletes all conversations of a user, and the user's mailbox. Returns how many messages of conversations there were.
    pub async fn erase_user(&self, caller: &Caller, user: &UserId) -> Result<u64, Error> {
        let messages = self.messages_of(caller, &[user])?;
        let erased = messages.erase(user).await?;
        let room = crate::message::RoomName::of_user(user);
        self.delivery.delete_messages(&room, crate::delivery::Deletion::All).await?;
        Ok(erased)
    }

    /// Allows two users a conversation for a time; none: not any more.
    pub async fn allow_conversation(
        &self,
        caller: &Caller,
        (user, peer): (&UserId, &UserId),
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let messages = self.messages_of(caller, &[user, peer])?;
        if let Some(ttl) = ttl {
            check_ttl(ttl)?;
        }
        Ok(messages.allow(user, peer, ttl).await?)
    }

    /// Has a user block another one, or not any more.
    pub async fn block_user(
        &self,
        caller: &Caller,
        (user, peer): (&UserId, &UserId),
        is_blocked: bool,
    ) -> Result<(), Error> {
        Ok(self.messages_of(caller, &[user])?.block(user, peer, is_blocked).await?)
    }
}
