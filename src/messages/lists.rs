use super::{Error, Field, MAX_OFFSET, MAX_PAGE, Messages};
use crate::message::{DirectMessage, RoomName, UserId};
use crate::store::{Before, Conversation, DirectPage, Of};

const NO_MESSAGE: &str = "there is no such message, or the user is neither its sender nor its receiver";

impl Messages {
    /// A user's conversations, the one with the newest message first.
    pub async fn conversations(&self, user: &UserId, limit: u32, before: Before) -> Result<Vec<Conversation>, Error> {
        let conversations = self.inner.store.conversations(user, limit.min(MAX_PAGE), before).await?;
        conversations.ok_or(Error::NotFound(NO_MESSAGE))
    }

    /// Messages that a user has sent or received, the newest first.
    pub async fn list(&self, user: &UserId, of: &Of, page: DirectPage) -> Result<Vec<DirectMessage>, Error> {
        if page.offset > MAX_OFFSET {
            let problem =
                format!("is more than {MAX_OFFSET}: give the id of the last message of the page before as `before`");
            return Err(Error::invalid(Field::Offset, problem));
        }
        let page = DirectPage { limit: page.limit.min(MAX_PAGE), ..page };
        self.inner.store.direct_messages(user, of, page).await?.ok_or(Error::NotFound(NO_MESSAGE))
    }

    /// How many messages a user has not read.
    pub async fn count_unread(&self, user: &UserId) -> Result<u64, Error> {
        Ok(self.inner.store.count_unread_direct(user).await?)
    }

    /// The room that a user must have a right to in order to name what a list or a message is about. `None`: none.
    pub fn room_of(&self, of: &Of) -> Result<Option<RoomName>, Error> {
        let (template, id) = match of {
            Of::Peer(_) => return Ok(None),
            Of::Transaction(id) => (&self.config().transaction_room, id),
            Of::Listing(id) => (&self.config().listing_room, id),
        };
        if template.is_empty() {
            return Ok(None);
        }
        super::config::room_of(template, id).map(Some).ok_or(Error::Denied("the id is no part of a room's name"))
    }
}
