use std::{collections::HashMap, pin::pin, sync::Arc};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::gathered_acks::GatheredAcks;
use crate::cluster::Ticket;
use crate::lifecycle::Lifecycle;
use crate::message::{Ack, AckMode, AckOutcome, AckRequest, Acks, ConnectionId, Receipt, UserId};
use crate::state::SharedClaim;

/// Acknowledgements of connections at several nodes. Each node tells all of its own at one time: when they are there, or with the first
/// reply, or at the timeout.
pub(super) struct AcksAcross {
    ticket: Ticket,
    request: AckRequest,
    /// When all nodes had to answer: they have told so long after it as acknowledgements may take.
    until: Instant,
    /// Connections of nodes that have not told.
    asked: HashMap<ConnectionId, UserId>,
    began: Instant,
    lifecycle: Lifecycle,
    /// Repetitions under the same idempotency key wait for it.
    claim: Option<SharedClaim>,
}

impl AcksAcross {
    pub(super) fn new(
        ticket: Ticket,
        (request, until): (AckRequest, Instant),
        asked: Vec<(UserId, ConnectionId)>,
        began: Instant,
        lifecycle: Lifecycle,
    ) -> Self {
        let asked = asked.into_iter().map(|(user, connection)| (connection, user)).collect();
        Self { ticket, request, until, asked, began, lifecycle, claim: None }
    }

    pub(super) fn with_claim(self, claim: SharedClaim) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// Completes an emit's receipt. It is partial if a node has not told: it is gone, or was cut off.
    pub(super) async fn complete(mut self, receipt: Receipt) -> Receipt {
        let (claim, until) = (self.claim.take(), self.until + self.request.timeout);
        let (acks, are_missing) = self.answers().await;
        let receipt = Receipt { acks: Some(Arc::new(acks)), partial: receipt.partial || are_missing, ..receipt };
        if let Some(claim) = claim {
            // What is not noted by then is noted later, if possible.
            let _ = timeout_at(until, claim.done(&receipt)).await;
        }
        receipt
    }

    async fn answers(self) -> (Acks, bool) {
        let Self { mut ticket, request, until, mut asked, began, lifecycle, .. } = self;
        let mut gathered = GatheredAcks::new(request.max_reply_bytes);
        let mut timeout = pin!(sleep_until(until + request.timeout));
        let mut stopping = pin!(lifecycle.stopping());
        let mut are_missing = false;
        let is_enough = |gathered: &GatheredAcks| request.mode == AckMode::Any && gathered.has_reply();
        while !asked.is_empty() && !is_enough(&gathered) {
            tokio::select! {
                biased;
                part = ticket.acks() => {
                    for ack in part {
                        asked.remove(&ack.connection);
                        gathered.note(ack);
                    }
                }
                () = &mut timeout => {
                    are_missing = true;
                    break;
                }
                () = &mut stopping => break,
            }
        }
        let elapsed = began.elapsed();
        for (connection, user) in asked {
            gathered.note(Ack { user, connection, outcome: AckOutcome::Pending, elapsed });
        }
        (gathered.into(), are_missing)
    }
}
