use super::{Commands, Error};
use crate::auth::{Caller, Right, TokenRefused};
use crate::delivery::RetainedValue;
use crate::message::{EventName, Payload, RoomName};

/// Why a device does not get what is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainedRefused {
    /// Its token is no good.
    #[error("{0}")]
    Token(TokenRefused),
    /// The room is not one of the token's.
    #[error("this room is not one of the token's")]
    NotYourRoom,
    /// There is no such value.
    #[error("nothing is retained for this event in this room")]
    Nothing,
}

impl Commands {
    /// The last payload of an event that is retained in a room.
    pub fn get_retained(&self, caller: &Caller, room: &RoomName, event: &EventName) -> Result<Payload, Error> {
        caller.may(Right::Mailbox)?;
        let value = self.delivery.retained(room, event.as_str());
        let value = value.ok_or_else(|| Error::NotFound("nothing is retained for this event in this room".into()))?;
        Ok(value.payload)
    }

    /// The same for a device, in one of its token's rooms; without a room, in its user's.
    pub fn device_retained(
        &self,
        token: Option<&str>,
        room: Option<&str>,
        event: &str,
    ) -> Result<Payload, RetainedRefused> {
        let identity = self.identify_device(token).map_err(RetainedRefused::Token)?;
        let own = RoomName::of_user(&identity.user);
        let rooms = self.delivery.rooms_of(&identity.user, &identity.rooms);
        let room = match room {
            None => own,
            Some(name) => rooms.into_iter().find(|room| room.as_str() == name).ok_or(RetainedRefused::NotYourRoom)?,
        };
        let value = self.delivery.retained(&room, event).ok_or(RetainedRefused::Nothing)?;
        if value.except_users.contains(&identity.user) { Err(RetainedRefused::Nothing) } else { Ok(value.payload) }
    }

    /// All that is retained in the rooms of a device's token, ordered by room and event.
    pub fn device_retained_all(
        &self,
        token: Option<&str>,
    ) -> Result<Vec<(RoomName, EventName, Payload)>, RetainedRefused> {
        let identity = self.identify_device(token).map_err(RetainedRefused::Token)?;
        let mut rooms = self.delivery.rooms_of(&identity.user, &identity.rooms);
        rooms.sort();
        let is_for = |value: &RetainedValue| !value.except_users.contains(&identity.user);
        let of_room = |room: RoomName| {
            let values = self.delivery.retained_in(&room).into_iter().filter(|(_, value)| is_for(value));
            values.map(|(event, value)| (room.clone(), event, value.payload)).collect::<Vec<_>>()
        };
        Ok(rooms.into_iter().flat_map(of_room).collect())
    }
}
