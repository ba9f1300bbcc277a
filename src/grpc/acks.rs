use std::time::Duration;

use crate::message::{self, AckOutcome, Acks};
use crate::proto::v1::{Ack, ack};

/// The ids that an answer to a call has room for, in bytes: with the replies they stay below the 4 MiB that clients take.
const IDS: usize = 2 * 1024 * 1024;
const REPLIES: usize = 1024 * 1024;
/// About what an ack takes besides what is counted: tags, lengths, the outcome and the duration.
const AROUND: usize = 24;

/// What an answer to a call has room for yet.
pub(super) struct AckRoom {
    ids: usize,
    replies: usize,
}

impl AckRoom {
    pub(super) fn new() -> Self {
        Self { ids: IDS, replies: REPLIES }
    }

    /// As many acks as there is room for; replies without what they say where there is none for that.
    pub(super) fn encode(&mut self, acks: &Acks) -> Vec<Ack> {
        let mut encoded = Vec::new();
        for ack in &acks.list {
            let ack = self.encode_one(ack);
            let size = ack.user_id.len() + ack.connection_id.len() + AROUND;
            if size > self.ids {
                // What is smaller would find room, but be an order that nobody could explain.
                self.ids = 0;
                break;
            }
            self.ids -= size;
            encoded.push(ack);
        }
        encoded
    }

    fn encode_one(&mut self, ack: &message::Ack) -> Ack {
        let outcome = match &ack.outcome {
            AckOutcome::Replied(_) => ack::Outcome::Replied,
            AckOutcome::Timeout => ack::Outcome::Timeout,
            AckOutcome::Gone => ack::Outcome::Gone,
            AckOutcome::Unsupported => ack::Outcome::Unsupported,
            AckOutcome::Dropped => ack::Outcome::Dropped,
            AckOutcome::Pending => ack::Outcome::Pending,
        };
        let reply = match &ack.outcome {
            AckOutcome::Replied(Some(reply)) if reply.len() <= self.replies => &**reply,
            AckOutcome::Replied(_)
            | AckOutcome::Timeout
            | AckOutcome::Gone
            | AckOutcome::Unsupported
            | AckOutcome::Dropped
            | AckOutcome::Pending => "",
        };
        self.replies -= reply.len();
        Ack {
            user_id: ack.user.to_string(),
            connection_id: ack.connection.to_string(),
            outcome: outcome.into(),
            json: reply.to_owned(),
            elapsed: Some(wire_duration(ack.elapsed)),
        }
    }
}

/// A duration for the wire.
fn wire_duration(duration: Duration) -> prost_types::Duration {
    let nanos = i32::try_from(duration.subsec_nanos()).unwrap_or_default();
    prost_types::Duration { seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nanos }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message;

    use super::*;
    use crate::message::{ConnectionId, UserId};
    use crate::proto::v1::Receipt;

    fn acks(count: usize, reply: &str) -> Acks {
        let ack = |number: usize| message::Ack {
            user: UserId::new(&format!("user-{number}")).unwrap(),
            connection: ConnectionId::random(),
            outcome: AckOutcome::Replied(Some(reply.into())),
            elapsed: Duration::from_millis(1_500),
        };
        Acks { list: (0..count).map(ack).collect(), replied: count as u64 }
    }

    #[test]
    fn an_answer_stays_below_four_mebibytes_however_many_reply_at_length() {
        let mut room = AckRoom::new();
        let many = acks(100_000, &format!("[\"{}\"]", "x".repeat(1_000)));
        let encoded = room.encode(&many);
        assert!((20_000..100_000).contains(&encoded.len()), "{}", encoded.len());
        let full = encoded.iter().filter(|ack| !ack.json.is_empty()).count();
        assert!((1_000..1_100).contains(&full), "{full}");
        let receipt = Receipt { acks: encoded, replied: many.replied, ..Receipt::default() };
        assert!(receipt.encoded_len() < 3_600_000, "{}", receipt.encoded_len());
        assert!(room.encode(&acks(1, "[]")).is_empty(), "the next of the same answer has no room left");
    }

    #[test]
    fn an_ack_tells_who_what_and_when() {
        let acks = acks(1, "[1.10]");
        let [ack] = &AckRoom::new().encode(&acks)[..] else { panic!("one") };
        assert_eq!((ack.user_id.as_str(), ack.json.as_str()), ("user-0", "[1.10]"));
        assert_eq!(ack.outcome(), ack::Outcome::Replied);
        assert_eq!(ack.elapsed, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
    }
}
