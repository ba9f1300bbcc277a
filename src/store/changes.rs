use sqlx::{Any, AnyConnection, Connection, Transaction};

use super::{
    Error,
    database::{is_conflict, is_unwritable},
    error::is_damaged,
    marks::{self, Mark},
    writer::Work,
};

/// Changes that are made by the same statements.
pub(super) enum Changes {
    Marks(Vec<Mark>),
    Other(Box<dyn Work>),
}

impl Changes {
    /// Makes them, or none of them, within a transaction. The outer error is that of the whole transaction.
    pub(super) async fn make(&mut self, connection: &mut AnyConnection, now_ms: i64) -> sqlx::Result<sqlx::Result<()>> {
        let error = match self.make_all(connection, now_ms).await? {
            Err(error) if is_damaged(&error) => error,
            made => return Ok(made),
        };
        let Self::Marks(marks) = self else {
            return Ok(Err(error));
        };
        // What is damaged fails alone.
        for mark in marks {
            let mut savepoint = connection.begin().await?;
            let made = marks::write(&mut savepoint, std::slice::from_mut(mark), now_ms).await;
            if let Err(error) = end(savepoint, made).await? {
                mark.failed(error);
            }
        }
        Ok(Ok(()))
    }

    async fn make_all(&mut self, connection: &mut AnyConnection, now_ms: i64) -> sqlx::Result<sqlx::Result<()>> {
        let mut savepoint = connection.begin().await?;
        let made = match self {
            Self::Marks(marks) => marks::write(&mut savepoint, marks, now_ms).await,
            Self::Other(work) => work.run(&mut savepoint).await,
        };
        end(savepoint, made).await
    }

    pub(super) fn answer(self, committed: &Result<(), Error>) {
        match self {
            Self::Marks(marks) => marks.into_iter().for_each(|mark| mark.answer(committed.clone())),
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
