use std::time::Duration;

use sqlx::Row;

use super::{
    super::{Error, Store, rows::statement},
    deletion::{Side, forget, note_gone, oldest},
};

/// Messages that are deleted in one transaction.
const ROWS: i64 = 200;

pub(super) const DELETE_OLD: &str = "DELETE FROM direct_messages WHERE id IN \
     (SELECT id FROM direct_messages WHERE created_at < $1 ORDER BY created_at LIMIT $2) \
     RETURNING id, sender_id, receiver_id, is_read";

/// Conversations with more messages than this have an index.
const MANY: i64 = 1_000;

/// One side of each conversation with more than `$1` messages, some at one time.
pub(super) fn full_sql(max: i64) -> String {
    let indexed = if max >= MANY { "AND total > 1000" } else { "" };
    format!(
        "SELECT user_id, peer_id, total FROM conversations WHERE total > $1 {indexed} AND user_id < peer_id LIMIT 100"
    )
}

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
        while self.delete_old(too_old, now_ms).await? == ROWS {}
        self.trim_conversations(i64::from(retention.max_messages), now_ms).await?;
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
    async fn delete_old(&self, before_ms: i64, now_ms: i64) -> Result<i64, Error> {
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let gone = sqlx::query(DELETE_OLD).bind(before_ms).bind(ROWS).fetch_all(&mut *connection).await?;
                note_gone(connection, &gone, now_ms).await?;
                Ok(i64::try_from(gone.len()).unwrap_or(i64::MAX))
            })
        });
        write.await
    }

    /// Deletes the oldest messages of conversations that have too many.
    async fn trim_conversations(&self, max: i64, now_ms: i64) -> Result<(), Error> {
        let full = self.inner.database.read(move |connection| {
            Box::pin(async move { statement(full_sql(max)).bind(max).fetch_all(connection).await })
        });
        for row in full.await? {
            let (side, total): (Side, i64) = ((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
            let mut left = total - max;
            while left > 0 {
                let (some, (user, peer)) = (left.min(ROWS), side.clone());
                let write = self.inner.database.write(move |connection| {
                    Box::pin(async move {
                        let ids = oldest(connection, (&user, &peer), some).await?;
                        forget(connection, &ids, now_ms).await.map(drop)
                    })
                });
                write.await?;
                left -= some;
            }
        }
        Ok(())
    }
}
