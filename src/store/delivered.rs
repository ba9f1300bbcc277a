use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sqlx::Row;
use tokio::time::Instant;

use super::{
    Error, Store,
    append::{chunks, rows, statement},
};
use crate::message::{RoomName, UserId};

/// How often marks are written: after a crash, what was given to devices since may come twice.
const INTERVAL: Duration = Duration::from_secs(1);

/// Up to which position the messages of users' own mailboxes were given to a device of theirs, and those of them that were given to none:
/// what is not written yet.
#[derive(Default)]
pub(super) struct Delivered {
    marks: HashMap<UserId, u64>,
    passed_over: HashSet<(UserId, u64)>,
    /// Until then these users' marks are not written: their devices may not have got what they were given.
    held: HashMap<UserId, Instant>,
}

/// What a user's own devices were not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// All after this position.
    pub after: u64,
    /// And of those before it these, in order.
    pub passed_over: Vec<u64>,
}

/// Writes the marks now and then, and at the end.
pub(super) async fn run(store: Store) {
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        let closed = tokio::select! {
            _ = tick.tick() => false,
            () = store.inner.closed.cancelled() => true,
        };
        store.write_marks().await;
        if closed {
            return;
        }
    }
}

impl Store {
    /// Notes that a user's own messages were given to a device up to this position. Marks only move on. They are on disk within a
    /// second or so.
    pub fn note_delivered(&self, user: &UserId, position: u64) {
        let mut delivered = self.inner.delivered.lock();
        match delivered.marks.get_mut(user) {
            Some(mark) => *mark = position.max(*mark),
            None => {
                delivered.marks.insert(user.clone(), position);
            }
        }
    }

    /// Notes that a message of a user's own mailbox was given to none of their devices, though later ones may be.
    pub fn note_passed_over(&self, user: &UserId, position: u64) {
        self.inner.delivered.lock().passed_over.insert((user.clone(), position));
    }

    /// Leaves a user's mark as it stands on disk for a while: after a crash, what was given since comes again.
    pub fn hold_mark(&self, user: &UserId, how_long: Duration) {
        self.inner.delivered.lock().held.insert(user.clone(), Instant::now() + how_long);
    }

    /// What a user's own devices were not given.
    pub async fn undelivered(&self, user: &UserId) -> Result<Undelivered, Error> {
        self.write_passed_over().await?;
        let unwritten = self.inner.delivered.lock().marks.get(user).copied();
        let user = user.clone();
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let query = sqlx::query("SELECT position FROM delivered_marks WHERE user_id = $1").bind(user.as_str());
                let mark = query.fetch_optional(&mut *connection).await?;
                let sql = "SELECT position FROM passed_over WHERE user_id = $1 ORDER BY position LIMIT 10000";
                Ok((mark, sqlx::query(sql).bind(user.as_str()).fetch_all(connection).await?))
            })
        });
        let (mark, passed_over) = read.await?;
        let written = mark.map(|row| row.try_get::<i64, _>(0)).transpose()?.unwrap_or_default();
        let mut undelivered =
            Undelivered { after: unwritten.unwrap_or_default().max(written.cast_unsigned()), passed_over: Vec::new() };
        for row in passed_over {
            undelivered.passed_over.push(row.try_get::<i64, _>(0)?.cast_unsigned());
        }
        Ok(undelivered)
    }

    /// Moves a user's mark on to this position: what is between was given to none of their devices.
    pub async fn pass_over_to(&self, user: &UserId, position: u64) -> Result<(), Error> {
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
        self.note_delivered(user, position);
        Ok(())
    }

    /// Forgets that this message was given to none of a user's devices.
    pub async fn note_given_after_all(&self, user: &UserId, position: u64) -> Result<(), Error> {
        let user = user.clone();
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let sql = "DELETE FROM passed_over WHERE user_id = $1 AND position = $2";
                sqlx::query(sql).bind(user.as_str()).bind(position.cast_signed()).execute(connection).await.map(|_| ())
            })
        });
        write.await
    }

    /// In small transactions: messages are not to wait for all of them.
    async fn write_marks(&self) {
        // First: what a mark has passed must not be forgotten by a crash.
        if self.write_passed_over().await.is_err() {
            return;
        }
        let marks: Vec<_> = {
            let mut delivered = self.inner.delivered.lock();
            let Delivered { marks, held, .. } = &mut *delivered;
            held.retain(|_, until| *until > Instant::now());
            let free = marks.iter().filter(|(user, _)| !held.contains_key(*user));
            free.map(|(user, mark)| (user.clone(), *mark)).collect()
        };
        for chunk in chunks(&marks) {
            // What could not be written is tried again the next time.
            if self.write_some(chunk.to_vec()).await.is_err() {
                return;
            }
            let mut delivered = self.inner.delivered.lock();
            for (user, position) in chunk {
                if delivered.marks.get(user) == Some(position) {
                    delivered.marks.remove(user);
                }
            }
        }
    }

    async fn write_passed_over(&self) -> Result<(), Error> {
        let passed_over: Vec<_> = self.inner.delivered.lock().passed_over.iter().cloned().collect();
        for chunk in chunks(&passed_over) {
            let written = chunk.to_vec();
            let write = self.inner.database.write(move |connection| {
                Box::pin(async move {
                    let sql = format!(
                        "INSERT INTO passed_over (user_id, position) VALUES {} ON CONFLICT (user_id, position) DO NOTHING",
                        rows(connection, 1, written.len(), 2)
                    );
                    let mut query = statement(sql);
                    for (user, position) in &written {
                        query = query.bind(user.as_str()).bind(position.cast_signed());
                    }
                    query.execute(connection).await.map(|_| ())
                })
            });
            write.await?;
            let mut delivered = self.inner.delivered.lock();
            delivered.passed_over.retain(|passed_over| !chunk.contains(passed_over));
        }
        Ok(())
    }

    async fn write_some(&self, marks: Vec<(UserId, u64)>) -> Result<(), Error> {
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                let sql = format!(
                    "INSERT INTO delivered_marks (user_id, position) VALUES {} \
                     ON CONFLICT (user_id) DO UPDATE SET position = excluded.position \
                     WHERE excluded.position > delivered_marks.position",
                    rows(connection, 1, marks.len(), 2)
                );
                let mut query = statement(sql);
                for (user, position) in &marks {
                    query = query.bind(user.as_str()).bind(position.cast_signed());
                }
                query.execute(connection).await.map(|_| ())
            })
        });
        write.await
    }
}
