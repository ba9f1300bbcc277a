use std::{sync::Arc, time::Duration};

use super::{Delivery, memberships::taken};
use crate::cluster::{BusError, Frame, Shards};
use crate::message::{OfNodes, RoomName, UserId};
use crate::state::{PutError, SharedUserRooms, UserRooms};

/// Rights to join rooms by `AllowRoom`.
pub(super) enum Grants {
    Here(UserRooms),
    Shared(SharedUserRooms),
}

/// The rooms that a user may join by `AllowRoom`, as they were at one moment.
#[derive(Clone, Debug, Default)]
pub struct Granted(Vec<RoomName>);

impl Granted {
    /// Whether a room is among them.
    pub fn has(&self, room: &RoomName) -> bool {
        self.0.contains(room)
    }
}

impl Grants {
    pub(super) fn new(max_entries: usize, engines: Option<&Shards>) -> Self {
        match engines {
            None => Self::Here(UserRooms::new(max_entries)),
            Some(engines) => Self::Shared(SharedUserRooms::new(engines.clone(), "g", max_entries)),
        }
    }

    /// Forgets what has ended. True if more may be left.
    pub(super) async fn sweep(&self) -> bool {
        match self {
            // A user who has used the right to join a room stays: what has ended is the right.
            Self::Here(grants) => !grants.sweep().is_empty(),
            Self::Shared(grants) => matches!(grants.sweep().await, Ok(true)),
        }
    }

    /// Takes a right back at the engine, and has all nodes take the user's connections out of the room. `None`: this node is alone, and the
    /// right is taken back.
    pub(super) async fn take_across(
        &self,
        delivery: &Delivery,
        user: &UserId,
        room: &RoomName,
    ) -> Option<Result<OfNodes<usize>, BusError>> {
        let grants = match self {
            Self::Here(grants) => {
                grants.take(user, room);
                return None;
            }
            Self::Shared(grants) => grants,
        };
        let cluster = delivery.cluster()?;
        let frame = Frame::Forbid(user.clone(), room.clone());
        let take = |start: &[u8], rest: &[u8], channel: &str| grants.take_command(user, room, (channel, start, rest));
        Some(taken(delivery.count_by(cluster.publish_by(&frame, take)).await))
    }

    /// Whether a right was given back, as far as is known here.
    pub(super) fn has_here(&self, user: &UserId, room: &RoomName) -> bool {
        matches!(self, Self::Here(grants) if grants.has(user, room))
    }
}

impl Delivery {
    /// Gives a user the right to join a room, for an API key and for `ttl`.
    pub async fn allow_user(
        &self,
        caller: &Arc<str>,
        user: &UserId,
        room: &RoomName,
        ttl: Duration,
    ) -> Result<(), PutError> {
        match &self.inner.grants {
            Grants::Here(grants) => grants.put(caller, user, room, ttl).map_err(PutError::TooMany),
            Grants::Shared(grants) => grants.put(caller, user, room, ttl).await,
        }
    }

    /// Whether a backend has given a user the right to join a room. While the engine is away, it has not.
    pub async fn is_allowed(&self, user: &UserId, room: &RoomName) -> bool {
        match &self.inner.grants {
            Grants::Here(grants) => grants.has(user, room),
            Grants::Shared(grants) => grants.has(user, room).await.unwrap_or(false),
        }
    }

    /// The rooms that a user has the right to join. While the engine is away, none.
    pub async fn granted(&self, user: &UserId) -> Granted {
        match &self.inner.grants {
            Grants::Here(grants) => Granted(grants.rooms(user)),
            Grants::Shared(grants) => {
                let rooms = grants.rooms(user).await.unwrap_or_default();
                Granted(rooms.into_iter().map(|(room, _)| room).collect())
            }
        }
    }
}
