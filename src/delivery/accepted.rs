use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{acks::PendingAcks, envelope::enveloped};
use crate::cluster::{BusError, Kept};
use crate::message::{Emit, MessageId, Payload, Receipt, RoomName};
use crate::state::{Claim, KeyReused, RetainedFull};
use crate::store;

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
    /// Nothing can be stored in the audience's mailbox.
    #[error("the mailbox is damaged")]
    MailboxDamaged,
    /// The direct message may not be sent.
    #[error("the direct message may not be sent")]
    DirectRefused(store::DirectRefusal),
    /// Too much waits for the store already.
    #[error("too much waits for the store")]
    StoreBusy,
    /// The first emit under the idempotency key still runs at another node.
    #[error("the first emit with this idempotency key still runs")]
    FirstRuns,
    /// The engine between the nodes did not publish it, or did not say whether it did.
    #[error("{0}")]
    Bus(BusError),
    /// No more collapse keys can have a window.
    #[error("collapse.max_keys is exceeded")]
    CollapseFull {
        /// When some of them are closed.
        retry_after: Duration,
    },
}

impl From<&store::Error> for EmitError {
    fn from(error: &store::Error) -> Self {
        if matches!(error, store::Error::Violated(_)) { Self::MailboxDamaged } else { Self::StoreUnavailable }
    }
}

impl From<store::DirectRefusal> for EmitError {
    fn from(refusal: store::DirectRefusal) -> Self {
        Self::DirectRefused(refusal)
    }
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

/// An emit that may not be published yet.
pub enum Publishing<T = Published> {
    /// It is published, or refused.
    Done(T),
    /// It waits. The future is to be polled to its end, even if the caller disconnects: half a room would have the event, and a repetition would
    /// send it twice.
    Pending(Place, BoxFuture<'static, T>),
}

/// Where an emit waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its room's log lane: stored emits to the room that are accepted later follow it.
    Lane,
    /// In its room's channel, among several nodes: emits to the room that are accepted later follow it.
    Channel,
    /// Elsewhere: it has no place yet among the emits to its room.
    Unplaced,
}

impl<T> Publishing<T> {
    /// Waits until it is published, or refused.
    pub async fn done(self) -> T {
        match self {
            Self::Done(done) => done,
            Self::Pending(_, publishing) => publishing.await,
        }
    }
}

/// An emit that was accepted.
pub(super) struct Accepted {
    /// The API key that sends it; for a device's event, the devices.
    pub(super) caller: Arc<str>,
    pub(super) emit: Emit,
    pub(super) message_id: MessageId,
    /// Emits that are accepted later have larger ones.
    pub(super) number: u64,
    pub(super) time: Timestamp,
    pub(super) received: Instant,
    /// Of an emit that another node accepted: the number of the change that it brings to what the room retains; 0: none.
    pub(super) change: u64,
    /// Of the same: its message's place in the room's history among several nodes.
    pub(super) kept: Option<Kept>,
    /// Whether it has an idempotency key of all nodes: it may come again with the same message id, and is not sent again then.
    pub(super) once: bool,
}

impl Accepted {
    /// An emit that a node has accepted, maybe this one, and that is to be executed here.
    pub(super) fn by_peer(message_id: MessageId, emit: Emit, once: bool, change: u64) -> Self {
        let (caller, received) = ("".into(), Instant::now());
        Self { caller, emit, message_id, number: 0, time: Timestamp::UNIX_EPOCH, received, change, kept: None, once }
    }

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
