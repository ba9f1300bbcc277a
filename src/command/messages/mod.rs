//! Direct messages, for devices and for backends.

mod device;
pub use device::{MessageDevice, NewMessage};

mod events;
pub use events::MessageEvent;

mod backend;

use super::{Commands, Error, Violation};
use crate::delivery::EmitError;
use crate::messages::{self, Messages};

impl Commands {
    /// Direct messages, if there are any.
    pub fn messages(&self) -> Result<&Messages, Error> {
        let missing =
            || Error::FailedPrecondition("there are no direct messages here: messages.enabled is false".into());
        self.messages.as_ref().ok_or_else(missing)
    }
}

impl From<messages::Error> for Error {
    fn from(error: messages::Error) -> Self {
        match error {
            messages::Error::Invalid { field, problem } => Violation::new(field, problem).into(),
            messages::Error::Denied(why) => Self::PermissionDenied(why.into()),
            messages::Error::NotFound(what) => Self::NotFound(what.into()),
            messages::Error::Conflict(why) => Self::FailedPrecondition(why.into()),
            messages::Error::TooFast { retry_after, .. } => {
                Self::ResourceExhausted { message: error.to_string(), retry_after }
            }
            messages::Error::Emit(EmitError::StoreUnavailable) => Self::Unavailable(
                "the store cannot be reached, and the message may be kept or not: send it again with the same clientMessageId".into(),
            ),
            messages::Error::Emit(error) => super::emits::refusal(error),
            messages::Error::Store(error) => error.into(),
        }
    }
}
