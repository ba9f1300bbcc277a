use super::{
    Error, Messages, time_text,
    wire::{ReadBody, payload},
};
use crate::message::{ConnectionId, MessageId, RoomName, UserId};
use crate::store::{ReadOutcome, Sides};

impl Messages {
    /// Marks messages as read that a user has received, and tells the devices of both sides. Returns how many were unread. Fails if the user has
    /// received none of them. Runs to completion even if the caller disconnects.
    pub async fn read(&self, user: &UserId, ids: &[MessageId], connection: Option<ConnectionId>) -> Result<u64, Error> {
        let (messages, user, ids) = (self.clone(), user.clone(), ids.to_vec());
        self.inner.lifecycle.detach(async move { messages.read_now(&user, &ids, connection).await }).await
    }

    async fn read_now(&self, user: &UserId, ids: &[MessageId], connection: Option<ConnectionId>) -> Result<u64, Error> {
        let outcomes = self.inner.store.read_direct(user, ids).await?;
        if outcomes.is_empty() {
            self.check_received(user, ids).await?;
        }
        let mut count = 0;
        for outcome in outcomes {
            count += outcome.ids.len() as u64;
            self.tell_read(user, outcome, connection).await;
        }
        self.tell_unread(user, count).await;
        Ok(count)
    }

    /// The same of a whole conversation.
    pub async fn read_conversation(
        &self,
        user: &UserId,
        peer: &UserId,
        connection: Option<ConnectionId>,
    ) -> Result<u64, Error> {
        let (messages, user, peer) = (self.clone(), user.clone(), peer.clone());
        let reading = async move { messages.read_conversation_now(&user, &peer, connection).await };
        self.inner.lifecycle.detach(reading).await
    }

    async fn read_conversation_now(
        &self,
        user: &UserId,
        peer: &UserId,
        connection: Option<ConnectionId>,
    ) -> Result<u64, Error> {
        let mut count = 0;
        while let Some(outcome) = self.inner.store.read_conversation(user, peer).await? {
            count += outcome.ids.len() as u64;
            self.tell_read(user, outcome, connection).await;
        }
        self.tell_unread(user, count).await;
        Ok(count)
    }

    /// All of the messages were read before, or are not for the user.
    async fn check_received(&self, user: &UserId, ids: &[MessageId]) -> Result<(), Error> {
        match self.inner.store.sides_of(user, ids).await? {
            Sides { received: true, .. } => Ok(()),
            Sides { sent: true, .. } => {
                Err(Error::Denied("the user has sent this message: its receiver marks it as read"))
            }
            Sides { .. } => Err(Error::NotFound("there is no such message, or the user has not received it")),
        }
    }

    async fn tell_read(&self, reader: &UserId, outcome: ReadOutcome, connection: Option<ConnectionId>) {
        let ReadOutcome { sender, ids, read_at_ms } = outcome;
        let message_ids = ids.iter().map(ToString::to_string).collect();
        let body = ReadBody { message_ids, reader_id: reader.as_str(), read_at: time_text(read_at_ms) };
        let payload = payload(&body);
        self.tell(&sender, &self.inner.events.read, payload.clone(), None).await;
        self.tell(reader, &self.inner.events.read, payload, connection).await;
    }

    /// Their entries in the user's mailbox are read, too.
    async fn tell_unread(&self, user: &UserId, count: u64) {
        if count > 0 {
            self.inner.delivery.tell_count(&RoomName::of_user(user), user).await;
        }
    }
}
