use std::{sync::Arc, time::Duration};

use sqlx::AnyConnection;
use tokio::{
    task::yield_now,
    time::{Instant, MissedTickBehavior},
};

use super::{
    super::{
        Error, Store,
        deadlines::Allowance,
        rows::{Rows, parts},
    },
    Watermarks, shared,
    users::Chunk,
};
use crate::message::UserId;

/// How often watermarks are written: after a crash, what devices have proven since comes again.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same if several nodes share the database: another node gives again what was proven here since.
const SHARED_INTERVAL: Duration = Duration::from_millis(250);
/// That something cannot be written of a user is logged again after this time.
const LOGGED_AGAIN_AFTER: Duration = Duration::from_hours(1);
/// Rows of one transaction, and users that are looked at with the mutex held.
pub(super) const MAX_ROWS: usize = 512;

/// A chunk that is being written. Unless it was written when this is dropped, its users are dirty again: the write has failed, or its caller was
/// cancelled.
pub(super) struct TakenChunk<'a> {
    watermarks: &'a Watermarks,
    pub(super) chunk: Arc<Chunk>,
    is_written: bool,
}

impl<'a> TakenChunk<'a> {
    pub(super) fn new(watermarks: &'a Watermarks, chunk: Chunk) -> Self {
        Self { watermarks, chunk: Arc::new(chunk), is_written: false }
    }

    /// The same in two parts. Until its part is written each user is dirty.
    fn halve(self) -> [Self; 2] {
        self.chunk.halve().map(|half| Self::new(self.watermarks, half))
    }

    /// The database holds the chunk.
    pub(super) fn written(mut self) {
        self.is_written = true;
    }
}

impl Drop for TakenChunk<'_> {
    fn drop(&mut self) {
        self.watermarks.users.lock().ended(&self.chunk, self.is_written);
    }
}

/// Writes the watermarks now and then, and at the end.
pub(in crate::store) async fn run(store: Store) {
    let is_shared = store.inner.watermarks.is_shared();
    let mut tick = tokio::time::interval(if is_shared { SHARED_INTERVAL } else { INTERVAL });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let closed = tokio::select! {
            _ = tick.tick() => false,
            () = store.inner.closed.cancelled() => true,
        };
        while store.inner.watermarks.users.lock().end_graces(MAX_ROWS) {
            yield_now().await;
        }
        // What could not be written is tried again the next time.
        let _ = store.write_watermarks().await;
        if closed {
            // This task is the last one that writes.
            store.inner.database.close();
            return;
        }
    }
}

impl Store {
    /// Writes what devices have proven up to now, and waits for what another call is writing. This happens by itself each second, and four times a
    /// second if several nodes share the database. The transactions are small: messages are not to wait for all of it. Cancel safe: what was not
    /// written is written later.
    pub async fn write_watermarks(&self) -> Result<(), Error> {
        let watermarks = &self.inner.watermarks;
        // Users with something to write when this call's turn came first, and not taken yet.
        let mut left = None;
        while left != Some(0) {
            let writing = async {
                let _writing = watermarks.writing.lock().await;
                let chunk = {
                    let mut users = watermarks.users.lock();
                    let left = left.get_or_insert_with(|| users.count_dirty());
                    TakenChunk::new(watermarks, users.take_dirty(MAX_ROWS, left))
                };
                self.write_parts(chunk).await
            };
            self.inner.database.within(Allowance::Other, writing).await?;
        }
        Ok(())
    }

    /// Whether something is to be written of a user.
    pub fn has_unwritten_watermark(&self, user: &UserId) -> bool {
        self.inner.watermarks.users.lock().get(user).is_some_and(super::watermark::Watermark::is_unwritten)
    }

    /// Writes a chunk; if that meets damaged data, in parts. Users whose rows cannot be written stay dirty: a later write that lacked what is skipped
    /// would lose it.
    async fn write_parts(&self, chunk: TakenChunk<'_>) -> Result<(), Error> {
        let (mut parts, mut done) = (vec![chunk], Ok(()));
        while let Some(part) = parts.pop() {
            match self.write_chunk(part.chunk.clone()).await {
                Ok(()) => part.written(),
                Err(error) if !error.is_damage() => return Err(error),
                Err(error) => match part.chunk.only_user() {
                    Some(user) => {
                        self.log_unwritten(user, &error);
                        done = Err(error);
                    }
                    None => parts.extend(part.halve()),
                },
            }
        }
        done
    }

    /// At most once an hour.
    fn log_unwritten(&self, user: &UserId, error: &Error) {
        let mut logged = self.inner.watermarks.logged.lock();
        if logged.is_none_or(|at| at.elapsed() >= LOGGED_AGAIN_AFTER) {
            *logged = Some(Instant::now());
            tracing::error!(
                %error,
                error.cause = error.cause(),
                user.id = %user,
                "what the devices of a user have proven cannot be written, and comes again to the user's next device after a restart (check the \
                 database)"
            );
        }
    }

    async fn write_chunk(&self, chunk: Arc<Chunk>) -> Result<(), Error> {
        if chunk.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            let write = |data: &mut super::super::model::Data| {
                if self.incarnation() == chunk.incarnation {
                    data.write_watermarks(&chunk.skipped(), &chunk.positions(), &chunk.cleared());
                }
            };
            return model.write(&self.inner.database, write).await;
        }
        let store = self.clone();
        let write = self
            .inner
            .database
            .write(move |connection| Box::pin(async move { store.merge_chunk(connection, &chunk).await }));
        write.await
    }

    /// Within a transaction.
    pub(super) async fn merge_chunk(&self, connection: &mut AnyConnection, chunk: &Chunk) -> sqlx::Result<()> {
        // The database has lost messages since the chunk was taken.
        if self.incarnation() != chunk.incarnation {
            return Ok(());
        }
        let is_shared = self.inner.watermarks.is_shared();
        if is_shared {
            shared::lock(connection, &chunk.ids()).await?;
        }
        // First, as it is compared with the position before.
        insert_skipped(connection, &chunk.skipped()).await?;
        upsert_positions(connection, &chunk.positions()).await?;
        if is_shared {
            shared::delete_proven(connection, chunk).await
        } else {
            delete_skipped(connection, &chunk.cleared()).await
        }
    }
}

/// What the watermark in the database has passed is not skipped anew: it was proven, or is skipped already.
async fn insert_skipped(connection: &mut AnyConnection, skipped: &[(UserId, u64)]) -> sqlx::Result<()> {
    let sql = |rows: &str| {
        format!(
            "WITH skipped (user_id, position) AS ({rows}) \
             INSERT INTO passed_over (user_id, position) SELECT user_id, position FROM skipped \
             WHERE NOT EXISTS (SELECT 1 FROM delivered_marks WHERE delivered_marks.user_id = skipped.user_id \
             AND delivered_marks.position >= skipped.position) ON CONFLICT (user_id, position) DO NOTHING"
        )
    };
    execute_with(connection, skipped, sql).await
}

async fn upsert_positions(connection: &mut AnyConnection, positions: &[(UserId, u64)]) -> sqlx::Result<()> {
    let sql = |rows: &str| {
        format!(
            "INSERT INTO delivered_marks (user_id, position) {rows} \
             ON CONFLICT (user_id) DO UPDATE SET position = excluded.position \
             WHERE excluded.position > delivered_marks.position"
        )
    };
    execute_with(connection, positions, sql).await
}

async fn delete_skipped(connection: &mut AnyConnection, proven: &[(UserId, u64)]) -> sqlx::Result<()> {
    let sql = |rows: &str| format!("DELETE FROM passed_over WHERE (user_id, position) IN ({rows})");
    execute_with(connection, proven, sql).await
}

/// Executes a statement that these rows are the parameters of, for some rows at a time.
async fn execute_with(
    connection: &mut AnyConnection,
    values: &[(UserId, u64)],
    sql: impl Fn(&str) -> String,
) -> sqlx::Result<()> {
    for part in parts(connection, values.len()) {
        let values = values[part].iter();
        let rows = Rows::new(
            connection,
            values.map(|(user, position)| [user.as_str().into(), position.cast_signed().into()]),
        )?;
        let sql = sql(rows.sql());
        rows.query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::lifecycle::Lifecycle;
    use crate::store::{Config, Sharing};

    /// A store, and a user whose devices have proven message 7.
    async fn proven() -> (Store, UserId) {
        let config = Config { url: "sqlite::memory:".into(), max_age: Duration::from_hours(1), max_messages: 100 };
        let store = Store::open(&config, Sharing::Single, Clock::system(), &Lifecycle::new()).unwrap();
        let user = UserId::new("42").unwrap();
        store.undelivered(&user).await.expect("the store is open");
        let reports = store.watermark_reports(&user, store.incarnation());
        reports.note_in_flight(7, false);
        reports.note_proven(7);
        (store, user)
    }

    #[tokio::test]
    async fn watermarks_that_another_call_is_writing_are_waited_for() {
        let (store, user) = proven().await;
        let mut first = Box::pin(store.write_watermarks());
        let mut second = Box::pin(store.write_watermarks());
        assert!(futures_util::poll!(&mut first).is_pending(), "it waits for the writer");
        assert!(futures_util::poll!(&mut second).is_pending(), "it waits for the first one");
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_ok() && second.is_ok() && !store.has_unwritten_watermark(&user));
    }

    #[tokio::test]
    async fn a_user_whose_row_cannot_be_written_keeps_no_other_from_being_written() {
        let (store, _) = proven().await;
        let users = [1, 2, 3, 4].map(|number| UserId::new(&number.to_string()).unwrap());
        let refuse = "CREATE TRIGGER t BEFORE INSERT ON delivered_marks WHEN NEW.user_id = '3' BEGIN SELECT RAISE(ABORT, 'x'); END";
        let made = store.inner.database.write(move |connection| {
            Box::pin(async move { sqlx::query(refuse).execute(connection).await.map(|_| ()) })
        });
        made.await.unwrap();
        for user in &users {
            let reports = store.watermark_reports(user, store.incarnation());
            reports.note_in_flight(7, false);
            reports.note_proven(7);
        }
        assert!(store.write_watermarks().await.is_err(), "not all are written");
        let written = async || {
            let mut written = Vec::new();
            for user in &users {
                written.push(store.written_watermark(user).await.unwrap().watermark);
            }
            written
        };
        assert_eq!(written().await, [7, 7, 0, 7]);
        assert!(store.has_unwritten_watermark(&users[2]) && !store.has_unwritten_watermark(&users[3]));
        let mended = store.inner.database.write(|connection| {
            Box::pin(async move { sqlx::query("DROP TRIGGER t").execute(connection).await.map(|_| ()) })
        });
        mended.await.unwrap();
        store.write_watermarks().await.unwrap();
        assert_eq!(written().await, [7, 7, 7, 7]);
    }

    #[tokio::test]
    async fn watermarks_whose_write_is_cancelled_are_written_by_the_next_one() {
        let (store, user) = proven().await;
        let mut writing = Box::pin(store.write_watermarks());
        assert!(futures_util::poll!(&mut writing).is_pending(), "it waits for the writer");
        drop(writing);
        store.write_watermarks().await.unwrap();
        assert!(!store.has_unwritten_watermark(&user));
        assert_eq!(store.written_watermark(&user).await.unwrap().watermark, 7);
    }
}
