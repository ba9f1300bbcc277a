use std::time::Duration;

use sqlx::AnyConnection;

use super::{
    super::{Error, Store},
    deletion::{forget, note_gone, oldest},
};

/// Messages that are deleted in one transaction.
const ROWS: i64 = 200;

pub(super) const DELETE_OLD: &str = "DELETE FROM direct_messages WHERE id IN \
     (SELECT id FROM direct_messages WHERE created_at < $1 ORDER BY created_at LIMIT $2) \
     RETURNING id, sender_id, receiver_id, is_read";

/// How long direct messages are kept.
#[derive(Clone, Copy, Debug)]
pub struct DirectRetention {
    /// So long at most.
    pub max_age: Duration,
    /// So many of one conversation; past it the oldest go first.
    pub max_messages: u32,
}

impl Store {
    /// Deletes direct messages that are too old by then, and rules that have expired.
    pub(in crate::store) async fn sweep_direct(&self, now_ms: i64) -> Result<(), Error> {
        let Some(retention) = self.inner.database.parts().direct else { return Ok(()) };
        let too_old = now_ms.saturating_sub(i64::try_from(retention.max_age.as_millis()).unwrap_or(i64::MAX));
        while self.delete_old(too_old).await? == ROWS {}
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let sql = "UPDATE conversation_rules SET granted_until = 0 WHERE granted_until > 0 AND granted_until <= $1 AND blocked = 1";
                sqlx::query(sql).bind(now_ms).execute(&mut *connection).await?;
                let sql = "DELETE FROM conversation_rules WHERE granted_until > 0 AND granted_until <= $1 AND blocked = 0";
                sqlx::query(sql).bind(now_ms).execute(connection).await.map(drop)
            })
        });
        write.await
    }

    /// Deletes the oldest messages. Returns how many there were, at most [`ROWS`].
    async fn delete_old(&self, before_ms: i64) -> Result<i64, Error> {
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let gone = sqlx::query(DELETE_OLD).bind(before_ms).bind(ROWS).fetch_all(&mut *connection).await?;
                note_gone(connection, &gone).await?;
                Ok(i64::try_from(gone.len()).unwrap_or(i64::MAX))
            })
        });
        write.await
    }
}

/// Deletes the oldest messages of a conversation, that has too many.
pub(super) async fn trim(connection: &mut AnyConnection, sides: (&str, &str), count: i64) -> sqlx::Result<()> {
    let ids = oldest(connection, sides, count.min(ROWS)).await?;
    forget(connection, &ids).await.map(drop)
}
