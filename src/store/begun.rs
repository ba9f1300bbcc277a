use std::ops::{Deref, DerefMut};

use sqlx::{Any, AnyConnection, Executor, Transaction};

use super::{
    database::{is_conflict, is_cut_idle, is_unwritable},
    error::is_violated,
    failure::Failure,
};

/// A transaction of this process's generation.
pub(super) struct Begun<'a> {
    pub(super) inner: Inner<'a>,
    pub(super) writes: i64,
    /// The time of day by the database's clock.
    pub(super) now_ms: i64,
}

pub(super) enum Inner<'a> {
    /// Of a process that is alone.
    Alone(Transaction<'a, Any>),
    /// Of a node of a cluster. The library does not know of this transaction, since it was begun and the lease checked in one round trip: there are
    /// no savepoints in it. The session has its connection back once the transaction is ended; if this is dropped before, it is closed.
    Shared { connection: AnyConnection, session: &'a mut Option<AnyConnection> },
}

impl Begun<'_> {
    /// Ends a transaction that has failed, and says why. If it met one of another node, it is rolled back now: it is begun again only after a pause. So
    /// is one that would have violated a constraint: its connection serves the next one.
    pub(super) async fn fail(self, error: sqlx::Error) -> Failure {
        self.inner.fail(error).await
    }

    /// Rolls back what has failed alone. The outer error is that of the transaction.
    pub(super) async fn fail_alone(self, error: sqlx::Error) -> Result<sqlx::Result<()>, Failure> {
        if is_unwritable(&error) || is_conflict(&error) {
            return Err(self.fail(error).await);
        }
        match self.inner.rollback().await {
            Ok(()) => Ok(Err(error)),
            // The connection is lost.
            Err(_) => Err(Failure::Uncommitted(error)),
        }
    }

    pub(super) async fn commit(self) -> Result<i64, Failure> {
        let committed = self.inner.commit().await;
        committed.map_err(|error| if is_cut_idle(&error) { Failure::Uncommitted(error) } else { error.into() })?;
        Ok(self.writes)
    }
}

impl<'a> Inner<'a> {
    pub(super) fn take(session: &'a mut Option<AnyConnection>) -> sqlx::Result<Self> {
        let connection = session.take().ok_or(sqlx::Error::PoolClosed)?;
        Ok(Self::Shared { connection, session })
    }

    pub(super) async fn fail(self, error: sqlx::Error) -> Failure {
        // A connection on which that fails is of no use.
        if (is_conflict(&error) || is_violated(&error)) && self.rollback().await.is_err() {
            return Failure::Uncommitted(error);
        }
        Failure::before_commit(error)
    }

    async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Alone(transaction) => transaction.commit().await,
            Self::Shared { connection, session } => end(connection, session, "COMMIT").await,
        }
    }

    pub(super) async fn rollback(self) -> sqlx::Result<()> {
        match self {
            Self::Alone(transaction) => transaction.rollback().await,
            Self::Shared { connection, session } => end(connection, session, "ROLLBACK").await,
        }
    }
}

async fn end(
    mut connection: AnyConnection,
    session: &mut Option<AnyConnection>,
    sql: &'static str,
) -> sqlx::Result<()> {
    connection.execute(sql).await?;
    *session = Some(connection);
    Ok(())
}

impl Deref for Inner<'_> {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        match self {
            Self::Alone(transaction) => transaction,
            Self::Shared { connection, .. } => connection,
        }
    }
}

impl DerefMut for Inner<'_> {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        match self {
            Self::Alone(transaction) => transaction,
            Self::Shared { connection, .. } => connection,
        }
    }
}
