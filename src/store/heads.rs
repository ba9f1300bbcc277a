//! Where those mailboxes stand in which something was stored lately.

use std::{collections::HashMap, time::Duration};

use sqlx::{AnyConnection, Row};

use super::{Error, Store, deadlines::PATIENCE, rows::statement, source::Kind};
use crate::message::RoomName;

/// So long after the time that it carries, by the database's clock, a message can be read if its writer was told that it is stored.
pub const STORED_WITHIN: Duration = PATIENCE;
/// The same of any message. Its writer has given up after [`STORED_WITHIN`], but a commit that the database had begun by then may go on: it ends within
/// this time, or not at all.
pub const COMMITTED_WITHIN: Duration = Duration::from_mins(1);

/// Messages of one page.
const PAGE: usize = 1_000;

/// What was stored lately, in pages.
pub struct Recent {
    store: Store,
    period: Duration,
    /// The last message of the page before: its time, its room and its position.
    after: Option<Key>,
    is_done: bool,
}

type Key = (i64, String, u64);

impl Store {
    /// What was stored within this period, by the database's clock, and can be read: the period should be longer than what is asked about, by
    /// [`STORED_WITHIN`] or [`COMMITTED_WITHIN`].
    pub fn stored_within(&self, period: Duration) -> Recent {
        Recent { store: self.clone(), period, after: None, is_done: false }
    }

    /// The position of the first message of a mailbox that was stored within this period, by the database's clock.
    pub async fn first_stored_within(&self, room: &RoomName, period: Duration) -> Result<Option<u64>, Error> {
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            return model.read(&self.inner.database, |data| data.first_stored_within(room, period)).await;
        }
        let ((since, bound), room) = (self.since(period), room.clone());
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                let sql = format!("SELECT MIN(position) FROM messages WHERE stored_at >= {since} AND room = $2");
                let row = statement(sql).bind(bound).bind(room.as_str()).fetch_one(connection).await?;
                Ok(row.try_get::<Option<i64>, _>(0)?.map(i64::cast_unsigned))
            })
        });
        read.await
    }

    /// The begin of a period that ends now, in SQL, and what `$1` is in it.
    fn since(&self, period: Duration) -> (&'static str, i64) {
        let period_ms = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        let parts = self.inner.database.parts();
        // `NOW()` is one value for the statement: with one that varies the index of ages would not be used.
        match parts.source.kind {
            Kind::Postgres => {
                ("(EXTRACT(EPOCH FROM NOW()) * 1000)::BIGINT + $1", parts.clock.ahead_ms().saturating_sub(period_ms))
            }
            Kind::Sqlite | Kind::SqliteInMemory => ("$1", self.now_ms().saturating_sub(period_ms)),
        }
    }

    async fn read_stored(&self, period: Duration, after: Option<Key>) -> Result<Vec<Key>, Error> {
        let since = self.since(period);
        let read = self
            .inner
            .database
            .read(move |connection| Box::pin(async move { read_page(connection, since, after).await }));
        read.await
    }
}

impl Recent {
    /// The rooms of the next messages, each with the last of them. `None`: there are no more.
    pub async fn next(&mut self) -> Result<Option<Vec<(RoomName, u64)>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        #[cfg(test)]
        if let Some(model) = &self.store.inner.model {
            self.is_done = true;
            return model.read(&self.store.inner.database, |data| data.stored_within(self.period)).await.map(Some);
        }
        let page = self.store.read_stored(self.period, self.after.take()).await?;
        self.is_done = page.len() < PAGE;
        self.after = page.last().cloned();
        let mut rooms = HashMap::<_, u64>::new();
        for (_, room, position) in page {
            let last = rooms.entry(room).or_default();
            *last = position.max(*last);
        }
        Ok(Some(rooms.into_iter().filter_map(|(room, last)| Some((RoomName::new(&room).ok()?, last))).collect()))
    }
}

async fn read_page(
    connection: &mut AnyConnection,
    (since, bound): (&'static str, i64),
    after: Option<Key>,
) -> sqlx::Result<Vec<Key>> {
    let condition = match &after {
        None => format!("stored_at >= {since}"),
        Some(_) => "stored_at >= $1 AND (stored_at, room, position) > ($1, $2, $3)".to_owned(),
    };
    let sql = format!(
        "SELECT stored_at, room, position FROM messages WHERE {condition} ORDER BY stored_at, room, position LIMIT {PAGE}"
    );
    let query = match after {
        None => statement(sql).bind(bound),
        Some((stored_at, room, position)) => statement(sql).bind(stored_at).bind(room).bind(position.cast_signed()),
    };
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<i64, _>(2)?.cast_unsigned()))).collect()
}
