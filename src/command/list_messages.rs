use super::{
    Commands, DeviceRefused, Error,
    mailbox::{number, reader},
};
use crate::auth::{Caller, Right};
use crate::message::{LogEntry, Position, RoomName, UserId};
use crate::store::{Listed, Reader, Window};

/// Which messages of a mailbox to list.
#[derive(Clone, Debug)]
pub struct ListMessages {
    /// Those after this position; none: from the first one.
    pub since: Option<Position>,
    /// Only what was not read.
    pub unread_only: bool,
    /// So many at most.
    pub page_size: usize,
    /// Where the page before ended.
    pub page_token: Option<Position>,
}

/// Some messages of a mailbox, ordered by position.
#[derive(Debug)]
pub struct MessagePage {
    /// The messages.
    pub messages: Vec<ListedMessage>,
    /// Where this page ended, if more follow.
    pub next: Option<Position>,
}

/// A message in a list.
#[derive(Debug)]
pub struct ListedMessage {
    /// The message.
    pub message: LogEntry,
    /// Its place in its room.
    pub position: Position,
    /// Whether it was read; none: nobody's read state was asked for.
    pub is_read: Option<bool>,
}

impl Commands {
    /// A page of a mailbox. `user`: whose read state counts, and who sees only what is for them.
    pub async fn list_messages(
        &self,
        caller: &Caller,
        room: &RoomName,
        user: Option<&UserId>,
        command: &ListMessages,
    ) -> Result<MessagePage, Error> {
        caller.may(Right::Mailbox)?;
        let user = reader(room, user)?;
        if user.is_none() && command.unread_only {
            return Err(Error::invalid(
                "unread_only",
                "wants a user_id: in this room each user has read other messages",
            ));
        }
        self.page_of(room, user, command).await
    }

    /// The same for a device, in one of its token's rooms; without a room, in its user's.
    pub async fn device_messages(
        &self,
        token: Option<&str>,
        room: Option<&str>,
        command: &ListMessages,
    ) -> Result<MessagePage, DeviceRefused> {
        let (identity, room) = self.identify_device_in(token, room)?;
        Ok(self.page_of(&room, Some(identity.user), command).await?)
    }

    async fn page_of(
        &self,
        room: &RoomName,
        user: Option<UserId>,
        command: &ListMessages,
    ) -> Result<MessagePage, Error> {
        let store = self.mailboxes()?;
        let ListMessages { since, unread_only, page_size, page_token } = command;
        let mut after = 0;
        for (field, position) in [("since", since), ("page_token", page_token)] {
            if let Some(position) = position {
                after = after.max(number(store, field, position).await?);
            }
        }
        let window = Window { after, max: u32::try_from(*page_size).unwrap_or(u32::MAX) };
        let reader = user.map(|user| Reader { user, unread_only: *unread_only });
        let (listed, more) = store.list(room, window, reader.as_ref()).await?;
        let begin = store.position(0).await?;
        let messages = listed.into_iter().map(|Listed { message, is_read }| {
            let position = Position::new(begin.epoch.clone(), message.number);
            ListedMessage { message, position, is_read }
        });
        let messages: Vec<_> = messages.collect();
        let next = messages.last().filter(|_| more).map(|last| last.position.clone());
        Ok(MessagePage { messages, next })
    }
}
