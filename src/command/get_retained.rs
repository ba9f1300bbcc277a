use super::{Commands, DeviceRefused, Error};
use crate::auth::{Caller, Right};
use crate::delivery::RetainedValue;
use crate::message::{EventName, Payload, RoomName};

fn nothing() -> Error {
    Error::NotFound("nothing is retained for this event in this room".into())
}

impl Commands {
    /// The last payload of an event that is retained in a room.
    pub fn get_retained(&self, caller: &Caller, room: &RoomName, event: &EventName) -> Result<Payload, Error> {
        caller.may(Right::Mailbox)?;
        let value = self.delivery.retained(room, event.as_str());
        Ok(value.ok_or_else(nothing)?.payload)
    }

    /// The same for a device, in one of its token's rooms; without a room, in its user's.
    pub fn device_retained(
        &self,
        token: Option<&str>,
        room: Option<&str>,
        event: &str,
    ) -> Result<Payload, DeviceRefused> {
        let (identity, room) = self.identify_device_in(token, room)?;
        let value = self.delivery.retained(&room, event).filter(|value| !value.except_users.contains(&identity.user));
        Ok(value.ok_or_else(nothing)?.payload)
    }

    /// All that is retained in the rooms of a device's token, ordered by room and event.
    pub fn device_retained_all(
        &self,
        token: Option<&str>,
    ) -> Result<Vec<(RoomName, EventName, Payload)>, DeviceRefused> {
        let identity = self.identify_device(token)?;
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
