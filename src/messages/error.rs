use std::time::Duration;

use crate::delivery::EmitError;
use crate::limits::TooFast;
use crate::store::{self, DirectRefusal};

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{field:?} {problem}")]
    Invalid {
        /// Which one.
        field: Field,
        /// What is wrong, to be read after the field's name.
        problem: String,
    },
    /// The user may not do this.
    #[error("{0}")]
    Denied(&'static str),
    /// There is no such thing, or the user is no side of it.
    #[error("{0}")]
    NotFound(&'static str),
    /// The sender's id of the message was used for another one.
    #[error("the sender's id of the message was used for another one")]
    KeyReused,
    /// The message that was sent under the sender's id of it was deleted.
    #[error("the message that was sent under this id was deleted")]
    Deleted,
    /// A rate was exceeded.
    #[error("{limit} is exceeded: try again in {} ms", retry_after.as_millis().max(1))]
    TooFast {
        /// Which one.
        limit: &'static str,
        /// When it may happen again.
        retry_after: Duration,
    },
    /// The message was not sent.
    #[error(transparent)]
    Emit(EmitError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A field, which devices and backends call differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The receiver of a message.
    Receiver,
    /// What a message says.
    Content,
    /// The other user.
    Peer,
    /// After how many messages a page begins.
    Offset,
}

impl Error {
    pub(super) fn invalid(field: Field, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    pub(super) fn too_fast(limit: &'static str) -> impl Fn(TooFast) -> Self {
        move |TooFast { retry_after }| Self::TooFast { limit, retry_after }
    }
}

impl From<DirectRefusal> for Error {
    fn from(refusal: DirectRefusal) -> Self {
        Self::Denied(match refusal {
            DirectRefusal::Blocked => "the receiver does not accept messages of this user",
            DirectRefusal::HasBlocked => "this user has blocked the receiver: unblock the receiver first",
            DirectRefusal::NotGranted => {
                "neither the token nor a backend allows this user a conversation with the receiver (messages.policy)"
            }
        })
    }
}

impl From<EmitError> for Error {
    fn from(error: EmitError) -> Self {
        if let EmitError::DirectRefused(refusal) = error {
            return refusal.into();
        }
        if error == EmitError::KeyReused {
            return Self::KeyReused;
        }
        Self::Emit(error)
    }
}
