use std::time::Duration;

use crate::auth::{KeyRefused, MissingScope};
use crate::delivery::BusError;
use crate::message::Invalid;

/// Why a command was refused: the closed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fields are wrong.
    #[error("{}", summary(.0))]
    InvalidArgument(Vec<Violation>),
    /// Nobody that we know.
    #[error("{0}")]
    Unauthenticated(String),
    /// The API key may not do this.
    #[error("{0}")]
    PermissionDenied(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The feature is not configured, or not built.
    #[error("{0}")]
    FailedPrecondition(String),
    /// A limit was met.
    #[error("{message}")]
    ResourceExhausted {
        /// Which one, and what to do.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The server is stopping, or cannot reach what it needs.
    #[error("{0}")]
    Unavailable(String),
    /// The caller's deadline passed.
    #[error("the deadline passed before the call was done")]
    DeadlineExceeded,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request.
    pub field: String,
    /// What is wrong with it, to be read after the field's name.
    pub description: String,
}

impl Violation {
    /// What is wrong with a field.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }

    /// What is wrong with a field's value.
    pub fn of(field: impl Into<String>, invalid: &Invalid) -> Self {
        Self::new(field, invalid.to_string())
    }
}

fn summary(violations: &[Violation]) -> String {
    let each: Vec<_> = violations.iter().map(|v| format!("{} {}", v.field, v.description)).collect();
    each.join("; ")
}

impl Error {
    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::InvalidArgument(vec![Violation::new(field, description)])
    }

    /// The engine between the nodes has no memory left for what is to be kept.
    pub(super) fn full(error: BusError) -> Self {
        /// Values and keys are kept until they end or are taken away, so there is no better time to name.
        const RETRY: Duration = Duration::from_mins(1);
        let message = format!("{error}: nothing was sent or kept. Take retained values away, or give it more memory");
        Self::ResourceExhausted { message, retry_after: RETRY }
    }

    /// The code that it is answered with, for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "INVALID_ARGUMENT",
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::PermissionDenied(_) => "PERMISSION_DENIED",
            Self::NotFound(_) => "NOT_FOUND",
            Self::FailedPrecondition(_) => "FAILED_PRECONDITION",
            Self::ResourceExhausted { .. } => "RESOURCE_EXHAUSTED",
            Self::Unavailable(_) => "UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
        }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::InvalidArgument(vec![violation])
    }
}

/// What was asked may be done on some nodes, and is safe to ask again.
impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Full => Self::full(error),
            BusError::Away | BusError::Unanswered | BusError::Refused => {
                Self::Unavailable(format!("{error}, so the other nodes did not answer: ask again"))
            }
        }
    }
}

impl From<MissingScope> for Error {
    fn from(missing: MissingScope) -> Self {
        Self::PermissionDenied(missing.to_string())
    }
}

impl From<KeyRefused> for Error {
    fn from(refused: KeyRefused) -> Self {
        Self::Unauthenticated(refused.to_string())
    }
}
