use std::time::Duration;

use super::{
    super::{Commands, Error, rooms::check_ttl},
    Names, refusal,
};
use crate::auth::Caller;
use crate::delivery::Deletion;
use crate::message::{DirectMessage, MessageId, RoomName, UserId};
use crate::messages::{self, Messages, SendMessage, Sent};
use crate::store::{Before, Conversation, DirectPage, Of};
use crate::telemetry::audit;

/// What backends call fields.
const OF_BACKENDS: Names = Names {
    receiver: "receiver_id",
    content: "content",
    peer: "peer_id",
    offset: "offset",
    client_message_id: "client_message_id",
};

fn refused(error: messages::Error) -> Error {
    refusal(error, &OF_BACKENDS)
}

/// What was deleted of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Direct messages.
    pub direct: u64,
    /// Other messages of the user's mailbox.
    pub mailbox: u64,
}

impl Commands {
    /// Direct messages, for a backend that may act for these users.
    fn messages_of(&self, caller: &Caller, users: &[&UserId]) -> Result<&Messages, Error> {
        users.iter().try_for_each(|user| caller.may_act_for(user))?;
        self.messages()
    }

    /// Sends a message as any user. It needs no grant; a block holds. Runs to completion even if the caller disconnects.
    pub async fn send_message(&self, caller: &Caller, send: SendMessage) -> Result<Sent, Error> {
        let messages = self.messages_of(caller, &[&send.sender])?.clone();
        self.count_emits(caller, 1)?;
        let api_key = caller.name.clone();
        let sending = async move {
            let done = messages.send(send, None).await.map_err(refused)?;
            let DirectMessage { id, sender, receiver, .. } = &*done.message;
            audit::message_sent(&api_key, (sender, receiver), id, done.is_repeated);
            Ok(done)
        };
        self.lifecycle.detach(sending).await
    }

    /// The conversations of a user.
    pub async fn list_conversations(
        &self,
        caller: &Caller,
        user: &UserId,
        limit: u32,
        before: Before,
    ) -> Result<Vec<Conversation>, Error> {
        self.messages_of(caller, &[user])?.conversations(user, limit, before).await.map_err(refused)
    }

    /// Messages that a user has sent or received.
    pub async fn list_direct(
        &self,
        caller: &Caller,
        user: &UserId,
        of: &Of,
        page: DirectPage,
    ) -> Result<Vec<DirectMessage>, Error> {
        self.messages_of(caller, &[user])?.list(user, of, page).await.map_err(refused)
    }

    /// Marks messages as read by a user.
    pub async fn read_direct(&self, caller: &Caller, user: &UserId, ids: &[MessageId]) -> Result<u64, Error> {
        self.messages_of(caller, &[user])?.read(user, ids, None).await.map_err(refused)
    }

    /// The same of all of a conversation.
    pub async fn read_conversation(&self, caller: &Caller, user: &UserId, peer: &UserId) -> Result<u64, Error> {
        self.messages_of(caller, &[user])?.read_conversation(user, peer, None).await.map_err(refused)
    }

    /// Deletes a message of a user. Runs to completion even if the caller disconnects.
    pub async fn delete_direct(&self, caller: &Caller, user: &UserId, id: MessageId) -> Result<(), Error> {
        let messages = self.messages_of(caller, &[user])?.clone();
        let (api_key, user) = (caller.name.clone(), user.clone());
        let deleting = async move {
            messages.delete(&user, id, None).await.map_err(refused)?;
            audit::message_deleted(&api_key, &user, &id);
            Ok(())
        };
        self.lifecycle.detach(deleting).await
    }

    /// Deletes all conversations of a user, and the user's mailbox. If it fails, a part may be deleted. Runs to completion even if the caller
    /// disconnects.
    pub async fn erase_user(&self, caller: &Caller, user: &UserId) -> Result<Erased, Error> {
        let messages = self.messages_of(caller, &[user])?.clone();
        let (api_key, user, delivery) = (caller.name.clone(), user.clone(), self.delivery.clone());
        let erasing = async move {
            let direct = messages.erase(&user).await.map_err(refused)?;
            let mailbox = delivery.delete_messages(&RoomName::of_user(&user), Deletion::All).await?;
            audit::user_erased(&api_key, &user, direct, mailbox);
            Ok(Erased { direct, mailbox })
        };
        self.lifecycle.detach(erasing).await
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
        messages.allow(user, peer, ttl).await.map_err(refused)
    }

    /// Has a user block another one, or not any more.
    pub async fn block_user(
        &self,
        caller: &Caller,
        (user, peer): (&UserId, &UserId),
        is_blocked: bool,
    ) -> Result<(), Error> {
        self.messages_of(caller, &[user])?.block(user, peer, is_blocked).await.map_err(refused)
    }
}
