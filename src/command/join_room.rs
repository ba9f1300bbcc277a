use std::time::Duration;

use super::{Commands, Error, Violation};
use crate::auth::{Caller, Right};
use crate::delivery::TooMany;
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
        check_ttl(command.ttl)?;
        let joined = self.delivery.join_user(&command.user, &command.room, command.ttl).await;
        joined.map_err(|too_many| full("limits.memberships", &too_many))
    }
}

/// Refuses times that are too short or too long to be meant.
pub(super) fn check_ttl(ttl: Duration) -> Result<(), Violation> {
    if (JoinRoom::SHORTEST_TTL..=JoinRoom::LONGEST_TTL).contains(&ttl) {
        return Ok(());
    }
    Err(Violation::new("ttl", "must be between 1 second and 30 days"))
}

/// No more can be kept of what this key of the configuration limits.
pub(super) fn full(key: &str, too_many: &TooMany) -> Error {
    Error::ResourceExhausted {
        message: format!("{key} is met, or the user's 1,000 rooms are: no more until some are given up or end"),
        retry_after: too_many.retry_after,
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
