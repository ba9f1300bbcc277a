//! What several nodes write: each merges what it knows into the rows of a user, and holds the lock of the user's row in `delivered_marks`
//! meanwhile.

use sqlx::AnyConnection;

use super::users::Chunk;
use crate::message::{RoomName, UserId};
use crate::store::rows::{Rows, parts};

/// Locks the rows of these users until the end of the transaction, and makes those that are missing. The users are in order, so that two nodes
/// do not wait for each other. What comes after in the transaction sees what other nodes have written.
pub(super) async fn lock(connection: &mut AnyConnection, users: &[UserId]) -> sqlx::Result<()> {
    for part in parts(connection, users.len()) {
        let rows = Rows::new(connection, users[part].iter().map(|user| [user.as_str().into()]))?;
        // A row is locked even if the condition is false. It is never true, and the row is not written.
        let sql = format!(
            "INSERT INTO delivered_marks (user_id, position) SELECT user_id, 0 FROM ({}) AS users (user_id) \
             ON CONFLICT (user_id) DO UPDATE SET position = excluded.position WHERE delivered_marks.position < 0",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes what this node knows to be proven from the skipped messages. Others may have added it.
pub(super) async fn delete_proven(connection: &mut AnyConnection, chunk: &Chunk) -> sqlx::Result<()> {
    let runs = chunk.runs_of_cleared();
    for part in parts(connection, runs.len()) {
        let runs = runs[part].iter();
        let runs = runs
            .map(|(user, first, last)| [user.as_str().into(), first.cast_signed().into(), last.cast_signed().into()]);
        let rows = Rows::new(connection, runs)?;
        let sql = format!(
            "DELETE FROM passed_over USING ({}) AS proven (user_id, first, last) \
             WHERE passed_over.user_id = proven.user_id AND passed_over.position BETWEEN proven.first AND proven.last",
            rows.sql()
        );
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Notes the messages of a user's mailbox after the first position and up to the last one as skipped, but for those that the watermark has
/// passed: they are proven, or skipped already.
pub(super) async fn insert_skipped_range(
    connection: &mut AnyConnection,
    user: &UserId,
    (after, to): (u64, u64),
) -> sqlx::Result<()> {
    lock(connection, std::slice::from_ref(user)).await?;
    let sql = "INSERT INTO passed_over (user_id, position) SELECT $1, position FROM messages \
               WHERE room = $2 AND position > $3 AND position <= $4 \
               AND position > (SELECT position FROM delivered_marks WHERE user_id = $1) \
               ON CONFLICT (user_id, position) DO NOTHING";
    let query = sqlx::query(sql).bind(user.as_str()).bind(RoomName::of_user(user).to_string());
    query.bind(after.cast_signed()).bind(to.cast_signed()).execute(connection).await.map(|_| ())
}
