use super::{Commands, Error};
use crate::auth::{Identity, TokenRefused};
use crate::message::RoomName;

/// Why a device does not get what it asks for over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRefused {
    /// Its token is no good.
    #[error("{0}")]
    Token(TokenRefused),
    /// The room is not one of the token's.
    #[error("this room is not one of the token's")]
    NotYourRoom,
    /// What it asks for is wrong, not there, or cannot be had now: as a backend would be told.
    #[error("{0}")]
    Error(Error),
}

impl From<TokenRefused> for DeviceRefused {
    fn from(refused: TokenRefused) -> Self {
        Self::Token(refused)
    }
}

impl From<Error> for DeviceRefused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Commands {
    /// Who a device is, and which of its token's rooms it means; without a room, its user's.
    pub(super) fn identify_device_in(
        &self,
        token: Option<&str>,
        room: Option<&str>,
    ) -> Result<(Identity, RoomName), DeviceRefused> {
        let identity = self.identify_device(token)?;
        let rooms = self.delivery.rooms_of(&identity.user, &identity.rooms);
        let room = match room {
            None => RoomName::of_user(&identity.user),
            Some(name) => rooms.into_iter().find(|room| room.as_str() == name).ok_or(DeviceRefused::NotYourRoom)?,
        };
        Ok((identity, room))
    }
}
