//! Acknowledgements as bytes, and back: in answers, and in receipts that the engine keeps.

use std::time::Duration;

use bytes::Bytes;

use crate::message::{Ack, AckOutcome, ConnectionId, UserId};
use crate::proto::bus::v1;

pub(super) fn encode(ack: &Ack) -> v1::Ack {
    let (outcome, reply) = match &ack.outcome {
        AckOutcome::Replied(reply) => (0, reply.as_deref().map(str::to_owned)),
        AckOutcome::Timeout => (1, None),
        AckOutcome::Gone => (2, None),
        AckOutcome::Unsupported => (3, None),
        AckOutcome::Dropped => (4, None),
        AckOutcome::Pending => (5, None),
    };
    v1::Ack {
        user: ack.user.as_str().to_owned(),
        connection: Bytes::copy_from_slice(ack.connection.as_bytes()),
        outcome,
        reply,
        elapsed_us: u64::try_from(ack.elapsed.as_micros()).unwrap_or(u64::MAX),
    }
}

pub(super) fn decode(ack: v1::Ack) -> Option<Ack> {
    let outcome = match ack.outcome {
        0 => AckOutcome::Replied(ack.reply.map(String::into_boxed_str)),
        1 => AckOutcome::Timeout,
        2 => AckOutcome::Gone,
        3 => AckOutcome::Unsupported,
        4 => AckOutcome::Dropped,
        5 => AckOutcome::Pending,
        _ => return None,
    };
    Some(Ack {
        user: UserId::new(&ack.user).ok()?,
        connection: ConnectionId::from_bytes(&ack.connection)?,
        outcome,
        elapsed: Duration::from_micros(ack.elapsed_us),
    })
}
