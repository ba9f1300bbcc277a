use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sqlx::{Row, any::AnyRow};
use tokio::time::Instant;

use super::{
    Error, Sharing, Store,
    rows::{Rows, Value, parts, statement},
    steady_clock::ROWS_BY_JUMP,
};

const INTERVAL: Duration = Duration::from_secs(10);
/// Rows of one statement, so that writers need not wait long.
const ROWS: i64 = 200;
/// Messages that are too old, and are looked for at one time.
const OLDEST: i64 = 1_000;

/// Deletes messages that have expired or are too many, every ten seconds.
pub(super) async fn run(store: Store) {
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = store.inner.closed.cancelled() => return,
            _ = tick.tick() => {}
        }
        if !store.status().can_write() {
            continue;
        }
        tokio::select! {
            () = store.inner.closed.cancelled() => return,
            swept = store.sweep_steadily() => if let Err(error) = swept {
                tracing::warn!(%error, error.cause = error.cause(), "the store cannot be swept: trying again");
            },
        }
    }
}

impl Store {
    /// Takes away what has expired, is too old, or is too much for its mailbox. It is looked for by readers, for whom no writer waits, and
    /// taken away little by little. This happens by itself now and then.
    pub async fn sweep(&self) -> Result<(), Error> {
        let _one_at_a_time = self.inner.sweeps.lock().await;
        self.sweep_expired(self.now_ms(), &mut i64::MAX.clone()).await?;
        self.trim_many(i64::from(self.inner.config.max_messages)).await?;
        self.forget_orphans().await
    }

    /// The same, but what has expired only because the time of day has jumped ahead goes slowly: the clock may be wrong.
    async fn sweep_steadily(&self) -> Result<(), Error> {
        let mut clock = self.inner.sweeps.lock().await;
        if !clock.has_begun() {
            let (swept_at_ms, behind_ms) = self.last_sweep().await?;
            clock.begin(swept_at_ms, behind_ms);
        }
        let (now_ms, now) = (self.now_ms(), Instant::now());
        let jumped_ms = clock.observe(now_ms, now);
        if jumped_ms > 0 {
            tracing::warn!(
                clock.jumped_s = jumped_ms / 1_000,
                rows.per_hour = ROWS_BY_JUMP,
                "the time of day has jumped ahead: messages that have expired only by that are deleted slowly"
            );
        }
        if !self.claim_sweep(now_ms, clock.behind_ms()).await? {
            return Ok(());
        }
        self.sweep_expired(clock.steady(now_ms), &mut i64::MAX.clone()).await?;
        if clock.is_behind() {
            let allowance = clock.allowance(now);
            let mut left = allowance;
            self.sweep_expired(now_ms, &mut left).await?;
            clock.spend(allowance - left, left > 0);
        }
        self.note_sweep(now_ms, clock.behind_ms()).await?;
        self.trim_many(i64::from(self.inner.config.max_messages)).await?;
        self.forget_orphans().await
    }

    /// Takes away what has expired by then, or is too old, as many rows as are `left`.
    async fn sweep_expired(&self, now_ms: i64, left: &mut i64) -> Result<(), Error> {
        let max_age = i64::try_from(self.inner.config.max_age.as_millis()).unwrap_or(i64::MAX);
        self.delete_in_steps("emits", "caller, room, key", now_ms, left).await?;
        if self.inner.watermarks.is_shared() {
            self.delete_in_steps("first_resumes", "user_id", now_ms, left).await?;
        }
        self.delete_in_steps("messages", "room, position", now_ms, left).await?;
        self.trim_old(now_ms.saturating_sub(max_age), left).await
    }

    /// When the store was swept the last time, and how far the steady clock was behind then. 0: never.
    async fn last_sweep(&self) -> Result<(i64, i64), Error> {
        let rows = self.look("SELECT swept_at, behind_ms FROM store WHERE id = $1", 1).await?;
        rows.first().map_or(Ok((0, 0)), |row| Ok((row.try_get(0)?, row.try_get(1)?)))
    }

    /// Whether it is for this process to sweep now. Of nodes that share the store the first one does each time, so that not each looks for the same. If
    /// it takes longer than that, or is killed, another one begins: two that sweep at once only delete what the other one has not.
    async fn claim_sweep(&self, now_ms: i64, behind_ms: i64) -> Result<bool, Error> {
        if self.inner.database.parts().source.sharing == Sharing::Single {
            return Ok(true);
        }
        // A time that is far ahead was noted by a clock that has been set right since.
        let sql = "UPDATE store SET swept_at = $1, behind_ms = $2 \
                   WHERE id = 1 AND NOT swept_at BETWEEN $1 - 9000 AND $1 + 60000";
        Ok(self.change(sql.into(), now_ms, behind_ms).await? > 0)
    }

    async fn note_sweep(&self, now_ms: i64, behind_ms: i64) -> Result<(), Error> {
        let sql = "UPDATE store SET swept_at = $1, behind_ms = $2 WHERE id = 1";
        self.change(sql.into(), now_ms, behind_ms).await.map(|_| ())
    }

    async fn delete_in_steps(&self, table: &str, keys: &str, now_ms: i64, left: &mut i64) -> Result<(), Error> {
        while *left > 0 {
            let rows = ROWS.min(*left);
            // Asked twice: another node may have prolonged a row in between.
            let sql = format!(
                "DELETE FROM {table} WHERE ({keys}) IN (SELECT {keys} FROM {table} WHERE expires_at <= $1 LIMIT $2) \
                 AND expires_at <= $1"
            );
            let deleted = self.change(sql, now_ms, rows).await?;
            *left -= deleted;
            if deleted < rows {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn trim_old(&self, before: i64, left: &mut i64) -> Result<(), Error> {
        while *left > 0 {
            let rows = OLDEST.min(*left);
            // By the index of ages, however many messages there are.
            let sql =
                format!("SELECT room, position FROM messages WHERE stored_at < $1 ORDER BY stored_at LIMIT {rows}");
            let oldest = self.look(sql, before).await?;
            let mut floors = BTreeMap::<String, i64>::new();
            for row in &oldest {
                let (room, position): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                let floor = floors.entry(room).or_default();
                *floor = position.max(*floor);
            }
            for (room, floor) in floors {
                self.trim(room, floor).await?;
            }
            let count = i64::try_from(oldest.len()).unwrap_or(i64::MAX);
            *left -= count;
            if count < rows {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Of each mailbox the last positions stay. What was deleted or has expired counts, so that nothing need be counted.
    async fn trim_many(&self, max: i64) -> Result<(), Error> {
        let sql = "SELECT room, last FROM mailboxes WHERE last - trimmed > $1";
        for row in self.look(sql, max).await? {
            let last: i64 = row.try_get(1)?;
            self.trim(row.try_get(0)?, last - max).await?;
        }
        Ok(())
    }

    /// Raises the floor of a mailbox, and then deletes the messages below it: after a crash in between, devices are told of the gap.
    async fn trim(&self, room: String, floor: i64) -> Result<(), Error> {
        let raised = room.clone();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let sql = "UPDATE mailboxes SET trimmed = $2 WHERE room = $1 AND trimmed < $2";
                sqlx::query(sql).bind(raised).bind(floor).execute(connection).await.map(|_| ())
            })
        });
        write.await?;
        loop {
            let room = room.clone();
            let write = self.inner.database.write(move |connection| {
                Box::pin(async move {
                    let sql = "DELETE FROM messages WHERE room = $1 AND position IN \
                               (SELECT position FROM messages WHERE room = $1 AND position <= $2 LIMIT $3)";
                    let query = sqlx::query(sql).bind(room).bind(floor).bind(ROWS);
                    Ok(query.execute(connection).await?.rows_affected())
                })
            });
            if write.await? < ROWS.cast_unsigned() {
                return Ok(());
            }
        }
    }

    /// Forgets who has read, or was not given, messages that are not there any more.
    async fn forget_orphans(&self) -> Result<(), Error> {
        let reads = "SELECT room, user_id, position FROM read_messages WHERE NOT EXISTS \
                     (SELECT 1 FROM messages WHERE messages.room = read_messages.room \
                     AND messages.position = read_messages.position) LIMIT $1";
        let delete = "DELETE FROM read_messages WHERE (room, user_id, position)";
        let key = |row: &AnyRow| Ok([text(row, 0)?, text(row, 1)?, number(row, 2)?]);
        self.forget(reads, delete, key).await?;
        let skipped = "SELECT user_id, position FROM passed_over WHERE NOT EXISTS \
                           (SELECT 1 FROM messages WHERE messages.room = 'user:' || passed_over.user_id \
                           AND messages.position = passed_over.position) LIMIT $1";
        let delete = "DELETE FROM passed_over WHERE (user_id, position)";
        self.forget(skipped, delete, |row: &AnyRow| Ok([text(row, 0)?, number(row, 1)?])).await
    }

    /// `delete` is a statement whose end is a list of keys.
    async fn forget<const N: usize>(
        &self,
        orphans: &'static str,
        delete: &'static str,
        key: impl Fn(&AnyRow) -> sqlx::Result<[Value<'static>; N]> + Clone + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let orphans = Arc::new(self.look(orphans, ROWS).await?);
        if orphans.is_empty() {
            return Ok(());
        }
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                for part in parts(connection, orphans.len()) {
                    let keys: Vec<_> = orphans[part].iter().map(&key).collect::<sqlx::Result<_>>()?;
                    let rows = Rows::new(connection, keys)?;
                    let sql = format!("{delete} IN ({})", rows.sql());
                    rows.query(sql).execute(&mut *connection).await?;
                }
                Ok(())
            })
        });
        write.await
    }

    async fn look(&self, sql: impl Into<String>, bound: i64) -> Result<Vec<AnyRow>, Error> {
        let sql = sql.into();
        let read = self
            .inner
            .database
            .read(move |connection| Box::pin(async move { statement(sql).bind(bound).fetch_all(connection).await }));
        read.await
    }

    async fn change(&self, sql: String, bound: i64, rows: i64) -> Result<i64, Error> {
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let changed = statement(sql).bind(bound).bind(rows).execute(connection).await?;
                Ok(changed.rows_affected().cast_signed())
            })
        });
        write.await
    }
}

fn text(row: &AnyRow, column: usize) -> sqlx::Result<Value<'static>> {
    Ok(row.try_get::<String, _>(column)?.into())
}

fn number(row: &AnyRow, column: usize) -> sqlx::Result<Value<'static>> {
    Ok(row.try_get::<i64, _>(column)?.into())
}
