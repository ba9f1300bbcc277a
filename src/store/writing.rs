//! What one transaction writes. A process that is alone writes emits and changes together. A node of a cluster does not: emits lock the rows of
//! mailboxes, in their order, and changes lock others, so that each kind has a transaction of its own and nodes do not wait for each other in a circle.
//! Where they do, the database ends one of them, and that is done again.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Appended, NewMessage, append::append_all, batch::Batch, changes::Changes, failure::Failure, lease::Renewed,
    session::Session, source::Kind, writer::Queues,
};

/// Changes are added to a transaction for so long, as long as no emits wait.
const CHANGES: Duration = Duration::from_millis(10);
/// How often a transaction is begun that meets those of other nodes.
const TRIES: usize = 5;

impl Session {
    /// Writes a batch, or changes that wait; a process that is alone, both. Without any, renews the lease.
    pub(super) async fn write(&mut self, batch: &mut Batch, queues: &mut Queues) -> Result<Vec<Appended>, Failure> {
        if self.is_shared() {
            return self.write_shared(batch, queues).await;
        }
        if batch.messages.is_empty() && !queues.has_changes() && self.kind() != Kind::Postgres {
            self.lock()?;
            return Ok(Vec::new());
        }
        let place = self.place()?;
        let mut transaction = self.begin().await?;
        let now_ms = transaction.now_ms;
        let appended = append_all(&mut transaction.inner, (&place.0, place.1), now_ms, &batch.messages).await?;
        let begun = Instant::now();
        while let Some(mut changes) = queues.take_change() {
            let made = changes.make(&mut transaction.inner, now_ms).await;
            let (done, failed) = made.map_or_else(|error| (Ok(()), Some(error)), |done| (done, None));
            // What failed alone is answered with the batch.
            batch.changed(changes, done);
            if let Some(error) = failed {
                return Err(error.into());
            }
            if queues.has_emits() || begun.elapsed() >= CHANGES {
                break;
            }
        }
        let writes = transaction.commit().await?;
        self.committed(writes)?;
        Ok(appended)
    }

    async fn write_shared(&mut self, batch: &mut Batch, queues: &mut Queues) -> Result<Vec<Appended>, Failure> {
        if self.beat.is_due() {
            self.renew().await?;
        }
        if !batch.messages.is_empty() {
            return self.append(&batch.messages).await;
        }
        if let Some(mut changes) = queues.take_change() {
            let changed = self.change(&mut changes).await;
            let (done, failure) = changed.map_or_else(|failure| (Ok(()), Some(failure)), |done| (done, None));
            batch.changed(changes, done);
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        Ok(Vec::new())
    }

    async fn append(&mut self, messages: &[NewMessage]) -> Result<Vec<Appended>, Failure> {
        let mut tries = 1;
        let appended = loop {
            match self.append_once(messages).await {
                Err(failure) if failure.is_conflict() && tries < TRIES => tries += 1,
                appended => break appended?,
            }
        };
        let last = messages.iter().zip(&appended).rev().find_map(|(message, appended)| match appended {
            Appended::New { position } => Some((message.room.clone(), position.number)),
            Appended::Known { .. } | Appended::KeyReused => None,
        });
        if let Some((room, position)) = last {
            self.beat.committed(room, position);
        }
        Ok(appended)
    }

    async fn append_once(&mut self, messages: &[NewMessage]) -> Result<Vec<Appended>, Failure> {
        let place = self.place()?;
        let mut transaction = self.begin().await?;
        let now_ms = transaction.now_ms;
        let appended = append_all(&mut transaction.inner, (&place.0, place.1), now_ms, messages).await?;
        transaction.commit().await?;
        Ok(appended)
    }

    async fn change(&mut self, changes: &mut Changes) -> Result<sqlx::Result<()>, Failure> {
        let mut tries = 1;
        loop {
            match self.change_once(changes).await {
                Err(failure) if failure.is_conflict() && tries < TRIES => tries += 1,
                made => return made,
            }
        }
    }

    async fn change_once(&mut self, changes: &mut Changes) -> Result<sqlx::Result<()>, Failure> {
        let mut transaction = self.begin().await?;
        let now_ms = transaction.now_ms;
        let made = changes.make(&mut transaction.inner, now_ms).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Renews a lease that nodes share.
    pub(super) async fn renew(&mut self) -> Result<(), Failure> {
        let (Some(connection), Some(held)) = (&mut self.connection, &self.held) else {
            return Err(sqlx::Error::PoolClosed.into());
        };
        match self.beat.renew(connection, held).await? {
            Renewed::Yes { now_ms, .. } => {
                self.database.note_time(now_ms);
                Ok(())
            }
            Renewed::Lost => Err(Failure::Lost),
        }
    }
}
