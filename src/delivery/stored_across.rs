//! Stored emits across nodes. The node that was called appends the message, and then publishes a frame with its position.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::{
    Delivery, IdempotencyKey,
    accepted::{Accepted, EmitError, Place, Published, Publishing},
    across::{Outgoing, Sent},
    ask::within,
    direct,
    laned::StoredFrame,
    late::repeated,
    log_lane::refuse,
    log_lanes::{AppendDone, PendingAppend},
    node::Shared,
    stored_frames::Executed,
};
use crate::cluster::{Cluster, PublishError};
use crate::message::{DirectMessage, Position, Receipt, RoomName};
use crate::store::{Appended, Store};
use crate::telemetry;

impl Delivery {
    /// Appends an emit to its room's mailbox, and publishes its frame then.
    pub(super) fn store_across(&self, accepted: Accepted, key: Option<IdempotencyKey>) -> Publishing {
        if !accepted.emit.retain {
            return self.append_keyed(accepted, key.as_ref());
        }
        let delivery = self.clone();
        let publishing = async move {
            // Checked before the message is on disk: a refusal says that it is not.
            delivery.can_retain_across(&accepted).await?;
            delivery.append_keyed(accepted, key.as_ref()).done().await
        };
        Publishing::Pending(Place::Unplaced, Box::pin(publishing))
    }

    async fn can_retain_across(&self, accepted: &Accepted) -> Result<(), EmitError> {
        let (shared, cluster, emit) = (self.shared()?, self.cluster_or_away()?, &accepted.emit);
        let rooms = [accepted.room()];
        let check = shared.retained.can_retain(&rooms, &emit.event, &emit.payload, &emit.except.users);
        Ok(within(Instant::now() + cluster.deadline(), check).await??)
    }

    /// Writes emits at one time, and publishes their frames in the order of their positions. Messages before them that are not published yet are
    /// read by the nodes that miss them.
    pub(super) async fn append_all_across(
        &self,
        nodes: (&Cluster, &Shared),
        room: &RoomName,
        store: &Store,
        mut appends: Vec<PendingAppend>,
    ) {
        let appended = store.append(direct::messages(&appends)).await;
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) if direct::may_be_of_another_room(&error, &appends) => {
                for append in appends {
                    Box::pin(self.append_all_across(nodes, room, store, vec![append])).await;
                }
                return;
            }
            Err(error) => {
                if !error.has_kept_nothing() {
                    // They may be in the mailbox all the same.
                    self.inner.wakes.note_uncertain(room);
                    for direct in appends.iter().filter_map(|append| append.direct.as_ref()) {
                        self.inner.wakes.note_uncertain(&direct.room());
                    }
                }
                if error.is_damage() {
                    self.inner.faulty_logs.note_unwritten(room, &error);
                }
                return refuse(appends, &error);
            }
        };
        let (appended, copies) = direct::split(&mut appends, appended);
        let is_one = appends.len() == 1;
        for (PendingAppend { mut accepted, answer, .. }, appended) in appends.into_iter().zip(appended) {
            let done = match appended {
                Appended::New { position, direct } => {
                    accepted.emit.alone &= is_one;
                    with_direct(self.send_stored(nodes, accepted, position).await, direct)
                }
                Appended::Known { position, id } => {
                    // The first one's frame may have been lost with the node that stored it.
                    self.inner.wakes.note(room, Some(position.clone()));
                    self.inner.wakes.request();
                    AppendDone::Published(Ok((repeated(position, id), None)))
                }
                Appended::KeyReused => AppendDone::Published(Err(EmitError::KeyReused)),
                Appended::Refused(refusal) => AppendDone::Published(Err(refusal.into())),
            };
            // The caller may be gone.
            let _ = answer.send(done);
        }
        self.publish_copies(copies, store.incarnation());
    }

    pub(super) async fn send_stored(
        &self,
        nodes: (&Cluster, &Shared),
        accepted: Accepted,
        position: Position,
    ) -> AppendDone {
        let mut outgoing = accepted.into_outgoing();
        outgoing.stored = Some(position.clone());
        if let Ok(sent) = Self::send(nodes, &outgoing, Instant::now() + nodes.0.deadline()) {
            let delivery = self.clone();
            return AppendDone::Sent(Box::pin(async move { delivery.finish_stored(sent, outgoing, position).await }));
        }
        // Whoever asks where the room stands waits for this lane.
        let _ = timeout(nodes.0.deadline(), self.read_head(outgoing.emit.audience.room())).await;
        AppendDone::Published(self.execute_unsent(outgoing, position).await)
    }

    /// Waits for the answers of the nodes. Without the engine the emit is executed here, and other nodes find it in the store.
    async fn finish_stored(&self, sent: Sent, mut outgoing: Outgoing, position: Position) -> Published {
        let finished = match self.finish(sent).await {
            Err(PublishError::Rejected(_)) => {
                // It is on disk: its devices are to get it. There was room when it was accepted.
                tracing::warn!(room.name = %outgoing.emit.audience.room(), "a stored payload is not retained: there is no room for it");
                outgoing.emit.retain = false;
                let nodes = (self.cluster_or_away()?, self.shared()?);
                match Self::send(nodes, &outgoing, Instant::now() + nodes.0.deadline()) {
                    Ok(sent) => self.finish(sent).await,
                    Err(error) => Err(PublishError::Bus(error)),
                }
            }
            finished => finished,
        };
        match finished {
            Ok((receipt, acks)) => Ok((Receipt { stored: true, position: Some(position), ..receipt }, acks)),
            Err(_) => self.execute_unsent(outgoing, position).await,
        }
    }

    /// Executes a stored emit here whose frame could not be published, or maybe was.
    async fn execute_unsent(&self, outgoing: Outgoing, position: Position) -> Published {
        let Outgoing { mut emit, message_id, .. } = outgoing;
        let room = emit.audience.room().clone();
        self.inner.wakes.note(&room, Some(position.clone()));
        if emit.retain {
            tracing::warn!(room.name = %room, "a stored payload is not retained: the engine is away");
            // This node's memory is not the engine's: nobody would read the value there.
            emit.retain = false;
        }
        telemetry::receipt_partial();
        let accepted = Accepted::by_peer(message_id, emit, false, 0);
        let frame = StoredFrame { accepted, position: position.clone() };
        let (receipt, acks) = match self.execute_stored(frame).await {
            Executed::Published(published) => published?,
            Executed::Late => (Receipt { nodes: 0, ..Receipt::new(message_id) }, None),
        };
        Ok((Receipt { stored: true, position: Some(position), partial: true, ..receipt }, acks))
    }
}

/// Has the receipt say which direct message it was.
fn with_direct(done: AppendDone, direct: Option<Arc<DirectMessage>>) -> AppendDone {
    let with = move |(receipt, acks): (Receipt, _)| (Receipt { direct, ..receipt }, acks);
    match done {
        AppendDone::Published(published) => AppendDone::Published(published.map(with)),
        AppendDone::Sent(finishing) => AppendDone::Sent(Box::pin(async move { finishing.await.map(with) })),
    }
}
