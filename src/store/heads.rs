//! Where those mailboxes stand in which something was stored lately.

use std::time::Duration;

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{Error, Store, append::statement, source::Kind};
use crate::message::RoomName;

impl Store {
    /// The rooms in which something was stored within this period, by the database's clock, and is there, each with its last position. A
    /// transaction commits up to eight seconds after the time that its messages carry: the period should be longer than what is asked about.
    pub async fn appended_within(&self, period: Duration) -> Result<Vec<(RoomName, u64)>, Error> {
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            return model.read(&self.inner.database, |data| data.appended_within(period)).await;
        }
        let period_ms = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        let (kind, now_ms) = (self.inner.database.parts().source.kind, self.now_ms());
        let ahead_ms = self.inner.database.parts().clock.ahead_ms();
        let read = self.inner.database.read(move |connection| {
            Box::pin(async move {
                // By the index of ages, on both databases. `NOW()` is one value for the statement: with one that varies it would not be used.
                let (since, bound) = match kind {
                    Kind::Postgres => {
                        ("(EXTRACT(EPOCH FROM NOW()) * 1000)::BIGINT + $1", ahead_ms.saturating_sub(period_ms))
                    }
                    Kind::Sqlite | Kind::SqliteInMemory => ("$1", now_ms.saturating_sub(period_ms)),
                };
                appended_since(connection, since, bound).await
            })
        });
        Ok(named(read.await?).collect())
    }
}

async fn appended_since(
    connection: &mut AnyConnection,
    since: &'static str,
    bound: i64,
) -> sqlx::Result<Vec<(String, u64)>> {
    let sql = format!(
        "SELECT room, last FROM mailboxes WHERE room IN (SELECT room FROM messages WHERE stored_at >= {since})"
    );
    let rows = statement(sql).bind(bound).fetch_all(connection).await?;
    rows.iter().map(last_of).collect()
}

fn last_of(row: &AnyRow) -> sqlx::Result<(String, u64)> {
    Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.cast_unsigned()))
}

fn named(lasts: Vec<(String, u64)>) -> impl Iterator<Item = (RoomName, u64)> {
    lasts.into_iter().filter_map(|(room, last)| Some((RoomName::new(&room).ok()?, last)))
}
