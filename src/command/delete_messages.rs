use super::{Commands, Error, mailbox::number};
use crate::auth::{Caller, Right};
use crate::delivery::Deletion;
use crate::message::{MessageId, Position, RoomName};

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
            DeleteMessages::UpTo(position) => Deletion::UpTo(number(store, "up_to", &position).await?),
            DeleteMessages::All => Deletion::All,
        };
        Ok(self.delivery.delete_messages(store, room, deletion).await?)
    }
}
