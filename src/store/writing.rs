//! What one transaction writes. A process that is alone writes emits and changes together. A node of a cluster does not: emits lock the rows of
//! mailboxes, in their order, and changes lock others, so that each kind has a transaction of its own and nodes do not wait for each other in a circle.
//! Where they do, the database ends one of them, and that is done again after a pause. If it meets others each time, it fails.

use std::{ops::Range, time::Duration};

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Appended, NewMessage, append::append_all, batch::Batch, changes::Changes, failure::Failure, lease::Renewed,
    session::Session, source::Kind, writer::Queues,
};

/// Changes are added to a transaction for so long, as long as no emits wait.
const CHANGES: Duration = Duration::from_millis(10);
/// How often a transaction is begun that meets those of other nodes.
const TRIES: u32 = 5;
/// The first pause before it is begun again; they double. All together are short, as others wait meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// The tries of one transaction.
#[derive(Default)]
struct Tries(u32);

impl Tries {
    /// Whether a transaction is begun again. Waits before that, for a random time: the nodes whose transactions have met do not begin them together.
    async fn go_on(&mut self, is_conflict: bool) -> bool {
        self.0 += 1;
        let goes_on = is_conflict && self.0 < TRIES;
        if goes_on {
            sleep(pause(self.0, Uuid::new_v4().as_bytes()[0])).await;
        }
        goes_on
    }
}

/// From half of the longest one to that.
fn pause(tries: u32, jitter: u8) -> Duration {
    let longest = PAUSE * (1 << (tries - 1));
    longest / 2 + longest / 2 * u32::from(jitter) / u32::from(u8::MAX)
}

impl Session {
    /// Writes a batch, or changes that wait; a process that is alone, both. Without any, renews the lease.
    pub(super) async fn write(&mut self, batch: &mut Batch, queues: &mut Queues) -> Result<Vec<Appended>, Failure> {
        if self.is_shared() {
            return self.write_shared(batch, queues).await;
        }
        if batch.messages.is_empty()
            && !batch.has_repetitions()
            && !queues.has_changes()
            && self.kind() != Kind::Postgres
        {
            self.lock().await?;
            return Ok(Vec::new());
        }
        let place = self.place()?;
        let mut transaction = self.begin().await?;
        let now_ms = transaction.now_ms;
        let appended = match append_all(&mut transaction.inner, (&place.0, place.1), now_ms, &batch.messages).await {
            Ok(appended) => appended,
            Err(error) => return Err(transaction.fail(error).await),
        };
        let begun = Instant::now();
        while let Some(mut changes) = batch.next_changes(queues) {
            let made = changes.make(&mut transaction.inner, now_ms).await;
            let (done, failed) = made.map_or_else(|error| (Ok(()), Some(error)), |done| (done, None));
            // What failed alone is answered with the batch.
            batch.changed(changes, done);
            if let Some(error) = failed {
                return Err(transaction.fail(error).await);
            }
            if !batch.has_repetitions() && (queues.has_emits() || begun.elapsed() >= CHANGES) {
                break;
            }
        }
        let writes = transaction.commit().await?;
        self.committed(writes).await?;
        Ok(appended)
    }

    async fn write_shared(&mut self, batch: &mut Batch, queues: &mut Queues) -> Result<Vec<Appended>, Failure> {
        if self.beat.is_due() {
            self.renew().await?;
        }
        if !batch.messages.is_empty() {
            return self.append(&batch.messages).await;
        }
        if let Some(mut changes) = batch.next_changes(queues) {
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
        let mut tries = Tries::default();
        let appended = loop {
            let appended = self.append_once(messages).await;
            if !tries.go_on(appended.as_ref().is_err_and(Failure::is_conflict)).await {
                break appended?;
            }
        };
        let last = messages.iter().zip(&appended).rev().find_map(|(message, appended)| match appended {
            Appended::New { position, .. } => Some((message.room.clone(), position.number)),
            Appended::Known { .. } | Appended::KeyReused | Appended::Refused(_) => None,
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
        match append_all(&mut transaction.inner, (&place.0, place.1), now_ms, messages).await {
            Ok(appended) => {
                transaction.commit().await?;
                Ok(appended)
            }
            Err(error) => Err(transaction.fail(error).await),
        }
    }

    /// Makes changes. There are no savepoints, which would be two round trips: if anything fails, the transaction is rolled back.
    async fn change(&mut self, changes: &mut Changes) -> Result<sqlx::Result<()>, Failure> {
        let made = self.change_some(changes, 0..changes.len()).await?;
        if !changes.is_split_by(&made) {
            return Ok(made);
        }
        // What is damaged fails alone.
        for n in 0..changes.len() {
            if let Err(error) = self.change_some(changes, n..n + 1).await? {
                changes.failed(n, error);
            }
        }
        Ok(Ok(()))
    }

    async fn change_some(&mut self, changes: &mut Changes, some: Range<usize>) -> Result<sqlx::Result<()>, Failure> {
        let mut tries = Tries::default();
        loop {
            let made = self.change_once(changes, some.clone()).await;
            if !tries.go_on(made.as_ref().is_err_and(Failure::is_conflict)).await {
                return made;
            }
        }
    }

    async fn change_once(&mut self, changes: &mut Changes, some: Range<usize>) -> Result<sqlx::Result<()>, Failure> {
        let mut transaction = self.begin().await?;
        let now_ms = transaction.now_ms;
        match changes.make_some(&mut transaction.inner, some, now_ms).await {
            Ok(()) => {
                transaction.commit().await?;
                Ok(Ok(()))
            }
            Err(error) => transaction.fail_alone(error).await,
        }
    }

    /// Renews a lease that nodes share.
    pub(super) async fn renew(&mut self) -> Result<(), Failure> {
        let (Some(connection), Some(held)) = (&mut self.connection, &self.held) else {
            return Err(sqlx::Error::PoolClosed.into());
        };
        match self.beat.renew(connection, held).await.map_err(Failure::before_commit)? {
            Renewed::Yes { now_ms, .. } => {
                self.database.note_time(now_ms);
                Ok(())
            }
            Renewed::Lost => Err(Failure::Lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_vary() {
        let longest = [1, 2, 3, 4].map(|tries| pause(tries, u8::MAX).as_millis());
        let shortest = [1, 2, 3, 4].map(|tries| pause(tries, 0).as_millis());
        assert_eq!((longest, shortest), ([10, 20, 40, 80], [5, 10, 20, 40]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_meets_others_is_begun_five_times_and_pauses_in_between() {
        let (mut tries, begun) = (Tries::default(), Instant::now());
        for _ in 1..TRIES {
            assert!(tries.go_on(true).await);
        }
        assert!(begun.elapsed() >= PAUSE / 2 * (1 + 2 + 4 + 8));
        assert!(!tries.go_on(true).await && !Tries::default().go_on(false).await);
    }
}
