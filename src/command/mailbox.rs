use super::{Commands, DeviceRefused, Error, Violation};
use crate::auth::{Caller, Right};
use crate::delivery::{Deletion, RetainedValue};
use crate::message::{EventName, LogEntry, MessageId, Payload, Position, RoomName, UserId};
use crate::store::{self, Listed, Reader, Store, Which, Window};

impl Commands {
    /// What mailboxes are in.
    pub(super) fn mailboxes(&self) -> Result<&Store, Error> {
        let missing = || Error::FailedPrecondition("there are no mailboxes here, since store.url is empty".into());
        self.store.as_ref().ok_or_else(missing)
    }
}

/// Whatever is asked of mailboxes comes to the same when it is asked twice.
impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Broken(_) | store::Error::Damaged(_) | store::Error::Violated(_) => {
                Self::Unavailable(error.to_string())
            }
            store::Error::Url
            | store::Error::NotShared
            | store::Error::Unavailable(_)
            | store::Error::Unreachable
            | store::Error::Refused(_)
            | store::Error::Closed => Self::Unavailable(
                "the store cannot be reached, and what was asked for may be done or not: it is safe to ask again"
                    .into(),
            ),
        }
    }
}

/// The number of a position, which must be one of this store's.
pub(super) async fn number(
    store: &Store,
    field: &'static str,
    room: &RoomName,
    position: &Position,
) -> Result<u64, Error> {
    if store.stands(room, position).await? {
        return Ok(position.number);
    }
    Err(Error::invalid(
        field,
        "is no position of this mailbox: it is of another store, of a room's history, or of before a backup was restored",
    ))
}

/// Whose read state counts in a mailbox, if anybody's: in a user's own it is the owner's.
pub(super) fn reader(room: &RoomName, user: Option<&UserId>) -> Result<Option<UserId>, Error> {
    match (room.user(), user) {
        (Some(owner), Some(user)) if owner != user.as_str() => {
            Err(Error::invalid("user_id", "is not whose room this is: leave it empty, or name the room's own user"))
        }
        (Some(owner), None) => UserId::new(owner).map(Some).map_err(|invalid| Violation::of("room", &invalid).into()),
        (Some(_) | None, user) => Ok(user.cloned()),
    }
}

/// The same, where there must be one.
pub(super) fn needed_reader(room: &RoomName, user: Option<&UserId>) -> Result<UserId, Error> {
    reader(room, user)?
        .ok_or_else(|| Error::invalid("user_id", "is empty: in this room each user has read other messages"))
}

/// Which messages of a mailbox to list.
#[derive(Clone, Debug)]
pub struct ListMessages {
    /// Those after this position; none: from the first one.
    pub since: Option<Position>,
    /// Only what was not read.
    pub unread_only: bool,
    /// The most messages of a page.
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
        let (identity, room) = self.identify_device_in(token, room).await?;
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
                after = after.max(number(store, field, room, position).await?);
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

impl Commands {
    /// How many messages of a mailbox a user has not read.
    pub async fn count_unread(&self, caller: &Caller, room: &RoomName, user: Option<&UserId>) -> Result<u64, Error> {
        caller.may(Right::Mailbox)?;
        let user = needed_reader(room, user)?;
        Ok(self.mailboxes()?.count_unread(room, &user).await?)
    }

    /// The same for a device, in one of its token's rooms; without a room, in its user's. Says which room that is.
    pub async fn device_unread(
        &self,
        token: Option<&str>,
        room: Option<&str>,
    ) -> Result<(RoomName, u64), DeviceRefused> {
        let (identity, room) = self.identify_device_in(token, room).await?;
        let count = self.mailboxes()?.count_unread(&room, &identity.user).await.map_err(Error::from)?;
        Ok((room, count))
    }
}

/// Which messages of a mailbox a user has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkRead {
    /// This one.
    Message(MessageId),
    /// Those up to this position, this one included.
    UpTo {
        /// What the caller calls it.
        field: &'static str,
        /// The position.
        position: Position,
    },
    /// All that there are.
    All,
}

impl Commands {
    /// Notes what a user has read. Says how many messages are left unread.
    pub async fn mark_read(
        &self,
        caller: &Caller,
        room: &RoomName,
        user: Option<&UserId>,
        command: MarkRead,
    ) -> Result<u64, Error> {
        caller.may(Right::Mailbox)?;
        let user = needed_reader(room, user)?;
        self.note_read(room, &user, command).await
    }

    /// The same for a device, in one of its token's rooms; without a room, in its user's. Says which room that is.
    pub async fn device_reads(
        &self,
        token: Option<&str>,
        room: Option<&str>,
        command: MarkRead,
    ) -> Result<(RoomName, u64), DeviceRefused> {
        let (identity, room) = self.identify_device_in(token, room).await?;
        let count = self.note_read(&room, &identity.user, command).await?;
        Ok((room, count))
    }

    async fn note_read(&self, room: &RoomName, user: &UserId, command: MarkRead) -> Result<u64, Error> {
        let store = self.mailboxes()?;
        let which = match command {
            MarkRead::Message(id) => Which::Message(id),
            MarkRead::UpTo { field, position } => Which::UpTo(number(store, field, room, &position).await?),
            MarkRead::All => Which::ALL,
        };
        let left = self.delivery.mark_read(room, user, which).await?;
        left.ok_or_else(|| Error::NotFound("there is no such message for this user in this room".into()))
    }
}

/// Which messages of a mailbox to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteMessages {
    /// These, as far as they are there.
    Messages(Vec<MessageId>),
    /// Those up to this position, this one included.
    UpTo(Position),
    /// All that there are.
    All,
}

impl Commands {
    /// Deletes messages of a mailbox, for everybody. Says how many.
    pub async fn delete_messages(
        &self,
        caller: &Caller,
        room: &RoomName,
        command: DeleteMessages,
    ) -> Result<u64, Error> {
        caller.may(Right::Mailbox)?;
        let store = self.mailboxes()?;
        let deletion = match command {
            DeleteMessages::Messages(ids) => Deletion::Messages(ids),
            DeleteMessages::UpTo(position) => Deletion::UpTo(number(store, "up_to", room, &position).await?),
            DeleteMessages::All => Deletion::All,
        };
        Ok(self.delivery.delete_messages(room, deletion).await?)
    }
}

fn nothing() -> Error {
    Error::NotFound("nothing is retained for this event in this room".into())
}

impl Commands {
    /// The last payload of an event that is retained in a room.
    pub async fn get_retained(&self, caller: &Caller, room: &RoomName, event: &EventName) -> Result<Payload, Error> {
        caller.may(Right::Mailbox)?;
        let value = self.delivery.retained(room, event.as_str()).await?;
        Ok(value.ok_or_else(nothing)?.payload)
    }

    /// The same for a device, in one of its token's rooms; without a room, in its user's.
    pub async fn device_retained(
        &self,
        token: Option<&str>,
        room: Option<&str>,
        event: &str,
    ) -> Result<Payload, DeviceRefused> {
        let (identity, room) = self.identify_device_in(token, room).await?;
        let value = self.delivery.retained(&room, event).await.map_err(Error::from)?;
        let value = value.filter(|value| !value.except_users.contains(&identity.user));
        Ok(value.ok_or_else(nothing)?.payload)
    }

    /// All that is retained in the rooms of a device's token, ordered by room and event.
    pub async fn device_retained_all(
        &self,
        token: Option<&str>,
    ) -> Result<Vec<(RoomName, EventName, Payload)>, DeviceRefused> {
        let identity = self.identify_device(token)?;
        let mut rooms = self.delivery.rooms_of(&identity.user, &identity.rooms).await;
        rooms.sort();
        let is_for = |value: &RetainedValue| !value.except_users.contains(&identity.user);
        let mut all = Vec::new();
        for room in rooms {
            let values = self.delivery.retained_in(&room).await.map_err(Error::from)?;
            let values = values.into_iter().filter(|(_, value)| is_for(value));
            all.extend(values.map(|(event, value)| (room.clone(), event, value.payload)));
        }
        Ok(all)
    }
}
