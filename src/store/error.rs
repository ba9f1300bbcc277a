use std::sync::Arc;

/// Why the store did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// `store.url` names no database that is known here.
    #[error("is neither sqlite:FILE, sqlite::memory: nor postgres://…")]
    Url,
    /// The database did not answer, or does not write. Whether something was kept is not known.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// The database did not answer the last time, and was not asked this time: nothing was kept.
    #[error("the store is known to be out of reach")]
    Unreachable,
    /// What is kept cannot be understood.
    #[error("the store holds something that is broken: {0}")]
    Broken(&'static str),
    /// The process is stopping.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// What the database said, for logs.
    pub fn cause(&self) -> Option<tracing::field::DisplayValue<&sqlx::Error>> {
        match self {
            Self::Unavailable(cause) => Some(tracing::field::display(&**cause)),
            Self::Url | Self::Unreachable | Self::Broken(_) | Self::Closed => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.into())
    }
}
