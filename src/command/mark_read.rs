use super::{
    Commands, DeviceRefused, Error,
    mailbox::{needed_reader, number},
};
use crate::auth::{Caller, Right};
use crate::message::{MessageId, Position, RoomName, UserId};
use crate::store::Which;

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
        let (identity, room) = self.identify_device_in(token, room)?;
        let count = self.note_read(&room, &identity.user, command).await?;
        Ok((room, count))
    }

    async fn note_read(&self, room: &RoomName, user: &UserId, command: MarkRead) -> Result<u64, Error> {
        let store = self.mailboxes()?;
        let which = match command {
            MarkRead::Message(id) => Which::Message(id),
            MarkRead::UpTo { field, position } => Which::UpTo(number(store, field, &position).await?),
            MarkRead::All => Which::ALL,
        };
        let left = self.delivery.mark_read(store, room, user, which).await?;
        left.ok_or_else(|| Error::NotFound("there is no such message for this user in this room".into()))
    }
}
