use std::{sync::Arc, time::Duration};

use super::{
    Delivery,
    grants::{Granted, Grants},
    rooms_across::taken,
};
use crate::cluster::{BusError, Frame};
use crate::message::{OfNodes, RoomName, UserId};
use crate::state::PutError;

impl Delivery {
    /// Takes a right back at the engine, and has all nodes take the user's connections out of the room. `None`: this node is alone, and the
    /// right is taken back.
    pub(super) async fn forbid_across(
        &self,
        user: &UserId,
        room: &RoomName,
    ) -> Option<Result<OfNodes<usize>, BusError>> {
        let grants = match &self.inner.grants {
            Grants::Here(grants) => {
                grants.take(user, room);
                return None;
            }
            Grants::Shared(grants) => grants,
        };
        let cluster = self.cluster()?;
        let frame = Frame::Forbid(user.clone(), room.clone());
        let take = |start: &[u8], rest: &[u8], channel: &str| grants.take_command(user, room, (channel, start, rest));
        Some(taken(self.count_by(cluster.publish_by(&frame, take)).await))
    }

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
