use std::ops::Range;

use sqlx::{Any, AnyConnection, Connection, Transaction};

use super::{
    Error,
    database::{is_conflict, is_unwritable},
    delete::{self, Deletion},
    error::is_damaged,
    marks::{self, Mark},
    writer::Work,
};

/// Changes that are made by the same statements.
pub(super) enum Changes {
    Marks(Vec<Mark>),
    Deletions(Vec<Deletion>),
    Other(Box<dyn Work>),
}

impl Changes {
    /// Makes them, or none of them, within a transaction. The outer error is that of the whole transaction.
    pub(super) async fn make(&mut self, connection: &mut AnyConnection, now_ms: i64) -> sqlx::Result<sqlx::Result<()>> {
        let made = self.make_within_savepoint(connection, 0..self.len(), now_ms).await?;
        if !self.is_split_by(&made) {
            return Ok(made);
        }
        // What is damaged fails alone.
        for n in 0..self.len() {
            if let Err(error) = self.make_within_savepoint(connection, n..n + 1, now_ms).await? {
                self.failed(n, error);
            }
        }
        Ok(Ok(()))
    }

    async fn make_within_savepoint(
        &mut self,
        connection: &mut AnyConnection,
        some: Range<usize>,
        now_ms: i64,
    ) -> sqlx::Result<sqlx::Result<()>> {
        let mut savepoint = connection.begin().await?;
        let made = self.make_some(&mut savepoint, some, now_ms).await;
        end(savepoint, made).await
    }

    /// Makes some of them, within a transaction that fails if they fail.
    pub(super) async fn make_some(
        &mut self,
        connection: &mut AnyConnection,
        some: Range<usize>,
        now_ms: i64,
    ) -> sqlx::Result<()> {
        match self {
            Self::Marks(marks) => marks::write(connection, &mut marks[some], now_ms).await,
            Self::Deletions(deletions) => delete::write(connection, &mut deletions[some], now_ms).await,
            Self::Other(work) => work.run(connection).await,
        }
    }

    /// Whether this has to be found out of each alone.
    pub(super) fn is_split_by(&self, made: &sqlx::Result<()>) -> bool {
        self.len() > 1 && made.as_ref().is_err_and(is_damaged)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Marks(marks) => marks.len(),
            Self::Deletions(deletions) => deletions.len(),
            Self::Other(_) => 1,
        }
    }

    /// One of several could not be made, and the others were.
    pub(super) fn failed(&mut self, n: usize, error: sqlx::Error) {
        match self {
            Self::Marks(marks) => marks[n].failed(error),
            Self::Deletions(deletions) => deletions[n].failed(error),
            Self::Other(_) => {}
        }
    }

    pub(super) fn answer(self, committed: &Result<(), Error>) {
        match self {
            Self::Marks(marks) => marks.into_iter().for_each(|mark| mark.answer(committed.clone())),
            Self::Deletions(deletions) => {
                for deletion in deletions {
                    deletion.answer(committed.clone());
                }
            }
            Self::Other(work) => work.answer(committed.clone()),
        }
    }
}

async fn end(savepoint: Transaction<'_, Any>, made: sqlx::Result<()>) -> sqlx::Result<sqlx::Result<()>> {
    match made {
        Ok(()) => savepoint.commit().await.map(Ok),
        Err(error) if is_unwritable(&error) || is_conflict(&error) => Err(error),
        Err(error) => match savepoint.rollback().await {
            Ok(()) => Ok(Err(error)),
            // The database has ended the whole transaction.
            Err(_) => Err(error),
        },
    }
}
