use super::{Commands, DeviceRefused, Error, mailbox::needed_reader};
use crate::auth::{Caller, Right};
use crate::message::{RoomName, UserId};

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
        let (identity, room) = self.identify_device_in(token, room)?;
        let count = self.mailboxes()?.count_unread(&room, &identity.user).await.map_err(Error::from)?;
        Ok((room, count))
    }
}
