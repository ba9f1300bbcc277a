//! How receipts and retained values are written in the engine.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;

use crate::message::{Ack, AckOutcome, Acks, ConnectionId, MessageId, Payload, Receipt, UserId};
use crate::proto::bus::v1;

/// Writes a receipt. That it is a duplicate is not written.
pub fn encode_receipt(receipt: &Receipt) -> Vec<u8> {
    let acks = receipt
        .acks
        .as_ref()
        .map(|acks| v1::ReceiptAcks { acks: acks.list.iter().map(encode_ack).collect(), replied: acks.replied });
    let receipt = v1::Receipt {
        message_id: Bytes::copy_from_slice(receipt.message_id.as_bytes()),
        matched: receipt.matched,
        enqueued: receipt.enqueued,
        dropped: receipt.dropped,
        stored: receipt.stored,
        position: receipt.position.as_ref().map_or_else(String::new, ToString::to_string),
        deferred: receipt.deferred,
        nodes: receipt.nodes,
        partial: receipt.partial,
        acks,
    };
    receipt.encode_to_vec()
}

/// Reads what [`encode_receipt`] wrote. `None`: it is something else.
pub fn decode_receipt(bytes: &[u8]) -> Option<Receipt> {
    let receipt = v1::Receipt::decode(bytes).ok()?;
    let position = match receipt.position.as_str() {
        "" => None,
        position => Some(position.parse().ok()?),
    };
    let acks = match receipt.acks {
        None => None,
        Some(v1::ReceiptAcks { acks, replied }) => {
            let list = acks.into_iter().map(decode_ack).collect::<Option<_>>()?;
            Some(Arc::new(Acks { list, replied }))
        }
    };
    Some(Receipt {
        message_id: MessageId::from_bytes(&receipt.message_id)?,
        matched: receipt.matched,
        enqueued: receipt.enqueued,
        dropped: receipt.dropped,
        stored: receipt.stored,
        position,
        duplicate: false,
        deferred: receipt.deferred,
        nodes: receipt.nodes,
        partial: receipt.partial,
        acks,
    })
}

/// Writes a payload and the users who are excepted from it.
pub fn encode_retained(payload: &Payload, except_users: &[UserId]) -> Vec<u8> {
    let payload = match payload {
        Payload::None => None,
        Payload::Json(raw) => Some(v1::retained_value::Payload::Json(raw.get().to_owned())),
        Payload::Binary(bytes) => Some(v1::retained_value::Payload::Binary(bytes.clone())),
    };
    let except_users = except_users.iter().map(|user| user.as_str().to_owned()).collect();
    v1::RetainedValue { except_users, payload }.encode_to_vec()
}

/// Reads what [`encode_retained`] wrote. `None`: it is something else.
pub fn decode_retained(bytes: Bytes) -> Option<(Payload, Vec<UserId>)> {
    let value = v1::RetainedValue::decode(bytes).ok()?;
    let payload = match value.payload {
        None => Payload::None,
        Some(v1::retained_value::Payload::Json(text)) => Payload::json(&text).ok()?,
        Some(v1::retained_value::Payload::Binary(bytes)) => Payload::Binary(bytes),
    };
    let except_users = value.except_users.iter().map(|user| UserId::new(user).ok()).collect::<Option<_>>()?;
    Some((payload, except_users))
}

fn encode_ack(ack: &Ack) -> v1::Ack {
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

fn decode_ack(ack: v1::Ack) -> Option<Ack> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        let plain = Receipt::new(MessageId::at(Timestamp::UNIX_EPOCH));
        let outcomes = [
            AckOutcome::Replied(Some("[1]".into())),
            AckOutcome::Replied(None),
            AckOutcome::Timeout,
            AckOutcome::Gone,
            AckOutcome::Unsupported,
            AckOutcome::Dropped,
            AckOutcome::Pending,
        ];
        let ack = |outcome| Ack {
            user: UserId::new("42").unwrap(),
            connection: ConnectionId::random(),
            outcome,
            elapsed: Duration::from_micros(7),
        };
        let full = Receipt {
            matched: 7,
            enqueued: 4,
            dropped: 3,
            stored: true,
            position: Some("e.9".parse().unwrap()),
            deferred: true,
            nodes: 3,
            partial: true,
            acks: Some(Arc::new(Acks { list: outcomes.map(ack).into(), replied: 2 })),
            ..plain.clone()
        };
        for receipt in [plain, full] {
            assert_eq!(decode_receipt(&encode_receipt(&receipt)), Some(receipt));
        }
        assert_eq!(decode_receipt(b"no receipt"), None);
        assert_eq!(decode_receipt(b""), None, "it has no id");
    }

    #[test]
    fn a_retained_value_is_read_as_it_was_written() {
        let users = vec![UserId::new("1").unwrap(), UserId::new("2").unwrap()];
        for payload in [Payload::None, Payload::json("[1]").unwrap(), Payload::Binary("x".into())] {
            let bytes = encode_retained(&payload, &users).into();
            assert_eq!(decode_retained(bytes), Some((payload, users.clone())));
        }
        assert_eq!(decode_retained("no value".into()), None);
    }
}
