use crate::message::{Ack, AckOutcome, Acks};
use crate::telemetry;

/// What is known so far.
pub(super) struct GatheredAcks {
    replies: Vec<Ack>,
    others: Vec<Ack>,
    /// Bytes that may be kept of later replies.
    room: usize,
}

impl GatheredAcks {
    /// Nothing is known yet, and of replies so many bytes are kept.
    pub(super) fn new(max_reply_bytes: usize) -> Self {
        Self { replies: Vec::new(), others: Vec::new(), room: max_reply_bytes }
    }

    /// Whether a device has replied.
    pub(super) fn has_reply(&self) -> bool {
        !self.replies.is_empty()
    }

    pub(super) fn note(&mut self, ack: Ack) {
        telemetry::acknowledged(ack.outcome.as_str());
        match ack.outcome {
            AckOutcome::Replied(reply) => {
                let reply = reply.filter(|reply| reply.len() <= self.room);
                self.room -= reply.as_ref().map_or(0, |reply| reply.len());
                self.replies.push(Ack { outcome: AckOutcome::Replied(reply), ..ack });
            }
            AckOutcome::Timeout
            | AckOutcome::Gone
            | AckOutcome::Unsupported
            | AckOutcome::Dropped
            | AckOutcome::Pending => self.others.push(ack),
        }
    }
}

impl From<GatheredAcks> for Acks {
    fn from(GatheredAcks { replies: mut list, mut others, .. }: GatheredAcks) -> Self {
        let replied = list.len() as u64;
        list.append(&mut others);
        Self { list, replied }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{ConnectionId, UserId};

    fn gathered(room: usize) -> GatheredAcks {
        GatheredAcks::new(room)
    }

    fn ack(user: &str, outcome: AckOutcome) -> Ack {
        let (user, connection) = (UserId::new(user).unwrap(), ConnectionId::random());
        Ack { user, connection, outcome, elapsed: Duration::ZERO }
    }

    #[tokio::test]
    async fn who_replied_comes_first_and_replies_have_only_so_much_room() {
        let mut gathered = gathered(5);
        let reply = |text: &str| AckOutcome::Replied(Some(text.into()));
        for (user, outcome) in
            [("1", AckOutcome::Gone), ("2", reply("[1]")), ("3", reply("[22]")), ("4", reply("[]")), ("5", reply("[]"))]
        {
            gathered.note(ack(user, outcome));
        }
        let acks = Acks::from(gathered);
        let listed: Vec<_> = acks.list.iter().map(|ack| (ack.user.as_str(), ack.outcome.clone())).collect();
        let left_out = AckOutcome::Replied(None);
        assert_eq!(
            listed,
            [
                ("2", reply("[1]")),
                ("3", left_out.clone()),
                ("4", reply("[]")),
                ("5", left_out),
                ("1", AckOutcome::Gone)
            ]
        );
        assert_eq!(acks.replied, 4);
    }
}
