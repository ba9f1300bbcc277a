use super::{Commands, Error, join_room::not_reserved};
use crate::auth::{Caller, Right};
use crate::message::{RoomName, UserId};

impl Commands {
    /// Takes a user out of a room, and says how many connections left.
    pub fn leave_room(&self, caller: &Caller, user: &UserId, room: &RoomName) -> Result<usize, Error> {
        caller.may(Right::Rooms)?;
        not_reserved(room)?;
        Ok(self.delivery.leave_user(user, room))
    }
}
