use super::{
    Commands, Error, JoinRoom,
    join_room::{check_ttl, full, not_reserved},
};
use crate::auth::{Caller, Right};

impl Commands {
    /// Gives a user the right to join a room by an event of their device.
    pub fn allow_room(&self, caller: &Caller, command: &JoinRoom) -> Result<(), Error> {
        caller.may(Right::Rooms)?;
        not_reserved(&command.room)?;
        check_ttl(command.ttl)?;
        let allowed = self.delivery.allow_user(&command.user, &command.room, command.ttl);
        allowed.map_err(|too_many| full("limits.grants", &too_many))
    }
}
