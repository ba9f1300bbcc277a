//! Emits across nodes. The node that was called publishes a frame; the nodes that have the room execute it and answer.

use tokio::time::Instant;

use super::{
    Delivery, IdempotencyKey,
    accepted::{Accepted, EmitError, Place, Published, Publishing},
    acks::PendingAcks,
    ask::{gather, nodes},
    node::Shared,
    publish::duplicate,
};
use crate::cluster::{Answer, Cluster, Counts, Deferred, Frame, Gathered, PublishError, Ticket};
use crate::message::{Emit, Receipt};
use crate::state::{DeferredFrame, RetainedPut, SharedClaimed, SharedRetained};
use crate::telemetry;

impl Delivery {
    /// Publishes an emit to all nodes. One that needs nothing of the engine first is in its room's order when this returns.
    pub(super) fn publish_across(
        &self,
        (cluster, shared): (&Cluster, &Shared),
        accepted: Accepted,
        key: Option<IdempotencyKey>,
    ) -> Publishing {
        let delivery = self.clone();
        if key.is_some() || shared.collapsing.concerns(&accepted.emit) {
            let publishing = async move {
                match key {
                    Some(key) => delivery.dedupe_across(accepted, key).await,
                    None => delivery.route_across(accepted).await,
                }
            };
            return Publishing::Pending(Place::Unplaced, Box::pin(publishing));
        }
        match Self::send((cluster, shared), &accepted.into_deferred(), None) {
            Err(error) => Publishing::Done(Err(error)),
            Ok(sent) => Publishing::Pending(Place::Channel, Box::pin(async move { delivery.finish(sent).await })),
        }
    }

    /// Runs the first emit under a key of all nodes, and answers the others with its receipt.
    async fn dedupe_across(&self, mut accepted: Accepted, key: IdempotencyKey) -> Published {
        let shared = self.shared()?;
        let (scope, request_hash) = (key.scope(&accepted.emit.audience), key.request_hash());
        let claimed = shared.idempotency.claim_or_wait(&scope, request_hash, accepted.message_id).await?;
        let claim = match claimed {
            SharedClaimed::First(claim, message_id) => {
                accepted.message_id = message_id;
                claim
            }
            SharedClaimed::Running => return Err(EmitError::FirstRuns),
            SharedClaimed::Reused => return Err(EmitError::KeyReused),
            SharedClaimed::Done(first) => return Ok((duplicate(first), None)),
            SharedClaimed::Published(first) => {
                let acks = PendingAcks::of_first_elsewhere(shared.idempotency.clone(), scope, request_hash);
                return Ok((duplicate(first), Some(acks)));
            }
        };
        let (receipt, acks) = self.route_across(accepted).await?;
        // What cannot be noted now is noted later, if the engine comes back before the lease ends.
        let acks = match acks {
            None => {
                let _ = claim.done(&receipt).await;
                None
            }
            Some(acks) => {
                let _ = claim.published(&receipt).await;
                Some(acks.with_shared_claim(claim))
            }
        };
        Ok((receipt, acks))
    }

    async fn route_across(&self, accepted: Accepted) -> Published {
        if accepted.emit.collapse_key.is_some() {
            return self.collapse_across(accepted).await;
        }
        let deferred = accepted.into_deferred();
        if self.shared()?.collapsing.concerns(&deferred.emit) {
            self.send_earlier(&deferred.emit).await?;
        }
        self.publish_frame(&deferred).await
    }

    /// Sends the deferred emits that came before this one, which has no key: nothing asks for another order.
    async fn send_earlier(&self, emit: &Emit) -> Result<(), EmitError> {
        let shared = self.shared()?;
        for earlier in shared.collapse.take_earlier(emit.audience.room(), &emit.event).await? {
            self.send_deferred(&earlier);
        }
        Ok(())
    }

    /// Sends an emit that was told that it would wait.
    pub(super) fn send_deferred(&self, waiting: &DeferredFrame) {
        let Some(nodes) = self.others() else { return };
        let Some(deferred) = Deferred::decode(&waiting.frame) else {
            telemetry::bus_refused("deferred");
            return;
        };
        match Self::send(nodes, &deferred, Some(waiting.order)) {
            Ok(sent) => {
                let delivery = self.clone();
                // A stop waits for it.
                self.inner.lifecycle.spawn(nodes.1.windows.track_future(async move {
                    if let Err(error) = delivery.finish(sent).await {
                        tracing::warn!(%error, "a deferred emit could not be published");
                    }
                }));
            }
            Err(error) => tracing::warn!(%error, "a deferred emit could not be published"),
        }
    }

    /// Publishes an emit, and waits for its answers.
    pub(super) async fn publish_frame(&self, deferred: &Deferred) -> Published {
        let sent = Self::send((self.cluster_or_away()?, self.shared()?), deferred, None)?;
        self.finish(sent).await
    }

    /// Publishes the frame of an emit. `order`: when it was deferred, if it was.
    fn send(
        (cluster, shared): (&Cluster, &Shared),
        deferred: &Deferred,
        order: Option<u64>,
    ) -> Result<Sent, EmitError> {
        let Deferred { message_id, emit, caller, .. } = deferred;
        let frame = Frame::Emit(*message_id, Box::new(emit.clone()));
        let ticket = if emit.retain {
            let put = RetainedPut {
                caller,
                room: emit.audience.room(),
                event: &emit.event,
                payload: deferred.retained(),
                except_users: &emit.except.users,
                ttl: emit.ttl,
                deferred: order,
            };
            cluster.publish_by(&frame, |start, rest, channel| shared.retained.put_command(&put, channel, (start, rest)))
        } else {
            cluster.publish(&frame)
        };
        Ok(Sent { ticket: ticket?, began: Instant::now(), receipt: Receipt::new(*message_id), ack: emit.ack.clone() })
    }

    /// Waits for the answers to an emit.
    async fn finish(&self, sent: Sent) -> Published {
        let cluster = self.cluster_or_away()?;
        let Sent { ticket, began, receipt, ack } = sent;
        let (Gathered { answers, partial, .. }, ticket) = gather(ticket, cluster).await.map_err(EmitError::from)?;
        let mut receipt = Receipt { nodes: nodes(&answers), partial, ..receipt };
        let mut asked = Vec::new();
        for answer in answers {
            if let Answer::Counts(Counts { matched, enqueued, dropped, asked: more }) = answer {
                receipt.matched += matched;
                receipt.enqueued += enqueued;
                receipt.dropped += dropped;
                asked.extend(more);
            }
        }
        if partial {
            telemetry::receipt_partial();
        }
        let acks = ack.map(|request| {
            PendingAcks::across(ticket, (*request, cluster.deadline()), asked, began, self.inner.lifecycle.clone())
        });
        Ok((receipt, acks))
    }

    fn cluster_or_away(&self) -> Result<&Cluster, EmitError> {
        self.cluster().ok_or(EmitError::Bus(crate::cluster::BusError::Away))
    }
}

/// An emit whose frame is published.
struct Sent {
    ticket: Ticket,
    began: Instant,
    receipt: Receipt,
    ack: Option<Box<crate::message::AckRequest>>,
}

impl Accepted {
    /// The emit as it is sent, and kept.
    pub(super) fn into_deferred(self) -> Deferred {
        let payload = self.payload();
        let takes_away = self.emit.payload.is_none();
        let emit = Emit { payload, envelope: false, ..self.emit };
        Deferred { caller: self.caller, message_id: self.message_id, emit, takes_away }
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
