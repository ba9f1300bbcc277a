use crate::cluster::Shards;
use crate::message::{RoomName, UserId};
use crate::state::{SharedUserRooms, UserRooms};

/// Rights to join rooms by `AllowRoom`.
pub(super) enum Grants {
    Here(UserRooms),
    Shared(SharedUserRooms),
}

/// The rooms that a user may join by `AllowRoom`, as they were at one moment.
#[derive(Clone, Debug, Default)]
pub struct Granted(pub(super) Vec<RoomName>);

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

    /// Whether a right was given back, as far as is known here.
    pub(super) fn has_here(&self, user: &UserId, room: &RoomName) -> bool {
        matches!(self, Self::Here(grants) if grants.has(user, room))
    }
}
