//! Emits across nodes. The node that was called publishes a frame; the nodes that have the room execute it and answer.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{
    Delivery, IdempotencyKey,
    accepted::{Accepted, EmitError, Place, Published, Publishing},
    acks::PendingAcks,
    ask::{gather, nodes},
    node::Shared,
    publish::duplicate,
};
use crate::cluster::{Answer, BusError, Cluster, Counts, EmitFrame, Frame, Gathered, PublishError, Ticket};
use crate::message::{AckRequest, Emit, MessageId, Payload, Position, Receipt};
use crate::state::{EmitCall, FirstElsewhere, NewMessage, RetainedPut, SharedClaimed, SharedRetained};
use crate::telemetry;

impl Delivery {
    /// Publishes an emit to all nodes. One that needs nothing of the engine first is in its room's order when this returns.
    pub(super) fn publish_across(
        &self,
        (cluster, shared): (&Cluster, &Shared),
        accepted: Accepted,
        key: Option<IdempotencyKey>,
    ) -> Publishing {
        let (delivery, until) = (self.clone(), Instant::now() + cluster.deadline());
        if key.is_some() || accepted.emit.collapse_key.is_some() {
            let publishing = async move {
                match key {
                    Some(key) => delivery.dedupe_across(accepted, key, until).await,
                    None => delivery.route_across(accepted, until).await,
                }
            };
            return Publishing::Pending(Place::Unplaced, Box::pin(publishing));
        }
        match Self::send((cluster, shared), &accepted.into_outgoing(), until) {
            Err(error) => Publishing::Done(Err(error.into())),
            Ok(sent) => {
                let finishing = async move { Ok(delivery.finish(sent).await?) };
                Publishing::Pending(Place::Channel, Box::pin(finishing))
            }
        }
    }

    /// Runs the first emit under a key of all nodes, and answers the others with its receipt. All of it, but acknowledgements, has until then. A
    /// call that is not told what became of its emit leaves the message id behind, and the next one publishes it again: nodes that have executed it
    /// do not send it again, but answer as they did, whichever of the two comes first.
    async fn dedupe_across(&self, mut accepted: Accepted, key: IdempotencyKey, until: Instant) -> Published {
        let shared = self.shared()?;
        let (scope, request_hash) = (key.scope(&accepted.emit.audience), key.request_hash());
        let ack_timeout = accepted.emit.ack.as_ref().map(|ack| ack.timeout).unwrap_or_default();
        let claimed = shared.idempotency.claim_or_wait(&scope, request_hash, accepted.message_id, until).await?;
        let claim = match claimed {
            SharedClaimed::First(claim, message_id) => {
                (accepted.message_id, accepted.once) = (message_id, true);
                claim
            }
            SharedClaimed::Running => return Err(EmitError::FirstRuns),
            SharedClaimed::Reused => return Err(EmitError::KeyReused),
            SharedClaimed::Done(first) => return Ok((duplicate(first), None)),
            SharedClaimed::Published(first) => {
                let awaited = FirstElsewhere { scope, request_hash, until: until + ack_timeout };
                let acks = PendingAcks::of_first_elsewhere(shared.idempotency.clone(), awaited);
                return Ok((duplicate(first), Some(acks)));
            }
        };
        let (receipt, acks) = self.route_across(accepted, until).await?;
        // What is not noted by then is noted later, if the engine comes back before the lease ends.
        let acks = match acks {
            None => {
                let _ = timeout_at(until, claim.done(&receipt)).await;
                None
            }
            Some(acks) => {
                let _ = timeout_at(until, claim.published(&receipt)).await;
                Some(acks.with_shared_claim(claim))
            }
        };
        Ok((receipt, acks))
    }

    async fn route_across(&self, accepted: Accepted, until: Instant) -> Published {
        if accepted.emit.collapse_key.is_some() {
            return self.collapse_across(accepted, until).await;
        }
        let sent = Self::send((self.cluster_or_away()?, self.shared()?), &accepted.into_outgoing(), until)?;
        Ok(self.finish(sent).await?)
    }

    /// Publishes the frame of an emit without a collapse key: after the deferred emits that came before it, since nothing asks for another order.
    pub(super) fn send(
        (cluster, shared): (&Cluster, &Shared),
        outgoing: &Outgoing,
        until: Instant,
    ) -> Result<Sent, BusError> {
        let (emit, frame, kept) = (&outgoing.emit, outgoing.frame(), outgoing.message(shared));
        let ticket = if shared.collapsing.knows(&emit.event) {
            cluster.publish_by(&frame, |start, rest, channel| {
                shared.collapse.publish_command(&outgoing.call(kept, (channel, start, rest)))
            })
        } else if emit.retain || kept.is_some() {
            cluster.publish_by(&frame, |start, rest, channel| {
                shared.retained.put_command(&outgoing.call(kept, (channel, start, rest)))
            })
        } else {
            cluster.publish(&frame)
        };
        Ok(outgoing.sent(ticket?, until))
    }

    /// Waits for the answers to an emit.
    pub(super) async fn finish(&self, sent: Sent) -> Result<(Receipt, Option<PendingAcks>), PublishError> {
        let Sent { ticket, began, until, receipt, ack } = sent;
        let (Gathered { answers, partial, .. }, ticket) = gather(ticket, until).await?;
        let mut receipt = Receipt { nodes: nodes(&answers), partial, ..receipt };
        // Nothing was sent if all nodes say that they had executed it.
        receipt.duplicate = !partial && !answers.is_empty();
        let mut asked = Vec::new();
        for answer in answers {
            if let Answer::Counts(Counts { matched, enqueued, dropped, asked: more, is_repeated }) = answer {
                receipt.duplicate &= is_repeated;
                // What those answer is not known.
                receipt.partial |= is_repeated && !more.is_empty();
                receipt.matched += matched;
                receipt.enqueued += enqueued;
                receipt.dropped += dropped;
                asked.extend(more);
            }
        }
        if receipt.partial {
            telemetry::receipt_partial();
        }
        let acks = ack
            .map(|request| PendingAcks::across(ticket, (*request, until), asked, began, self.inner.lifecycle.clone()));
        Ok((receipt, acks))
    }

    pub(super) fn cluster_or_away(&self) -> Result<&Cluster, BusError> {
        self.cluster().ok_or(BusError::Away)
    }
}

/// An emit as it is sent, and kept.
pub(super) struct Outgoing {
    pub(super) caller: Arc<str>,
    pub(super) message_id: MessageId,
    pub(super) emit: Emit,
    /// Whether the value that it retains is none: it takes the one away that is there.
    takes_away: bool,
    /// As in [`Accepted`].
    once: bool,
    /// Where its message is in the room's mailbox, once it is stored.
    pub(super) stored: Option<Position>,
}

/// An emit whose frame is published.
pub(super) struct Sent {
    ticket: Ticket,
    began: Instant,
    /// How long answers are awaited.
    until: Instant,
    receipt: Receipt,
    ack: Option<Box<AckRequest>>,
}

impl Outgoing {
    pub(super) fn frame(&self) -> Frame {
        let Self { message_id: id, once, .. } = *self;
        Frame::Emit(Box::new(EmitFrame { id, emit: self.emit.clone(), once, stored: self.stored.clone() }))
    }

    /// What the room's history is to have of it.
    pub(super) fn message(&self, shared: &Shared) -> Option<NewMessage> {
        let Emit { audience, event, payload, except, ttl, volatile, .. } = &self.emit;
        if *volatile || self.stored.is_some() {
            return None;
        }
        let (id, except_users) = (self.message_id, &except.users[..]);
        shared.history.message(audience.room(), (id, event), (payload, except_users), *ttl)
    }

    /// For a function at the engine.
    pub(super) fn call<'a>(
        &'a self,
        kept: Option<NewMessage>,
        (channel, start, rest): (&'a str, &'a [u8], &'a [u8]),
    ) -> EmitCall<'a> {
        let Self { caller, emit, takes_away, .. } = self;
        let once = self.once.then_some(self.message_id);
        let payload = if *takes_away { &Payload::None } else { &emit.payload };
        let put = RetainedPut { caller, payload, except_users: &emit.except.users, ttl: emit.ttl };
        let (room, event, retained) = (emit.audience.room(), &emit.event, emit.retain.then_some(put));
        EmitCall { room, event, retained, kept, once, channel, start, rest }
    }

    pub(super) fn sent(&self, ticket: Ticket, until: Instant) -> Sent {
        let (receipt, ack) = (Receipt::new(self.message_id), self.emit.ack.clone());
        Sent { ticket, began: Instant::now(), until, receipt, ack }
    }
}

impl Accepted {
    pub(super) fn into_outgoing(self) -> Outgoing {
        let payload = self.payload();
        let takes_away = self.emit.payload.is_none();
        let emit = Emit { payload, envelope: false, ..self.emit };
        let Self { caller, message_id, once, .. } = self;
        Outgoing { caller, message_id, emit, takes_away, once, stored: None }
    }
}

impl From<PublishError> for EmitError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Bus(error) => Self::Bus(error),
            PublishError::Rejected(number) => SharedRetained::rejected(number).into(),
        }
    }
}
