//! The grace of first resumes, if several nodes share the database: a row that ends by the database's clock, so that a device that comes back to
//! another node begins where it began. The watermark moves meanwhile.
//!
//! The devices that resume while a transaction is under way are noted together by the next one.

use std::collections::HashMap;

use parking_lot::Mutex;
use sqlx::{AnyConnection, Row};
use tokio::sync::{Notify, oneshot};

use super::{
    Undelivered,
    watermark::GRACE,
    writing::{MAX_ROWS, TakenChunk},
};
use crate::message::UserId;
use crate::store::{
    Error, Status, Store,
    deadlines::Allowance,
    rows::{Rows, parts},
};

/// Devices that resume for the first time, and wait for where they begin.
#[derive(Default)]
pub(super) struct FirstResumes {
    waiting: Mutex<Vec<Waiting>>,
    has_come: Notify,
}

struct Waiting {
    user: UserId,
    answer: oneshot::Sender<Result<u64, Error>>,
}

/// Notes first resumes in the database until the store is closed.
pub(in crate::store) async fn run(store: Store) {
    let inner = &store.inner;
    let first_resumes = &inner.watermarks.first_resumes;
    loop {
        tokio::select! {
            () = inner.closed.cancelled() => return,
            () = first_resumes.has_come.notified() => {}
        }
        while let Some(batch) = first_resumes.take() {
            let users: Vec<_> = batch.iter().map(|waiting| waiting.user.clone()).collect();
            let positions = store.inner.database.within(Allowance::Other, store.write_first_resumes(users)).await;
            for Waiting { user, answer } in batch {
                let begin =
                    positions.as_ref().map(|positions| positions.get(user.as_str()).copied().unwrap_or_default());
                // The connection may be gone.
                let _ = answer.send(begin.map_err(Clone::clone));
            }
        }
    }
}

impl FirstResumes {
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|waiting| !waiting.answer.is_closed());
        let count = waiting.len().min(MAX_ROWS);
        (count > 0).then(|| waiting.drain(..count).collect())
    }
}

impl Store {
    /// Begins a user's grace, or prolongs it. Returns what a device is given that resumes for the first time. While the store can be read but not
    /// written there is no grace: the device begins at the watermark.
    pub(super) async fn begin_shared_first_resume(&self, user: &UserId) -> Result<Undelivered, Error> {
        self.inner.database.within(Allowance::Other, self.begin_and_read(user)).await
    }

    async fn begin_and_read(&self, user: &UserId) -> Result<Undelivered, Error> {
        let inner = &self.inner;
        let (answer, answered) = oneshot::channel();
        inner.watermarks.first_resumes.waiting.lock().push(Waiting { user: user.clone(), answer });
        inner.watermarks.first_resumes.has_come.notify_one();
        let begin = tokio::select! {
            begin = answered => begin.map_err(|_| Error::Closed)?,
            () = inner.closed.cancelled() => return Err(Error::Closed),
        };
        let begin = match begin {
            Err(_) if self.status() == Status::Unwritable => return self.undelivered(user).await,
            begin => begin?,
        };
        // After the position: what the watermark had passed then was skipped before.
        let Undelivered { skipped, .. } = self.undelivered(user).await?;
        Ok(Undelivered { after: begin, skipped: skipped.into_iter().filter(|number| *number <= begin).collect() })
    }

    /// What this node has not written of the users is written before: a device begins at the position in the database.
    async fn write_first_resumes(&self, mut users: Vec<UserId>) -> Result<HashMap<String, u64>, Error> {
        users.sort_unstable();
        users.dedup();
        let watermarks = &self.inner.watermarks;
        let _writing = watermarks.writing.lock().await;
        let chunk = TakenChunk::new(watermarks, watermarks.users.lock().take_of(&users, MAX_ROWS));
        let (store, of_users) = (self.clone(), chunk.chunk.clone());
        let write = self.inner.database.write(move |connection| {
            Box::pin(async move {
                store.merge_chunk(connection, &of_users).await?;
                upsert(connection, &users).await
            })
        });
        let positions = write.await?;
        chunk.written();
        Ok(positions)
    }
}

/// The grace ends this time after the last first resume. All that resume before begin where the first one did.
async fn upsert(connection: &mut AnyConnection, users: &[UserId]) -> sqlx::Result<HashMap<String, u64>> {
    const NOW: &str = "(EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT";
    let mut positions = HashMap::new();
    for part in parts(connection, users.len()) {
        let rows = Rows::new(connection, users[part].iter().map(|user| [user.as_str().into()]))?;
        let sql = format!(
            "INSERT INTO first_resumes (user_id, begins_after, expires_at) \
             SELECT resuming.user_id, COALESCE(delivered_marks.position, 0), {NOW} + {} \
             FROM ({}) AS resuming (user_id) \
             LEFT JOIN delivered_marks ON delivered_marks.user_id = resuming.user_id \
             ORDER BY resuming.user_id COLLATE \"C\" \
             ON CONFLICT (user_id) DO UPDATE SET expires_at = excluded.expires_at, begins_after = \
             CASE WHEN first_resumes.expires_at > {NOW} THEN LEAST(first_resumes.begins_after, excluded.begins_after) \
             ELSE excluded.begins_after END RETURNING user_id, begins_after",
            GRACE.as_millis(),
            rows.sql()
        );
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            positions.insert(row.try_get(0)?, row.try_get::<i64, _>(1)?.cast_unsigned());
        }
    }
    Ok(positions)
}
