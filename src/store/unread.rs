use sqlx::{AnyConnection, Row};

use super::{Error, Store, append::statement};
use crate::message::{MessageId, RoomName, UserId};

// In these `$1` is the room, `$5` the user, and `$6` the user as it stands in a list of exceptions.

/// Whether a message is for this user. Nearly none has exceptions.
pub(super) const IS_FOR_USER: &str = "(except_users = '[]' OR REPLACE(except_users, $6, '') = except_users)";
/// Whether this user has read a message.
pub(super) const IS_READ: &str = "(position <= COALESCE((SELECT position FROM read_marks WHERE room = $1 AND user_id = $5), 0) \
     OR position IN (SELECT position FROM read_messages WHERE room = $1 AND user_id = $5))";
/// Whether a message is for this user and not read, so that the index is of use.
pub(super) const IS_UNREAD: &str = "position > COALESCE((SELECT position FROM read_marks WHERE room = $1 AND user_id = $5), 0) \
     AND position NOT IN (SELECT position FROM read_messages WHERE room = $1 AND user_id = $5) \
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

    /// Notes that a user has read messages of a mailbox: what was read stays read, and a mark stands at the last message at most. Says
    /// whether that made any fewer unread; none if the one message is not there, or not for this user.
    pub async fn mark_read(&self, room: &RoomName, user: &UserId, which: Which) -> Result<Option<bool>, Error> {
        let (room, user, now) = (room.clone(), user.clone(), self.now_ms());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                match which {
                    Which::Message(id) => note_read(connection, &room, &user, id, now).await,
                    Which::UpTo(position) => {
                        advance_mark(connection, &room, &user, position.cast_signed(), now).await.map(Some)
                    }
                }
            })
        });
        write.await
    }
}

async fn note_read(
    connection: &mut AnyConnection,
    room: &RoomName,
    user: &UserId,
    id: MessageId,
    now: i64,
) -> sqlx::Result<Option<bool>> {
    let sql = format!(
        "SELECT position, CAST(CASE WHEN {IS_READ} THEN 1 ELSE 0 END AS BIGINT) FROM messages \
         WHERE room = $1 AND message_id = $2 AND expires_at > $3 AND $4 = 0 AND {IS_FOR_USER}"
    );
    let query = statement(sql).bind(room.as_str()).bind(id.to_string()).bind(now).bind(0_i64);
    let Some(row) = query.bind(user.as_str()).bind(quoted(user)).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    let (position, is_read): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if is_read == 0 {
        let sql = "INSERT INTO read_messages (room, user_id, position) VALUES ($1, $2, $3) \
                   ON CONFLICT (room, user_id, position) DO NOTHING";
        sqlx::query(sql).bind(room.as_str()).bind(user.as_str()).bind(position).execute(connection).await?;
    }
    Ok(Some(is_read == 0))
}

async fn advance_mark(
    connection: &mut AnyConnection,
    room: &RoomName,
    user: &UserId,
    position: i64,
    now: i64,
) -> sqlx::Result<bool> {
    let sql = format!(
        "SELECT position FROM messages \
         WHERE room = $1 AND position <= $2 AND expires_at > $3 AND $4 = 0 AND {IS_UNREAD} LIMIT 1"
    );
    let query = statement(sql).bind(room.as_str()).bind(position).bind(now).bind(0_i64);
    let is_any_unread = query.bind(user.as_str()).bind(quoted(user)).fetch_optional(&mut *connection).await?.is_some();
    let sql = "INSERT INTO read_marks (room, user_id, position) \
               SELECT room, $2, CASE WHEN last < $3 THEN last ELSE $3 END FROM mailboxes WHERE room = $1 \
               ON CONFLICT (room, user_id) DO UPDATE SET position = excluded.position \
               WHERE excluded.position > read_marks.position";
    let query = sqlx::query(sql).bind(room.as_str()).bind(user.as_str()).bind(position);
    query.execute(&mut *connection).await?;
    let sql = "DELETE FROM read_messages WHERE room = $1 AND user_id = $2 AND position <= $3";
    let query = sqlx::query(sql).bind(room.as_str()).bind(user.as_str()).bind(position);
    query.execute(&mut *connection).await?;
    Ok(is_any_unread)
}
