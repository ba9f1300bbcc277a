use super::{Commands, Error, join_room::not_reserved};
use crate::auth::{Caller, Right};
use crate::message::{RoomName, UserId};

impl Commands {
    /// Takes the right to join a room back, and says how many connections left the room.
    pub fn forbid_room(&self, caller: &Caller, user: &UserId, room: &RoomName) -> Result<usize, Error> {
        caller.may(Right::Rooms)?;
        not_reserved(room)?;
        Ok(self.delivery.forbid_user(user, room))
    }
}
