use std::io;

use super::{
    Error,
    database::{is_cancelled, is_conflict, is_cut},
    error::{is_damaged, is_violated},
};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the database refused: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("the database has ended the connection before anything was committed: {0}")]
    Uncommitted(#[source] sqlx::Error),
    #[error("the database did not answer in time")]
    TimedOut,
    #[error(
        "another process has taken the lease, or the database has lost what was committed: it was restored, or is a standby that lagged"
    )]
    Lost,
    #[error("another process holds the lease")]
    HeldByAnother,
    #[error("the file was deleted or replaced")]
    FileGone,
    /// A SQLite file, or the file beside it, cannot be locked. The error names it.
    #[error(transparent)]
    Lock(io::Error),
}

impl Failure {
    /// Whether what was written met damaged data: other data may be whole.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Sql(error) if is_damaged(error))
    }

    /// Whether a statement would have violated a constraint. The connection is whole.
    pub(super) fn is_violation(&self) -> bool {
        matches!(self, Self::Sql(error) if is_violated(error))
    }

    /// Whether the transaction met one of another node, and can be done again.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Sql(error) if is_conflict(error))
    }

    /// Whether the database has cancelled a statement: other statements may be executed.
    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Sql(error) if is_cancelled(error))
    }

    /// Of a transaction that was not committed, as this came before.
    pub(super) fn before_commit(error: sqlx::Error) -> Self {
        if is_cut(&error) { Self::Uncommitted(error) } else { Self::Sql(error) }
    }

    /// What those are told who asked for something.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Sql(error) => error.into(),
            Self::TimedOut => sqlx::Error::PoolTimedOut.into(),
            Self::FileGone => sqlx::Error::Io(io::ErrorKind::NotFound.into()).into(),
            // Nothing was written.
            Self::Uncommitted(_) | Self::Lost | Self::HeldByAnother | Self::Lock(_) => Error::Unreachable,
        }
    }
}
