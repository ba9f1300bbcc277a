use std::time::Duration;

use super::{Commands, Error, Violation};
use crate::auth::{Caller, Right};
use crate::message::{RoomName, UserId};

/// Puts a user into a room.
#[derive(Clone, Debug)]
pub struct JoinRoom {
    /// Who.
    pub user: UserId,
    /// Where to.
    pub room: RoomName,
    /// For how long later connections join too.
    pub ttl: Duration,
}

impl JoinRoom {
    /// When the caller does not say.
    pub const DEFAULT_TTL: Duration = Duration::from_hours(24);
    const SHORTEST_TTL: Duration = Duration::from_secs(1);
    const LONGEST_TTL: Duration = Duration::from_hours(30 * 24);
}

impl Commands {
    /// Puts a user into a room, and says how many connections joined.
    pub async fn join_room(&self, caller: &Caller, command: &JoinRoom) -> Result<usize, Error> {
        caller.may(Right::Rooms)?;
        not_reserved(&command.room)?;
        if !(JoinRoom::SHORTEST_TTL..=JoinRoom::LONGEST_TTL).contains(&command.ttl) {
            return Err(Error::invalid("ttl", "must be between 1 second and 30 days"));
        }
        Ok(self.delivery.join_user(&command.user, &command.room, command.ttl).await?)
    }
}

/// Refuses the rooms whose members Bugle alone decides on.
pub(super) fn not_reserved(room: &RoomName) -> Result<(), Violation> {
    if room.is_reserved() {
        let description =
            "is one of Bugle's own rooms (`user:…`, `role:…`, `everyone`): nobody is put into or taken out of those";
        return Err(Violation::new("room", description));
    }
    Ok(())
}
