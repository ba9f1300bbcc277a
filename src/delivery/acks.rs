use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{acks_across::AcksAcross, gathered_acks::GatheredAcks};
use crate::cluster::Ticket;
use crate::hub::AckWaiter;
use crate::lifecycle::Lifecycle;
use crate::message::{Ack, AckMode, AckOutcome, AckRequest, Acks, ConnectionId, Receipt, UserId};
use crate::state::{Claim, FirstElsewhere, FirstEmit, SharedClaim, SharedIdempotency};

/// The acknowledgements that a published emit waits for. No room is locked meanwhile.
pub struct PendingAcks(Pending);

enum Pending {
    Own(Box<OwnAcks>),
    /// Several nodes have asked their connections.
    Across(Box<AcksAcross>),
    /// Another call published the emit, under the same idempotency key, and waits for them.
    OfFirst(FirstEmit),
    /// The same at any node.
    OfFirstElsewhere(SharedIdempotency, Box<FirstElsewhere>),
    /// These connections were asked by a call that has ended without a receipt, or will: what they answer is not known.
    OfEarlier(Vec<(UserId, ConnectionId)>),
}

struct OwnAcks {
    request: AckRequest,
    waiters: Vec<AckWaiter>,
    began: Instant,
    sent: Instant,
    lifecycle: Lifecycle,
    /// Repetitions under the same idempotency key wait for it.
    claim: Option<Claim>,
}

impl PendingAcks {
    /// Those that these connections were asked for by a frame that is sent.
    pub(super) fn new(request: AckRequest, waiters: Vec<AckWaiter>, began: Instant, lifecycle: Lifecycle) -> Self {
        let own = OwnAcks { request, waiters, began, sent: Instant::now(), lifecycle, claim: None };
        Self(Pending::Own(Box::new(own)))
    }

    /// Those of the first emit under an idempotency key.
    pub(super) fn of_first(first: FirstEmit) -> Self {
        Self(Pending::OfFirst(first))
    }

    /// Notes the answer under an idempotency key, too. If this is dropped before, repetitions get the receipt without acknowledgements.
    pub(super) fn with_claim(self, claim: Claim, receipt: &Receipt) -> Self {
        claim.published(receipt);
        if let Pending::Own(own) = self.0 {
            Self(Pending::Own(Box::new(OwnAcks { claim: Some(claim), ..*own })))
        } else {
            self
        }
    }

    /// Those that the nodes of these connections were asked for.
    pub(super) fn across(
        ticket: Ticket,
        (request, until): (AckRequest, Instant),
        asked: Vec<(UserId, ConnectionId)>,
        began: Instant,
        lifecycle: Lifecycle,
    ) -> Self {
        Self(Pending::Across(Box::new(AcksAcross::new(ticket, (request, until), asked, began, lifecycle))))
    }

    /// Those of the first emit under an idempotency key of all nodes.
    pub(super) fn of_first_elsewhere(idempotency: SharedIdempotency, first: FirstElsewhere) -> Self {
        Self(Pending::OfFirstElsewhere(idempotency, Box::new(first)))
    }

    /// Those that these connections were asked for when the same emit was executed before.
    pub(super) fn of_earlier(asked: Vec<(UserId, ConnectionId)>) -> Self {
        Self(Pending::OfEarlier(asked))
    }

    /// Notes the answer under an idempotency key of all nodes, too.
    pub(super) fn with_shared_claim(self, claim: SharedClaim) -> Self {
        if let Pending::Across(across) = self.0 {
            Self(Pending::Across(Box::new(across.with_claim(claim))))
        } else {
            self
        }
    }

    /// The connections that were asked here.
    pub(super) fn targets(&self) -> Vec<(UserId, ConnectionId)> {
        match &self.0 {
            Pending::Own(own) => own.waiters.iter().map(AckWaiter::target).cloned().collect(),
            Pending::OfEarlier(asked) => asked.clone(),
            Pending::Across(_) | Pending::OfFirst(_) | Pending::OfFirstElsewhere(..) => Vec::new(),
        }
    }

    /// Waits for what the connections here answer.
    pub(super) async fn gather(self) -> Acks {
        match self.0 {
            Pending::Own(own) => own.answers().await,
            Pending::OfEarlier(asked) => all_pending(asked),
            Pending::Across(_) | Pending::OfFirst(_) | Pending::OfFirstElsewhere(..) => GatheredAcks::new(0).into(),
        }
    }

    /// Completes an emit's receipt: waits until what became of the emit is all known, or no more is asked for, or the time is over, or the
    /// server stops.
    pub async fn complete(self, receipt: Receipt) -> Receipt {
        match self.0 {
            Pending::OfFirst(first) => {
                let acks = first.receipt().await.and_then(|first| first.acks);
                Receipt { acks, ..receipt }
            }
            Pending::OfFirstElsewhere(idempotency, first) => match idempotency.answer(&first).await {
                Some(Receipt { acks, partial, .. }) => Receipt { partial, acks, ..receipt },
                None => Receipt { partial: true, ..receipt },
            },
            Pending::Across(across) => across.complete(receipt).await,
            Pending::OfEarlier(asked) => Receipt { acks: Some(Arc::new(all_pending(asked))), ..receipt },
            Pending::Own(mut own) => {
                let claim = own.claim.take();
                let receipt = Receipt { acks: Some(Arc::new(own.answers().await)), ..receipt };
                if let Some(claim) = claim {
                    claim.done(&receipt);
                }
                receipt
            }
        }
    }
}

impl OwnAcks {
    async fn answers(self) -> Acks {
        let Self { request, waiters, began, sent, lifecycle, .. } = self;
        let mut gathered = GatheredAcks::new(request.max_reply_bytes);
        let note = |gathered: &mut GatheredAcks, (user, connection), outcome| {
            gathered.note(Ack { user, connection, outcome, elapsed: began.elapsed() });
        };
        let mut waiting: FuturesUnordered<_> = waiters.into_iter().collect();
        let (mut timeout, mut stopping) = (pin!(sleep_until(sent + request.timeout)), pin!(lifecycle.stopping()));
        let rest = loop {
            if waiting.is_empty() || (request.mode == AckMode::Any && gathered.has_reply()) {
                break AckOutcome::Pending;
            }
            tokio::select! {
                biased;
                Some((target, outcome)) = waiting.next() => note(&mut gathered, target, outcome),
                () = &mut timeout => break AckOutcome::Timeout,
                () = &mut stopping => break AckOutcome::Pending,
            }
        };
        for waiter in waiting {
            note(&mut gathered, waiter.into_target(), rest.clone());
        }
        gathered.into()
    }
}

fn all_pending(asked: Vec<(UserId, ConnectionId)>) -> Acks {
    let pending = |(user, connection)| Ack { user, connection, outcome: AckOutcome::Pending, elapsed: Duration::ZERO };
    Acks { list: asked.into_iter().map(pending).collect(), replied: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_emit_to_nobody_does_not_wait_for_acknowledgements() {
        let request = AckRequest::new(AckMode::Any, Duration::from_mins(1));
        let acks = PendingAcks::new(request, Vec::new(), Instant::now(), Lifecycle::new());
        let receipt = Receipt::new(crate::message::MessageId::at(jiff::Timestamp::UNIX_EPOCH));
        let receipt = tokio::time::timeout(Duration::from_secs(5), acks.complete(receipt)).await.unwrap();
        assert_eq!(receipt.acks.as_deref(), Some(&Acks { list: Vec::new(), replied: 0 }));
    }
}
