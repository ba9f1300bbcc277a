use std::{future::Future, pin::Pin, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{acks::PendingAcks, envelope::enveloped};
use crate::message::{Emit, MessageId, Payload, Receipt, RoomName};
use crate::state::{Claim, KeyReused, RetainedFull};

/// Why an emit was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// No more payloads can be retained.
    #[error("retain.max_entries is exceeded")]
    RetainedFull,
    /// No more of this room.
    #[error("retain.max_room_bytes is exceeded")]
    RetainedRoomFull,
    /// The store cannot be reached, or does not write.
    #[error("the store cannot be reached")]
    StoreUnavailable,
    /// Too much waits for the store already.
    #[error("too much waits for the store")]
    StoreBusy,
    /// No more collapse keys can have a window.
    #[error("collapse.max_keys is exceeded")]
    CollapseFull {
        /// When some of them are closed.
        retry_after: Duration,
    },
}

impl From<KeyReused> for EmitError {
    fn from(_: KeyReused) -> Self {
        Self::KeyReused
    }
}

impl From<RetainedFull> for EmitError {
    fn from(full: RetainedFull) -> Self {
        match full {
            RetainedFull::Entries => Self::RetainedFull,
            RetainedFull::RoomBytes => Self::RetainedRoomFull,
        }
    }
}

/// What became of an emit: its receipt, and the acknowledgements that are still awaited, if it asked for any.
pub type Published = Result<(Receipt, Option<PendingAcks>), EmitError>;

/// An emit that may not be published yet. The futures are to be polled to their end, even if the caller disconnects: half a room would have
/// the event, and a repetition would send it twice.
pub enum Publishing {
    /// It is published, or refused.
    Done(Published),
    /// It waits in its room's log lane: stored emits to the room that are accepted later follow it.
    InLane(Pin<Box<dyn Future<Output = Published> + Send>>),
    /// It has no place yet among the emits to its room.
    Waiting(Pin<Box<dyn Future<Output = Published> + Send>>),
}

/// An emit that was accepted.
pub(super) struct Accepted {
    pub(super) emit: Emit,
    pub(super) message_id: MessageId,
    /// Emits that are accepted later have larger ones.
    pub(super) number: u64,
    pub(super) time: Timestamp,
    pub(super) received: Instant,
}

impl Accepted {
    pub(super) fn room(&self) -> &RoomName {
        self.emit.audience.room()
    }

    /// The payload as it is sent.
    pub(super) fn payload(&self) -> Payload {
        if self.emit.envelope { enveloped(&self.emit, self.time) } else { self.emit.payload.clone() }
    }
}

/// Notes the result of the first emit under a key.
pub(super) fn settled(published: Published, claim: Option<Claim>) -> Published {
    let Some(claim) = claim else {
        return published;
    };
    let (receipt, acks) = published?;
    let acks = match acks {
        None => {
            claim.done(&receipt);
            None
        }
        Some(acks) => Some(acks.with_claim(claim, &receipt)),
    };
    Ok((receipt, acks))
}
