use super::{Commands, Error, Violation};
use crate::message::{Position, RoomName, UserId};
use crate::store::{self, Store};

impl Commands {
    /// What mailboxes are in.
    pub(super) fn mailboxes(&self) -> Result<&Store, Error> {
        let missing = || Error::FailedPrecondition("there are no mailboxes here, since store.url is empty".into());
        self.delivery.store().ok_or_else(missing)
    }
}

/// Whatever is asked of mailboxes comes to the same when it is asked twice.
impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Broken(_) => Self::Unavailable(error.to_string()),
            store::Error::Url | store::Error::Unavailable(_) | store::Error::Closed => Self::Unavailable(
                "the store cannot be reached, and what was asked for may be done or not: it is safe to ask again"
                    .into(),
            ),
        }
    }
}

/// The number of a position, which must be one of this store's.
pub(super) async fn number(store: &Store, field: &'static str, position: &Position) -> Result<u64, Error> {
    let begin = store.position(0).await?;
    if begin.epoch == position.epoch {
        return Ok(position.number);
    }
    Err(Error::invalid(
        field,
        "is a position of another store, or of a room's history: positions begin anew with the store",
    ))
}

/// Whose read state counts in a mailbox, if anybody's: in a user's own it is the owner's.
pub(super) fn reader(room: &RoomName, user: Option<&UserId>) -> Result<Option<UserId>, Error> {
    match (room.user(), user) {
        (Some(owner), Some(user)) if owner != user.as_str() => {
            Err(Error::invalid("user_id", "is not whose room this is: leave it empty, or name the room's own user"))
        }
        (Some(owner), None) => UserId::new(owner).map(Some).map_err(|invalid| Violation::of("room", &invalid).into()),
        (Some(_) | None, user) => Ok(user.cloned()),
    }
}

/// The same, where there must be one.
pub(super) fn needed_reader(room: &RoomName, user: Option<&UserId>) -> Result<UserId, Error> {
    reader(room, user)?
        .ok_or_else(|| Error::invalid("user_id", "is empty: in this room each user has read other messages"))
}
