use std::collections::BTreeSet;

use sqlx::Row;

use super::{
    super::{Error, Store, deadlines::Allowance, lookups::Written},
    shared::insert_skipped_range,
    users::Incarnation,
    watermark::Watermark,
};
use crate::message::{RoomName, UserId};

/// What no device of a user has proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// All messages after this position.
    pub after: u64,
    /// Of those up to it, the skipped ones, in order.
    pub skipped: Vec<u64>,
}

impl Undelivered {
    /// What this process knows, and what the database holds: of each the watermark and the skipped messages. What this process knows to be
    /// proven is in neither.
    pub(super) fn merged(
        (position, skipped, cleared): (u64, BTreeSet<u64>, &BTreeSet<u64>),
        (written, of_database): (u64, Vec<u64>),
    ) -> Self {
        // Up to there the database knows best.
        let mut all: BTreeSet<u64> = skipped.into_iter().filter(|number| *number > written).collect();
        all.extend(of_database);
        let after = position.max(written);
        let skipped = all.into_iter().filter(|number| *number <= after && !cleared.contains(number)).collect();
        Self { after, skipped }
    }
}

impl Store {
    /// What no device of a user has proven.
    pub async fn undelivered(&self, user: &UserId) -> Result<Undelivered, Error> {
        let reading = async {
            loop {
                let incarnation = self.incarnation();
                let undelivered = self.read_undelivered(user).await?;
                // Otherwise what was in memory and what is in the database do not belong together.
                if self.incarnation() == incarnation {
                    return Ok(undelivered);
                }
            }
        };
        self.inner.database.within(Allowance::Other, reading).await
    }

    async fn read_undelivered(&self, user: &UserId) -> Result<Undelivered, Error> {
        // Before the database is read: what the writer moves there meanwhile is found in both places, not in none.
        let known = self.inner.watermarks.users.lock().get(user).map(Watermark::known);
        let (position, skipped, mut cleared) = known.unwrap_or_default();
        let Written { watermark: written, has_skipped } = self.written_watermark(user).await?;
        let of_database = if has_skipped { self.skipped_of(user).await? } else { Vec::new() };
        if let Some(watermark) = self.inner.watermarks.users.lock().get(user) {
            cleared.extend(watermark.cleared());
        }
        Ok(Undelivered::merged((position, skipped, &cleared), (written, of_database)))
    }

    async fn skipped_of(&self, user: &UserId) -> Result<Vec<u64>, Error> {
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            return model.read(&self.inner.database, |data| data.skipped_of(user)).await;
        }
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
}

/// Notes all undelivered messages of a user up to a position as skipped. The caller holds [`super::Watermarks::writing`].
pub(super) async fn skip_in_database(
    store: &Store,
    user: &UserId,
    incarnation: Incarnation,
    position: u64,
) -> Result<(), Error> {
    let Undelivered { after, .. } = store.undelivered(user).await?;
    #[cfg(test)]
    if let Some(model) = &store.inner.model {
        let skip = |data: &mut super::super::model::Data| {
            if store.incarnation() == incarnation {
                data.skip(user, after, position);
            }
        };
        return model.write(&store.inner.database, skip).await;
    }
    let (of_store, owner) = (store.clone(), user.clone());
    let write = store.inner.database.write(move |connection| {
        Box::pin(async move {
            if of_store.incarnation() != incarnation {
                return Ok(());
            }
            if of_store.inner.watermarks.is_shared() {
                return insert_skipped_range(connection, &owner, (after, position)).await;
            }
            let sql = "INSERT INTO passed_over (user_id, position) SELECT $1, position FROM messages \
                       WHERE room = $2 AND position > $3 AND position <= $4 ON CONFLICT (user_id, position) DO NOTHING";
            let query = sqlx::query(sql).bind(owner.as_str()).bind(RoomName::of_user(&owner).to_string());
            let query = query.bind(after.cast_signed()).bind(position.cast_signed());
            query.execute(connection).await.map(|_| ())
        })
    });
    write.await
}
