use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sqlx::{AnyConnection, Row, any::AnyRow};
use tokio::time::MissedTickBehavior;

use super::{
    Error, Sharing, Store,
    rows::{Rows, Value, parts, statement},
    steady_clock::{Change, Doubt, ROWS_BY_JUMP, SteadyClock},
};
use crate::clock::Uptime;

pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// Rows of one statement, so that writers need not wait long.
const ROWS: i64 = 200;
/// The condition on which a sweep is noted after it was done.
const EACH_TIME: &str = "1 = 1";

/// Messages that are deleted for the same reason.
#[derive(Clone, Copy)]
struct Doomed {
    /// `expires_at` or `stored_at`.
    column: &'static str,
    /// Those with an earlier time there, in milliseconds.
    before_ms: i64,
    /// Devices that were not given them are told of the gap.
    leave_gap: bool,
}

/// Deletes messages that have expired or are too many, as soon as the store can be written, and every ten seconds from then on.
pub(super) async fn run(store: Store) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = store.inner.closed.cancelled() => return,
            // From the first sweep on a jump of the time of day is noticed.
            () = async {
                tick.tick().await;
                let _ = store.watch_status().wait_for(|status| status.can_write()).await;
            } => {}
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
    /// Deletes messages and idempotency keys that have expired, and messages that are too old or too many for their mailbox, in many short transactions.
    /// The store does the same every ten seconds, but doubts a time of day that has jumped.
    pub async fn sweep(&self) -> Result<(), Error> {
        let _one_at_a_time = self.inner.sweeps.lock().await;
        let now_ms = self.now_ms();
        self.sweep_short_lived(now_ms).await?;
        self.sweep_messages(now_ms).await?;
        self.sweep_direct(now_ms).await?;
        self.sweep_rest().await
    }

    /// The same, but messages that have expired only because the time of day has jumped ahead, or may have, are deleted slowly: the clock may be wrong.
    pub(super) async fn sweep_steadily(&self) -> Result<(), Error> {
        let mut clock = self.inner.sweeps.lock().await;
        if !clock.has_begun() {
            let (swept_at_ms, uptime, doubt) = self.last_sweep().await?;
            clock.begin(swept_at_ms, uptime, doubt);
            if doubt.behind_ms > 0 {
                tracing::warn!(
                    store.url = %self.inner.database.parts().source,
                    clock.jumped_s = doubt.behind_ms / 1_000,
                    "the time of day was in doubt when the store was swept the last time: it may have jumped ahead. If it is still wrong, set it right"
                );
            }
        }
        let (now_ms, uptime) = (self.now_ms(), self.inner.database.parts().clock.uptime());
        if let Some(change) = clock.observe(now_ms, &uptime) {
            self.log_change(change);
        }
        let mut left = clock.take_allowance();
        let swept = self.sweep_by(&clock, now_ms, &uptime, &mut left).await;
        clock.give_back(left);
        if swept? {
            if left > 0
                && let Some(change) = clock.catch_up()
            {
                self.log_change(change);
            }
            self.note_sweep(EACH_TIME, now_ms, &uptime, clock.doubt()).await?;
            self.sweep_rest().await?;
        }
        Ok(())
    }

    /// `left`: how many messages may be deleted because of a jump. Returns whether it was for this process to sweep.
    async fn sweep_by(&self, clock: &SteadyClock, now_ms: i64, uptime: &Uptime, left: &mut i64) -> Result<bool, Error> {
        let is_alone = self.inner.database.parts().source.sharing == Sharing::Single;
        // The allowance is written as used before it is: if the process is killed, the next one has not got it again.
        if is_alone && *left > 0 {
            self.note_sweep(EACH_TIME, now_ms, uptime, clock.doubt()).await?;
        }
        if !is_alone && !self.claim_sweep(now_ms, uptime, clock.doubt()).await? {
            return Ok(false);
        }
        self.sweep_short_lived(now_ms).await?;
        self.sweep_messages(clock.steady(now_ms)).await?;
        self.sweep_direct(clock.steady(now_ms)).await?;
        self.sweep_doubtful(now_ms, left).await?;
        Ok(true)
    }

    fn log_change(&self, change: Change) {
        let url = &*self.inner.database.parts().source;
        match change {
            Change::Jumped(ms) => tracing::warn!(
                store.url = %url,
                clock.jumped_s = ms / 1_000,
                rows.per_hour = ROWS_BY_JUMP,
                "the time of day has jumped ahead: Bugle deletes messages that have expired only by the jump slowly, at most rows.per_hour an hour. If \
                 the clock is wrong, set it right within 24 hours: later Bugle deletes more an hour"
            ),
            Change::Unknown(ms) => tracing::warn!(
                store.url = %url,
                store.swept_ago_s = ms / 1_000,
                rows.per_hour = ROWS_BY_JUMP,
                "the store was swept the last time by another machine, or before this one was started, or never since its last message: Bugle \
                 was stopped for so long, or the time of day has jumped ahead. Bugle deletes messages that have expired since then slowly, at most rows.per_hour an hour. If the clock is \
                 wrong, set it right within 24 hours: later Bugle deletes more an hour"
            ),
            Change::SetBack => {
                tracing::info!(store.url = %url, "the time of day was set back: retention follows it again");
            }
            Change::Accepted => tracing::info!(
                store.url = %url,
                "the time of day was not set back for 24 hours, and what has expired by it was deleted: it is taken as right"
            ),
        }
    }

    /// Deletes idempotency keys, and beginnings of first resumes, that have expired. A jump makes no difference: they are not used any more.
    async fn sweep_short_lived(&self, now_ms: i64) -> Result<(), Error> {
        while self.delete_expired("emits", "caller, room, key", now_ms).await? == ROWS {}
        if self.inner.watermarks.is_shared() {
            while self.delete_expired("first_resumes", "user_id", now_ms).await? == ROWS {}
        }
        Ok(())
    }

    /// Deletes messages that have expired by then, or are too old.
    async fn sweep_messages(&self, now_ms: i64) -> Result<(), Error> {
        for doomed in self.doomed(now_ms, false) {
            while self.delete_doomed(doomed, ROWS).await? == ROWS {}
        }
        Ok(())
    }

    async fn sweep_rest(&self) -> Result<(), Error> {
        self.trim_many(i64::from(self.inner.config.max_messages)).await?;
        self.forget_orphans().await
    }

    /// Deletes messages that have expired by a time of day that is in doubt, or are too old by it, the oldest first, and counts them.
    async fn sweep_doubtful(&self, now_ms: i64, left: &mut i64) -> Result<(), Error> {
        for doomed in self.doomed(now_ms, true) {
            let (mut rows, mut deleted) = (0, 0);
            while deleted == rows && *left > 0 {
                rows = ROWS.min(*left);
                deleted = self.delete_doomed(doomed, rows).await?;
                *left -= deleted;
            }
        }
        Ok(())
    }

    /// `in_doubt`: a right clock would give devices the messages that have expired.
    fn doomed(&self, now_ms: i64, in_doubt: bool) -> [Doomed; 2] {
        let expired = Doomed { column: "expires_at", before_ms: now_ms.saturating_add(1), leave_gap: in_doubt };
        let too_old = now_ms.saturating_sub(self.max_age_ms());
        [expired, Doomed { column: "stored_at", before_ms: too_old, leave_gap: true }]
    }

    fn max_age_ms(&self) -> i64 {
        i64::try_from(self.inner.config.max_age.as_millis()).unwrap_or(i64::MAX)
    }

    /// The time of the last sweep, the uptime of the machine that swept then, and the doubt then. Before the first sweep: the time of the last message,
    /// or 0 if there is none.
    async fn last_sweep(&self) -> Result<(i64, Option<Uptime>, Doubt), Error> {
        let sql = "SELECT swept_at, swept_boot, swept_uptime_ms, behind_ms, since_jump_ms, deleted_by_jump FROM store WHERE id = $1";
        if let Some(row) = self.look(sql, 1).await?.first() {
            let swept_at: i64 = row.try_get(0)?;
            if swept_at != 0 {
                let (boot, ms): (String, i64) = (row.try_get(1)?, row.try_get(2)?);
                let uptime = (!boot.is_empty()).then(|| Uptime { boot: boot.into(), ms });
                let (behind_ms, since_jump_ms) = (row.try_get(3)?, row.try_get(4)?);
                return Ok((swept_at, uptime, Doubt { behind_ms, since_jump_ms, deleted: row.try_get(5)? }));
            }
        }
        let last = self.look("SELECT stored_at FROM messages ORDER BY stored_at DESC LIMIT $1", 1).await?;
        Ok((last.first().map_or(Ok(0), |row| row.try_get(0))?, None, Doubt::default()))
    }

    /// Whether it is for this process to sweep now. Of nodes that share the store the first one does each time, so that not each looks for the same. If
    /// it takes longer than that, or is killed, another one begins: two that sweep at once only delete what the other one has not.
    async fn claim_sweep(&self, now_ms: i64, uptime: &Uptime, doubt: Doubt) -> Result<bool, Error> {
        // A time that is far ahead was noted by a clock that has been set right since.
        let is_due = "NOT swept_at BETWEEN $1 - 9000 AND $1 + 60000";
        self.note_sweep(is_due, now_ms, uptime, doubt).await
    }

    /// Returns whether the condition is true.
    async fn note_sweep(&self, condition: &str, now_ms: i64, uptime: &Uptime, doubt: Doubt) -> Result<bool, Error> {
        let sql = format!(
            "UPDATE store SET swept_at = $1, behind_ms = $2, since_jump_ms = $3, deleted_by_jump = $4, swept_boot = $5, swept_uptime_ms = $6 \
             WHERE id = 1 AND {condition}"
        );
        let Uptime { boot, ms } = uptime.clone();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let Doubt { behind_ms, since_jump_ms, deleted } = doubt;
                let query = statement(sql).bind(now_ms).bind(behind_ms).bind(since_jump_ms).bind(deleted);
                Ok(query.bind(boot.to_string()).bind(ms).execute(connection).await?.rows_affected() > 0)
            })
        });
        write.await
    }

    /// Deletes up to [`ROWS`] rows, in the order in which they have expired. Returns the number of rows that it deleted.
    async fn delete_expired(&self, table: &str, keys: &str, now_ms: i64) -> Result<i64, Error> {
        let sql = delete_first(table, keys, "expires_at");
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let deleted = statement(sql).bind(now_ms.saturating_add(1)).bind(ROWS).execute(connection).await?;
                Ok(deleted.rows_affected().cast_signed())
            })
        });
        write.await
    }

    /// Deletes up to `rows` messages, the oldest first. Returns the number of messages that it deleted.
    async fn delete_doomed(&self, doomed: Doomed, rows: i64) -> Result<i64, Error> {
        let write =
            self.inner.database.write(move |connection| Box::pin(async move { doomed.delete(connection, rows).await }));
        write.await
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
}

/// A statement that deletes the first `$2` rows whose time in a column is before `$1`, by the index of that column.
fn delete_first(table: &str, keys: &str, column: &str) -> String {
    // Asked twice: another node may have prolonged a row in between.
    format!(
        "DELETE FROM {table} WHERE ({keys}) IN \
         (SELECT {keys} FROM {table} WHERE {column} < $1 ORDER BY {column} LIMIT $2) AND {column} < $1"
    )
}

impl Doomed {
    async fn delete(self, connection: &mut AnyConnection, rows: i64) -> sqlx::Result<i64> {
        let Self { column, before_ms, leave_gap } = self;
        let sql = delete_first("messages", "room, position", column) + " RETURNING room, position";
        let deleted = statement(sql).bind(before_ms).bind(rows).fetch_all(&mut *connection).await?;
        // Messages below a floor may be younger, if the clock was set back: they stay.
        let mut floors = BTreeMap::<String, i64>::new();
        for row in deleted.iter().filter(|_| leave_gap) {
            let floor = floors.entry(row.try_get(0)?).or_default();
            *floor = row.try_get::<i64, _>(1)?.max(*floor);
        }
        let floors: Vec<_> = floors.into_iter().collect();
        for part in parts(connection, floors.len()) {
            let rows = floors[part].iter().map(|(room, floor)| [Value::from(&**room), Value::from(*floor)]);
            let rows = Rows::new(connection, rows)?;
            let sql = format!(
                "WITH floors (room, floor) AS ({}) UPDATE mailboxes SET trimmed = floors.floor FROM floors \
                 WHERE mailboxes.room = floors.room AND mailboxes.trimmed < floors.floor",
                rows.sql()
            );
            rows.query(sql).execute(&mut *connection).await?;
        }
        Ok(i64::try_from(deleted.len()).unwrap_or(i64::MAX))
    }
}

fn text(row: &AnyRow, column: usize) -> sqlx::Result<Value<'static>> {
    Ok(row.try_get::<String, _>(column)?.into())
}

fn number(row: &AnyRow, column: usize) -> sqlx::Result<Value<'static>> {
    Ok(row.try_get::<i64, _>(column)?.into())
}
