use super::{Commands, Error, Page, RoomUsers};
use crate::auth::{Caller, Right};
use crate::message::RoomName;

impl Commands {
    /// The rooms whose names begin with `prefix`, ordered by name, from the first one after `after`.
    pub fn list_rooms(&self, caller: &Caller, prefix: &str, after: &str, size: usize) -> Result<Page<RoomName>, Error> {
        caller.may(Right::Rooms)?;
        Ok(self.delivery.list_rooms(prefix, after, size))
    }

    /// The users in a room, ordered by id, from the first one after `after`.
    pub fn get_room(&self, caller: &Caller, room: &RoomName, after: &str, size: usize) -> Result<RoomUsers, Error> {
        caller.may(Right::Rooms)?;
        let users = self.delivery.list_room(room, after, size);
        users.ok_or_else(|| Error::NotFound("nobody is in this room".into()))
    }
}
