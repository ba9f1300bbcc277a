//! How receipts, retained values and the messages of histories are written in the engine.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::ack_codec;
use crate::message::{Acks, EventName, MessageId, Payload, Receipt, UserId};
use crate::proto::bus::v1;

/// Writes a receipt. That it is a duplicate is not written.
pub fn encode_receipt(receipt: &Receipt) -> Vec<u8> {
    let acks = receipt
        .acks
        .as_ref()
        .map(|acks| v1::ReceiptAcks { acks: acks.list.iter().map(ack_codec::encode).collect(), replied: acks.replied });
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
            let list = acks.into_iter().map(ack_codec::decode).collect::<Option<_>>()?;
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
        direct: None,
    })
}

/// Writes a payload and the users who are excepted from it.
pub fn encode_retained(payload: &Payload, except_users: &[UserId]) -> Vec<u8> {
    let payload = match payload {
        Payload::None => None,
        Payload::Json(raw) => Some(v1::retained_value::Payload::Json(raw.get().to_owned())),
        Payload::Binary(bytes) => Some(v1::retained_value::Payload::Binary(bytes.clone())),
    };
    v1::RetainedValue { except_users: texts(except_users), payload }.encode_to_vec()
}

/// Reads what [`encode_retained`] wrote. `None`: it is something else.
pub fn decode_retained(bytes: Bytes) -> Option<(Payload, Vec<UserId>)> {
    let value = v1::RetainedValue::decode(bytes).ok()?;
    let payload = match value.payload {
        None => Payload::None,
        Some(v1::retained_value::Payload::Json(text)) => Payload::json(&text).ok()?,
        Some(v1::retained_value::Payload::Binary(bytes)) => Payload::Binary(bytes),
    };
    Some((payload, users(&value.except_users)?))
}

/// Writes a message of a history.
pub fn encode_kept(id: MessageId, event: &EventName, payload: &Payload, except_users: &[UserId]) -> Vec<u8> {
    let payload = match payload {
        Payload::None => None,
        Payload::Json(raw) => Some(v1::kept_message::Payload::Json(raw.get().to_owned())),
        Payload::Binary(bytes) => Some(v1::kept_message::Payload::Binary(bytes.clone())),
    };
    let (id, event, except_users) = (Bytes::copy_from_slice(id.as_bytes()), event.to_string(), texts(except_users));
    v1::KeptMessage { id, event, payload, except_users }.encode_to_vec()
}

/// What a history has of a message.
pub type KeptMessage = (MessageId, EventName, Payload, Vec<UserId>);

/// Reads what [`encode_kept`] wrote. `None`: it is something else.
pub fn decode_kept(bytes: Bytes) -> Option<KeptMessage> {
    let message = v1::KeptMessage::decode(bytes).ok()?;
    let payload = match message.payload {
        None => Payload::None,
        Some(v1::kept_message::Payload::Json(text)) => Payload::json(&text).ok()?,
        Some(v1::kept_message::Payload::Binary(bytes)) => Payload::Binary(bytes),
    };
    let (id, event) = (MessageId::from_bytes(&message.id)?, EventName::of_peer(&message.event).ok()?);
    Some((id, event, payload, users(&message.except_users)?))
}

fn texts(users: &[UserId]) -> Vec<String> {
    users.iter().map(|user| user.as_str().to_owned()).collect()
}

fn users(texts: &[String]) -> Option<Vec<UserId>> {
    texts.iter().map(|user| UserId::new(user).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::message::{Ack, AckOutcome, ConnectionId};

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

    #[test]
    fn a_message_of_a_history_is_read_as_it_was_written() {
        let (id, event) = (MessageId::at(Timestamp::UNIX_EPOCH), EventName::new("bid").unwrap());
        let users = vec![UserId::new("1").unwrap(), UserId::new("2").unwrap()];
        for payload in [Payload::None, Payload::json("[1]").unwrap(), Payload::Binary("x".into())] {
            let bytes = encode_kept(id, &event, &payload, &users).into();
            assert_eq!(decode_kept(bytes), Some((id, event.clone(), payload, users.clone())));
        }
        assert_eq!(decode_kept("no message".into()), None);
        assert_eq!(decode_kept(Bytes::new()), None, "it has no id");
    }
}
