use std::time::Duration;

use super::{Commands, Error, Violation};
use crate::auth::{Caller, Right};
use crate::delivery::PutError;
use crate::message::{OfNodes, Page, RoomName, RoomUsers, UserId};

/// Puts a user into a room.
#[derive(Clone, Debug)]
pub struct JoinRoom {
    /// Who.
    pub user: UserId,
    /// Where to.
    pub room: RoomName,
    /// For how long: for the connections of now and later ones.
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
    pub async fn join_room(&self, caller: &Caller, command: &JoinRoom) -> Result<OfNodes<usize>, Error> {
        caller.may(Right::Rooms)?;
        not_reserved(&command.room)?;
        check_ttl(command.ttl)?;
        let joined = self.delivery.join_user(&caller.name, &command.user, &command.room, command.ttl).await;
        joined.map_err(|refused| not_put("limits.memberships", refused))
    }
}

/// Refuses times that are too short or too long to be meant.
pub(super) fn check_ttl(ttl: Duration) -> Result<(), Violation> {
    if (JoinRoom::SHORTEST_TTL..=JoinRoom::LONGEST_TTL).contains(&ttl) {
        return Ok(());
    }
    Err(Violation::new("ttl", "must be between 1 second and 30 days"))
}

/// Why a user and a room were not put together. `key` of the configuration limits how many are.
fn not_put(key: &str, refused: PutError) -> Error {
    match refused {
        PutError::Bus(error) => error.into(),
        PutError::TooMany(too_many) => Error::ResourceExhausted {
            message: format!("{key} is met, or the user's 1,000 rooms are: no more until some are given up or end"),
            retry_after: too_many.retry_after,
        },
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

impl Commands {
    /// Ends a `JoinRoom`, and says how many connections left: those that are in the room for another reason stay.
    pub async fn leave_room(&self, caller: &Caller, user: &UserId, room: &RoomName) -> Result<OfNodes<usize>, Error> {
        caller.may(Right::Rooms)?;
        not_reserved(room)?;
        Ok(self.delivery.leave_user(user, room).await?)
    }
}

impl Commands {
    /// Gives a user the right to join a room by an event of their device.
    pub async fn allow_room(&self, caller: &Caller, command: &JoinRoom) -> Result<(), Error> {
        caller.may(Right::Rooms)?;
        not_reserved(&command.room)?;
        check_ttl(command.ttl)?;
        let allowed = self.delivery.allow_user(&caller.name, &command.user, &command.room, command.ttl).await;
        allowed.map_err(|refused| not_put("limits.grants", refused))
    }
}

impl Commands {
    /// Takes the right to join a room back, ends what client events joined there, and says how many connections left.
    pub async fn forbid_room(&self, caller: &Caller, user: &UserId, room: &RoomName) -> Result<OfNodes<usize>, Error> {
        caller.may(Right::Rooms)?;
        not_reserved(room)?;
        Ok(self.delivery.forbid_user(user, room).await?)
    }
}

impl Commands {
    /// The rooms whose names begin with `prefix`, ordered by name, from the first one after `after`.
    pub async fn list_rooms(
        &self,
        caller: &Caller,
        prefix: &str,
        after: &str,
        size: usize,
    ) -> Result<OfNodes<Page<RoomName>>, Error> {
        caller.may(Right::Rooms)?;
        Ok(self.delivery.list_rooms(prefix, after, size).await?)
    }

    /// The users in a room, ordered by id, from the first one after `after`.
    pub async fn get_room(
        &self,
        caller: &Caller,
        room: &RoomName,
        after: &str,
        size: usize,
    ) -> Result<OfNodes<RoomUsers>, Error> {
        caller.may(Right::Rooms)?;
        let OfNodes { answer, nodes, partial } = self.delivery.list_room(room, after, size).await?;
        match answer {
            Some(answer) => Ok(OfNodes { answer, nodes, partial }),
            None if partial => Err(Error::Unavailable(
                "some node did not answer, and the others have nobody in this room: ask again".into(),
            )),
            None => Err(Error::NotFound("nobody is in this room".into())),
        }
    }
}
