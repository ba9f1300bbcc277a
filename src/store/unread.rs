use sqlx::Row;

use super::{Error, Store, rows::statement};
use crate::message::{MessageId, RoomName, UserId};

// Messages of the kind `own` are what the owner of the mailbox has sent: JSON that counts as read.
// In these `$1` is the room, `$5` the user, and `$6` the user as it stands in a list of exceptions.

/// Whether a message is for this user. Nearly none has exceptions.
pub(super) const IS_FOR_USER: &str = "(except_users = '[]' OR REPLACE(except_users, $6, '') = except_users)";
/// Whether this user has read a message.
pub(super) const IS_READ: &str = "(position <= COALESCE((SELECT position FROM read_marks WHERE room = $1 AND user_id = $5), 0) \
     OR position IN (SELECT position FROM read_messages WHERE room = $1 AND user_id = $5) OR kind = 'own')";
/// Whether a message is for this user and not read, so that the index is of use.
pub(super) const IS_UNREAD: &str = "position > COALESCE((SELECT position FROM read_marks WHERE room = $1 AND user_id = $5), 0) \
     AND position NOT IN (SELECT position FROM read_messages WHERE room = $1 AND user_id = $5) AND kind <> 'own' \
     AND (except_users = '[]' OR REPLACE(except_users, $6, '') = except_users)";

/// A user as a list of exceptions has it: a JSON text in which nothing but its ends is a quotation mark, so that no user is found in the
/// name of another.
pub(super) fn quoted(user: &UserId) -> String {
    let escaped = user.as_str().replace('\\', r"\u005c").replace('"', r"\u0022");
    format!("\"{escaped}\"")
}

/// Which messages of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// One.
    Message(MessageId),
    /// Those up to this position, this one included.
    UpTo(u64),
}

impl Which {
    /// All that there are.
    pub const ALL: Self = Self::UpTo(i64::MAX.cast_unsigned());
}

impl Store {
    /// How many messages of a mailbox are still of use, for this user, and not read by this user.
    pub async fn count_unread(&self, room: &RoomName, user: &UserId) -> Result<u64, Error> {
        let sql =
            format!("SELECT COUNT(*) FROM messages WHERE room = $1 AND expires_at > $2 AND $3 = $4 AND {IS_UNREAD}");
        let (room, user, now) = (room.clone(), user.clone(), self.now_ms());
        let row = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let query = statement(sql).bind(room.as_str()).bind(now).bind(0_i64).bind(0_i64);
                query.bind(user.as_str()).bind(quoted(&user)).fetch_one(connection).await
            })
        });
        Ok(row.await?.try_get::<i64, _>(0)?.cast_unsigned())
    }
}
