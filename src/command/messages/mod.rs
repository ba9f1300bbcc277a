//! Direct messages, for devices and for backends.

mod device;
pub use device::{MessageDevice, NewMessage};

mod events;
pub use events::{MAX_READ_IDS, MessageEvent};

mod backend;
pub use backend::Erased;

use jiff::Timestamp;

use super::{Commands, Error};
use crate::delivery::EmitError;
use crate::message::Invalid;
use crate::messages::{self, Field, Messages};
use crate::store::Before;

impl Commands {
    /// Direct messages, if there are any.
    pub fn messages(&self) -> Result<&Messages, Error> {
        let missing =
            || Error::FailedPrecondition("there are no direct messages here: messages.enabled is false".into());
        self.messages.as_ref().ok_or_else(missing)
    }
}

/// What fields are called.
struct Names {
    receiver: &'static str,
    content: &'static str,
    peer: &'static str,
    offset: &'static str,
    client_message_id: &'static str,
}

/// By devices.
const OF_DEVICES: Names = Names {
    receiver: "receiverId",
    content: "content",
    peer: "userId",
    offset: "offset",
    client_message_id: "clientMessageId",
};

/// What is refused of devices.
impl From<messages::Error> for Error {
    fn from(error: messages::Error) -> Self {
        if matches!(error, messages::Error::KeyReused) {
            return Self::FailedPrecondition("clientMessageId was used for another message: choose a new one".into());
        }
        if matches!(error, messages::Error::Deleted) {
            return Self::FailedPrecondition("the message that was sent with this clientMessageId was deleted".into());
        }
        refusal(error, &OF_DEVICES)
    }
}

fn refusal(error: messages::Error, names: &Names) -> Error {
    let key = names.client_message_id;
    match error {
        messages::Error::Invalid { field, problem } => {
            let field = match field {
                Field::Receiver => names.receiver,
                Field::Content => names.content,
                Field::Peer => names.peer,
                Field::Offset => names.offset,
            };
            Error::invalid(field, problem)
        }
        messages::Error::Denied(why) => Error::PermissionDenied(why.into()),
        messages::Error::NotFound(what) => Error::NotFound(what.into()),
        messages::Error::KeyReused => Error::invalid(key, "was used for another message: choose a new one"),
        messages::Error::Deleted => Error::NotFound(format!("the message that was sent with this {key} was deleted")),
        messages::Error::TooFast { retry_after, .. } => {
            Error::ResourceExhausted { message: error.to_string(), retry_after }
        }
        messages::Error::Emit(EmitError::StoreUnavailable) => Error::Unavailable(format!(
            "the store cannot be reached, and the message may be kept or not: send it again with the same {key}"
        )),
        messages::Error::Emit(error) => super::emits::refusal(error),
        messages::Error::Store(error) => error.into(),
    }
}

/// What a page of a list is before: the id of a message, or a time (RFC 3339). Empty: now.
pub fn parse_before(text: &str) -> Result<Before, Invalid> {
    if text.is_empty() {
        return Ok(Before::Now);
    }
    let id = text.parse().map(Before::Message).ok();
    let time = || text.parse::<Timestamp>().map(|time| Before::Time(time.as_millisecond())).ok();
    id.or_else(time).ok_or_else(|| Invalid::new("is neither a message's id nor a time (RFC 3339)"))
}
