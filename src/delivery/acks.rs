use std::{pin::pin, sync::Arc};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::Delivery;
use crate::hub::{AckWaiter, Counts, Frame, RoomGuard};
use crate::message::{Ack, AckMode, AckOutcome, AckRequest, Acks, ConnectionId, Exceptions, Receipt, UserId};
use crate::telemetry;

/// The acknowledgements that an emit waits for.
pub(super) struct PendingAcks {
    request: AckRequest,
    waiters: Vec<AckWaiter>,
    began: Instant,
    sent: Instant,
}

/// What is known so far.
struct Gathered {
    began: Instant,
    replies: Vec<Ack>,
    others: Vec<Ack>,
    /// Bytes that may be kept of later replies.
    room: usize,
}

impl Delivery {
    /// Waits for the acknowledgements of an emit that is sent. No room lock is held meanwhile.
    pub(super) async fn acknowledged(&self, receipt: Receipt, pending: PendingAcks) -> Receipt {
        let acks = pending.answers(self.inner.lifecycle.stopping()).await;
        Receipt { acks: Some(Arc::new(acks)), ..receipt }
    }
}

impl PendingAcks {
    /// Sends a frame with the room locked, and asks for acknowledgements.
    pub(super) async fn send(
        guard: &RoomGuard<'_>,
        frame: Frame,
        except: &Exceptions,
        request: AckRequest,
    ) -> (Counts, Option<Self>) {
        let began = Instant::now();
        let (counts, waiters) = guard.fan_out_with_acks(frame, except).await;
        (counts, Some(Self { request, waiters, began, sent: Instant::now() }))
    }

    /// What became of the emit, when that is all known, or no more is asked for, or time is over, or `stopping` is done.
    async fn answers(self, stopping: impl Future<Output = ()>) -> Acks {
        let Self { request, waiters, began, sent } = self;
        let mut gathered = Gathered { began, replies: Vec::new(), others: Vec::new(), room: request.max_reply_bytes };
        let mut waiting: FuturesUnordered<_> = waiters.into_iter().collect();
        let (mut timeout, mut stopping) = (pin!(sleep_until(sent + request.timeout)), pin!(stopping));
        let rest = loop {
            if waiting.is_empty() || (request.mode == AckMode::Any && !gathered.replies.is_empty()) {
                break AckOutcome::Pending;
            }
            tokio::select! {
                biased;
                Some((target, outcome)) = waiting.next() => gathered.note(target, outcome),
                () = &mut timeout => break AckOutcome::Timeout,
                () = &mut stopping => break AckOutcome::Pending,
            }
        };
        for waiter in waiting {
            gathered.note(waiter.into_target(), rest.clone());
        }
        gathered.into()
    }
}

impl Gathered {
    fn note(&mut self, (user, connection): (UserId, ConnectionId), outcome: AckOutcome) {
        telemetry::acknowledged(outcome.as_str());
        let elapsed = self.began.elapsed();
        match outcome {
            AckOutcome::Replied(reply) => {
                let reply = reply.filter(|reply| reply.len() <= self.room);
                self.room -= reply.as_ref().map_or(0, |reply| reply.len());
                self.replies.push(Ack { user, connection, outcome: AckOutcome::Replied(reply), elapsed });
            }
            AckOutcome::Timeout
            | AckOutcome::Gone
            | AckOutcome::Unsupported
            | AckOutcome::Dropped
            | AckOutcome::Pending => self.others.push(Ack { user, connection, outcome, elapsed }),
        }
    }
}

impl From<Gathered> for Acks {
    fn from(Gathered { replies: mut list, mut others, .. }: Gathered) -> Self {
        let replied = list.len() as u64;
        list.append(&mut others);
        Self { list, replied }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;

    fn gathered(room: usize) -> Gathered {
        Gathered { began: Instant::now(), replies: Vec::new(), others: Vec::new(), room }
    }

    fn target(user: &str) -> (UserId, ConnectionId) {
        (UserId::new(user).unwrap(), ConnectionId::random())
    }

    #[tokio::test]
    async fn who_replied_comes_first_and_replies_have_only_so_much_room() {
        let mut gathered = gathered(5);
        let reply = |text: &str| AckOutcome::Replied(Some(text.into()));
        for (user, outcome) in
            [("1", AckOutcome::Gone), ("2", reply("[1]")), ("3", reply("[22]")), ("4", reply("[]")), ("5", reply("[]"))]
        {
            gathered.note(target(user), outcome);
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

    #[tokio::test]
    async fn nobody_is_not_waited_for() {
        let request = AckRequest::new(AckMode::Any, Duration::from_mins(1));
        let acks = PendingAcks { request, waiters: Vec::new(), began: Instant::now(), sent: Instant::now() };
        let acks = tokio::time::timeout(Duration::from_secs(5), acks.answers(pending())).await.unwrap();
        assert_eq!(acks, Acks { list: Vec::new(), replied: 0 });
    }
}
