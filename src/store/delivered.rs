use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use sqlx::Row;
use tokio::time::Instant;

use super::{
    Error, Store,
    append::{chunks, rows, statement},
    lookups::Written,
    watermark::Watermark,
};
use crate::message::{RoomName, UserId};

/// How often watermarks are written: after a crash, what devices have proven since comes again.
const INTERVAL: Duration = Duration::from_secs(1);

/// The watermarks of users' own mailboxes, as far as the database does not know them.
#[derive(Default)]
pub(super) struct Delivered {
    users: HashMap<UserId, Watermark>,
}

/// What no device of a user has proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// All messages after this position.
    pub after: u64,
    /// Of those up to it, the skipped ones, in order.
    pub skipped: Vec<u64>,
}

/// What is to be written, seen at one moment: a watermark among it passes no message that is neither proven nor among the skipped.
#[derive(Default)]
struct Unwritten {
    skipped: Vec<(UserId, u64)>,
    watermarks: Vec<(UserId, u64)>,
    cleared: Vec<(UserId, u64)>,
}

/// Writes the watermarks now and then, and at the end.
pub(super) async fn run(store: Store) {
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        let closed = tokio::select! {
            _ = tick.tick() => false,
            () = store.inner.closed.cancelled() => true,
        };
        // What could not be written is tried again the next time.
        let _ = store.write_watermarks().await;
        if closed {
            // Nobody else has anything to write.
            store.inner.database.close();
            return;
        }
    }
}

impl Store {
    /// Notes that a connection of a user was sent a message of the user's own mailbox. `may_be_skipped`: it was
    /// published before, and may be noted as skipped. One call of `note_proven` or `note_lost` follows for each connection.
    pub fn note_in_flight(&self, user: &UserId, number: u64, may_be_skipped: bool) {
        self.watermark(user, |watermark| watermark.sent(number, may_be_skipped));
    }

    /// Notes that a device has proven a message, and so all up to it that are not in flight. The watermark moves there. The database has it
    /// within a second or so.
    pub fn note_proven(&self, user: &UserId, number: u64) {
        self.watermark(user, |watermark| watermark.proven(number));
    }

    /// Notes that a connection ended without a proof.
    pub fn note_lost(&self, user: &UserId, number: u64) {
        self.watermark(user, |watermark| watermark.lost(number));
    }

    /// Ends what `note_in_flight` began for the publisher of a message. `is_partial`: a live connection of the user was not sent it.
    pub fn note_published(&self, user: &UserId, number: u64, is_partial: bool) {
        self.watermark(user, |watermark| watermark.published(number, is_partial));
    }

    /// Notes that a message goes to the user's next device, though a connection could prove later ones.
    pub fn note_skipped(&self, user: &UserId, number: u64) {
        self.watermark(user, |watermark| watermark.skip(number));
    }

    /// Notes that messages up to `to` need no proof: they are not for the user, or are gone, or the device has seen them. The watermark
    /// moves there once it has reached `after`, the last message that the connection was sent (0: none), and nothing before is in flight.
    pub fn note_settled(&self, user: &UserId, after: u64, to: u64) {
        self.watermark(user, |watermark| watermark.settle(after, to));
    }

    /// Leaves a user's watermark in the database as it is for a while: after a crash, what was proven since comes again.
    pub fn freeze_watermark(&self, user: &UserId, how_long: Duration) {
        self.watermark(user, |watermark| watermark.freeze(how_long));
    }

    /// What no device of a user has proven.
    pub async fn undelivered(&self, user: &UserId) -> Result<Undelivered, Error> {
        let known = |delivered: &Delivered| {
            delivered.users.get(user).map(|w| (w.position, w.skipped.clone(), w.cleared.clone()))
        };
        // Before the database is read: what the writer moves there meanwhile is found in both places, not in none.
        let (position, skipped, mut cleared) = known(&self.inner.delivered.lock()).unwrap_or_default();
        let Written { watermark: written, has_skipped } = self.written_watermark(user).await?;
        // Up to there the database knows best.
        let mut all: BTreeSet<u64> = skipped.into_iter().filter(|number| *number > written).collect();
        if has_skipped {
            all.extend(self.skipped_of(user).await?);
        }
        cleared.extend(known(&self.inner.delivered.lock()).unwrap_or_default().2);
        let after = position.max(written);
        let skipped = all.into_iter().filter(|number| *number <= after && !cleared.contains(number)).collect();
        Ok(Undelivered { after, skipped })
    }

    async fn skipped_of(&self, user: &UserId) -> Result<Vec<u64>, Error> {
        let owner = user.clone();
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let sql = "SELECT position FROM passed_over WHERE user_id = $1 ORDER BY position LIMIT 10000";
                sqlx::query(sql).bind(owner.as_str()).fetch_all(connection).await
            })
        });
        let numbers = read.await?;
        Ok(numbers.iter().map(|row| row.try_get::<i64, _>(0).map(i64::cast_unsigned)).collect::<sqlx::Result<_>>()?)
    }

    /// Moves a user's watermark on to this position. All messages that it passes are skipped.
    pub async fn skip_to(&self, user: &UserId, position: u64) -> Result<(), Error> {
        // The writer must not delete what was proven meanwhile before it is inserted.
        let _writing = self.inner.writing_watermarks.lock().await;
        self.watermark(user, |watermark| watermark.expect_skips(position));
        let Undelivered { after, .. } = self.undelivered(user).await?;
        let owner = user.clone();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let sql = "INSERT INTO passed_over (user_id, position) SELECT $1, position FROM messages \
                           WHERE room = $2 AND position > $3 AND position <= $4 ON CONFLICT (user_id, position) DO NOTHING";
                let query = sqlx::query(sql).bind(owner.as_str()).bind(RoomName::of_user(&owner).to_string());
                let query = query.bind(after.cast_signed()).bind(position.cast_signed());
                query.execute(connection).await.map(|_| ())
            })
        });
        write.await?;
        self.watermark(user, |watermark| watermark.advance(position));
        Ok(())
    }

    fn watermark(&self, user: &UserId, change: impl FnOnce(&mut Watermark)) {
        let mut delivered = self.inner.delivered.lock();
        match delivered.users.get_mut(user) {
            Some(watermark) => change(watermark),
            None => change(delivered.users.entry(user.clone()).or_default()),
        }
    }

    /// In small transactions: messages are not to wait for all of them.
    async fn write_watermarks(&self) -> Result<(), Error> {
        let _writing = self.inner.writing_watermarks.lock().await;
        let Unwritten { skipped, watermarks, cleared } = self.inner.delivered.lock().unwritten();
        // First: a crash must not lose what a watermark has passed.
        for chunk in chunks(&skipped) {
            self.insert_skipped(chunk.to_vec()).await?;
            self.inner.delivered.lock().each(chunk, |watermark, number| {
                watermark.skipped.remove(&number);
            });
        }
        for chunk in chunks(&watermarks) {
            self.upsert_watermarks(chunk.to_vec()).await?;
            self.inner.delivered.lock().each(chunk, Watermark::written);
        }
        for chunk in chunks(&cleared) {
            self.delete_skipped(chunk.to_vec()).await?;
            self.inner.delivered.lock().each(chunk, |watermark, number| {
                watermark.cleared.remove(&number);
            });
        }
        let now = Instant::now();
        self.inner.delivered.lock().users.retain(|_, watermark| !watermark.is_idle(now));
        Ok(())
    }

    /// What the watermark in the database has passed is not skipped anew: it was proven, or is skipped already.
    async fn insert_skipped(&self, skipped: Vec<(UserId, u64)>) -> Result<(), Error> {
        let sql = |rows: String| {
            format!(
                "WITH skipped (user_id, position) AS (VALUES {rows}) \
                 INSERT INTO passed_over (user_id, position) SELECT user_id, position FROM skipped \
                 WHERE NOT EXISTS (SELECT 1 FROM delivered_marks WHERE delivered_marks.user_id = skipped.user_id \
                 AND delivered_marks.position >= skipped.position) ON CONFLICT (user_id, position) DO NOTHING"
            )
        };
        self.execute_with(skipped, sql).await
    }

    async fn upsert_watermarks(&self, watermarks: Vec<(UserId, u64)>) -> Result<(), Error> {
        let sql = |rows: String| {
            format!(
                "INSERT INTO delivered_marks (user_id, position) VALUES {rows} \
                 ON CONFLICT (user_id) DO UPDATE SET position = excluded.position \
                 WHERE excluded.position > delivered_marks.position"
            )
        };
        self.execute_with(watermarks, sql).await
    }

    async fn delete_skipped(&self, proven: Vec<(UserId, u64)>) -> Result<(), Error> {
        let sql = |rows: String| format!("DELETE FROM passed_over WHERE (user_id, position) IN (VALUES {rows})");
        self.execute_with(proven, sql).await
    }

    /// Executes a statement that these rows are the parameters of.
    async fn execute_with(
        &self,
        values: Vec<(UserId, u64)>,
        sql: impl FnOnce(String) -> String + Send + 'static,
    ) -> Result<(), Error> {
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let mut query = statement(sql(rows(connection, 1, values.len(), 2)));
                for (user, position) in &values {
                    query = query.bind(user.as_str()).bind(position.cast_signed());
                }
                query.execute(connection).await.map(|_| ())
            })
        });
        write.await
    }
}

impl Delivered {
    fn unwritten(&self) -> Unwritten {
        let (mut unwritten, now) = (Unwritten::default(), Instant::now());
        for (user, watermark) in &self.users {
            let of_user = |number: &u64| (user.clone(), *number);
            unwritten.skipped.extend(watermark.skipped.iter().map(of_user));
            unwritten.watermarks.extend(watermark.unwritten(now).as_ref().map(of_user));
            unwritten.cleared.extend(watermark.cleared.iter().map(of_user));
        }
        unwritten
    }

    fn each(&mut self, chunk: &[(UserId, u64)], mut change: impl FnMut(&mut Watermark, u64)) {
        for (user, number) in chunk {
            if let Some(watermark) = self.users.get_mut(user) {
                change(watermark, *number);
            }
        }
    }
}
