//! Direct messages: an emit to the receiver, and a copy for the sender's other devices, both stored in one transaction.
//!
//! The work is done in the lane of the receiver's room. The copy is published in the lane of the sender's, after what that has published: where
//! another emit comes first, it publishes the copy as a late message.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    Delivery,
    accepted::{Accepted, Published},
    direct_append::DirectAppend,
    execute::InLog,
    log_lanes::{AppendDone, Job, PendingAppend},
    node::Shared,
    sendings::SendingConnection,
};
use crate::cluster::Cluster;
use crate::message::{Audience, ConnectionId, Emit, EventName, Exceptions, MessageId, Payload, UserId};
use crate::store::{self, Appended, Incarnation, NewDirect, NewMessage};

/// A connection is answered where its message stands among the others of its user's room if that is published within this time after it was stored.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// A direct message that is to be sent.
pub struct DirectEmit {
    /// What the devices listen for.
    pub event: EventName,
    /// The message.
    pub new: NewDirect,
    /// The connection that has sent it.
    pub connection: Option<SendingConnection>,
    /// Makes its repetition harmless. Its scope is the conversation.
    pub key: Option<store::IdempotencyKey>,
}

impl Delivery {
    /// Stores a direct message, and publishes it to the devices of both users. Runs to completion even if the caller disconnects.
    pub async fn publish_direct(&self, direct: DirectEmit) -> Published {
        let DirectEmit { event, new, connection, key } = direct;
        let (now, new) = (self.inner.clock.now(), Arc::new(new));
        let message_id = MessageId::at(now);
        let accepted = |user: &UserId, connections: Vec<ConnectionId>| Accepted {
            caller: Arc::from("messages"),
            emit: stored_emit(user, event.clone(), connections),
            message_id,
            number: 0,
            time: now,
            received: Instant::now(),
            change: 0,
            kept: None,
            once: false,
        };
        let copy = accepted(&new.sender, connection.iter().map(|connection| connection.id).collect());
        let accepted = accepted(&new.receiver, Vec::new());
        let room = copy.room().clone();
        let answered = connection.map(|connection| self.inner.sendings.begin(message_id, room, connection));
        let publishing = self.append_with(accepted, key, Some(Box::new(DirectAppend { new, copy })));
        let delivery = self.clone();
        let publishing = async move {
            let published = publishing.done().await;
            if let (Some(answered), true) = (answered, published.as_ref().is_ok_and(|(receipt, _)| !receipt.duplicate))
            {
                // An error is all that it can be.
                let _ = timeout(ANSWERED_WITHIN, answered).await;
            }
            delivery.inner.sendings.forget(message_id);
            published
        };
        self.inner.lifecycle.detach(publishing).await
    }

    /// Publishes the copies of direct messages on a node that is alone.
    pub(super) fn publish_copies(&self, copies: Vec<(Accepted, Appended)>, incarnation: Incarnation) {
        for (copy, appended) in copies {
            let (delivery, room, id) = (self.clone(), copy.room().clone(), copy.message_id);
            let publishing = async move { delivery.publish_copy(copy, appended, incarnation).await };
            if self.enter_lane(&room, Job::Task(Box::pin(publishing))).is_err() {
                // It is published with the room's next message.
                self.inner.lanes.note_uncertain(&room, [id].into_iter());
            }
        }
    }

    /// Publishes what stands before a copy, and the copy, unless another emit has done that.
    async fn publish_copy(&self, copy: Accepted, appended: Appended, incarnation: Incarnation) {
        let (room, Some(store)) = (copy.room().clone(), self.store()) else { return };
        let Ok(late) = self.look_up_late(&room, store, std::slice::from_ref(&appended)).await else {
            return self.inner.lanes.note_uncertain(&room, [copy.message_id].into_iter());
        };
        self.publish_late(&room, late, &mut []).await;
        let Appended::New { position, .. } = appended else { return };
        let guard = self.hub().lock_room_for_emit(&room).await;
        if self.is_current(&position) && guard.log_head().is_none_or(|head| head < position.number) {
            // Nothing of it is kept in memory, which alone could fail.
            let _ = self.publish_locked(&guard, copy, Some(InLog::new(&position, incarnation))).await;
            guard.raise_log_head(position.number);
        }
    }

    /// Publishes the copies of direct messages to several nodes.
    pub(super) async fn send_copies(&self, nodes: (&Cluster, &Shared), copies: Vec<(Accepted, Appended)>) {
        for (copy, appended) in copies {
            match appended {
                Appended::New { position, .. } => {
                    if let AppendDone::Sent(finishing) = self.send_stored(nodes, copy, position).await {
                        self.inner.lifecycle.spawn(async move { drop(finishing.await) });
                    }
                }
                Appended::Known { position, .. } => {
                    self.inner.wakes.note(copy.room(), Some(position));
                    self.inner.wakes.request();
                }
                Appended::KeyReused | Appended::Refused(_) => {}
            }
        }
    }
}

fn stored_emit(user: &UserId, event: EventName, connections: Vec<ConnectionId>) -> Emit {
    Emit {
        audience: Audience::user(user),
        except: Exceptions { connections, ..Exceptions::default() },
        event,
        payload: Payload::None,
        volatile: false,
        envelope: false,
        retain: false,
        store: true,
        ttl: None,
        collapse_key: None,
        ack: None,
        alone: true,
    }
}

/// What these appends store: of a direct message two entries.
pub(super) fn messages(appends: &[PendingAppend]) -> Vec<NewMessage> {
    let mut messages = Vec::with_capacity(appends.len());
    for append in appends {
        let main = append.message();
        let Some(DirectAppend { new, copy }) = append.direct.as_deref() else {
            messages.push(main);
            continue;
        };
        let direct = Some(new.clone());
        let copy = NewMessage { room: copy.room().clone(), direct: direct.clone(), ..main.clone() };
        messages.extend([NewMessage { direct, ..main }, copy]);
    }
    messages
}

/// What became of the appends, and of the copies of those that are direct messages, which have their payloads then.
pub(super) fn split(
    appends: &mut [PendingAppend],
    appended: Vec<Appended>,
) -> (Vec<Appended>, Vec<(Accepted, Appended)>) {
    let (mut own, mut copies) = (Vec::with_capacity(appends.len()), Vec::new());
    let mut appended = appended.into_iter();
    for append in appends {
        let Some(main) = appended.next() else { break };
        if let Some(direct) = append.direct.take() {
            let DirectAppend { new, mut copy } = *direct;
            if let Appended::New { direct: Some(stored), .. } = &main {
                copy.emit.payload = new.render.0(stored);
                append.accepted.emit.payload = copy.emit.payload.clone();
            }
            copies.extend(appended.next().map(|appended| (copy, appended)));
        }
        own.push(main);
    }
    (own, copies)
}
