//! Direct messages: an emit to the receiver, and a copy for the sender's other devices, both stored in one transaction.
//!
//! The work is done in the lane of the receiver's room. The copy is published in the lane of the sender's, after what that has published: where
//! another emit comes first, it publishes the copy as a late message.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    Delivery,
    accepted::{Accepted, EmitError, Published},
    direct_append::DirectAppend,
    execute::InLog,
    log_lanes::{AppendDone, Job, PendingAppend},
    sendings::SendingConnection,
};
use crate::message::{Audience, ConnectionId, Emit, EventName, Exceptions, MessageId, Payload, Position, UserId};
use crate::store::{self, Appended, Incarnation, NewDirect, NewMessage};

/// The sender is answered after the copy was published, if it is within this time after the message was.
const COPIED_WITHIN: Duration = Duration::from_millis(500);

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
        let copied = self.inner.sendings.begin(message_id, room, connection);
        let publishing = self.append_with(accepted, key, Some(Box::new(DirectAppend { new, copy: Some(copy) })));
        let delivery = self.clone();
        let publishing = async move {
            let published = publishing.done().await;
            if published.as_ref().is_ok_and(|(receipt, _)| !receipt.duplicate) {
                // It is never sent, only dropped.
                let _ = timeout(COPIED_WITHIN, copied).await;
            }
            delivery.inner.sendings.forget(message_id);
            published
        };
        self.inner.lifecycle.detach(publishing).await
    }

    /// Publishes an emit that keeps nothing after what was stored in its room before.
    pub async fn publish_after_stored(&self, caller: &Arc<str>, emit: Emit) -> Published {
        if !self.is_alone() {
            // Among several nodes both are in the order of the room's channel.
            return self.publish(caller, emit, None, Instant::now()).done().await;
        }
        let (delivery, caller, room) = (self.clone(), caller.clone(), emit.audience.room().clone());
        let publishing = async move { delivery.publish(&caller, emit, None, Instant::now()).done().await };
        self.in_lane(&room, publishing).await.unwrap_or(Err(EmitError::StoreBusy))
    }

    /// Publishes the copies of direct messages, each in the lane of its sender's room.
    pub(super) fn publish_copies(&self, copies: Vec<(Accepted, Appended)>, incarnation: Incarnation) {
        for (copy, appended) in copies {
            let Some(position) = position_of(&appended) else { continue };
            let (delivery, room) = (self.clone(), copy.room().clone());
            let publishing = async move {
                let id = copy.message_id;
                if !delivery.is_alone() {
                    return delivery.send_copy(copy, appended).await;
                }
                delivery.publish_copy(copy, appended, incarnation).await;
                delivery.inner.sendings.forget(id);
            };
            if self.enter_lane(&room, Job::Task(Box::pin(publishing))).is_err() && !self.is_alone() {
                // The nodes read it from the store. A node that is alone publishes it with the room's next message.
                self.inner.wakes.note(&room, Some(position));
                self.inner.wakes.request();
            }
        }
    }

    /// Notes that copies are committed and not published, on a node that is alone: what reads where a room stands, or publishes in it, finds them.
    pub(super) fn note_copies(&self, copies: &[(Accepted, Appended)]) {
        for (copy, appended) in copies {
            if matches!(appended, Appended::New { .. }) {
                self.inner.lanes.note_uncertain(copy.room(), [copy.message_id].into_iter());
            }
        }
    }

    /// Publishes what stands before a copy, and the copy, unless another emit has done that.
    async fn publish_copy(&self, copy: Accepted, appended: Appended, incarnation: Incarnation) {
        let (room, Some(store)) = (copy.room().clone(), self.store()) else { return };
        // One of an epoch that is over stays uncertain: it is looked up with the room's next message.
        if !position_of(&appended).is_some_and(|position| self.is_current(&position)) {
            return;
        }
        let Ok(late) = self.look_up_late(&room, store, std::slice::from_ref(&appended)).await else { return };
        self.publish_late(&room, late, &mut []).await;
        let Appended::New { position, .. } = appended else { return };
        let (guard, id) = (self.hub().lock_room_for_emit(&room).await, copy.message_id);
        if self.is_current(&position) && guard.log_head().is_none_or(|head| head < position.number) {
            // Nothing of it is kept in memory, which alone could fail.
            let _ = self.publish_locked(&guard, copy, Some(InLog::new(&position, incarnation))).await;
            guard.raise_log_head(position.number);
        }
        self.inner.lanes.settle_uncertain(&room, id);
    }

    /// Publishes a copy to several nodes.
    async fn send_copy(&self, copy: Accepted, appended: Appended) {
        let (Some(nodes), id) = (self.others(), copy.message_id) else { return };
        let Appended::New { position, .. } = appended else {
            // The first one's frame may have been lost with the node that stored it.
            self.inner.wakes.note(copy.room(), position_of(&appended));
            self.inner.wakes.request();
            return self.inner.sendings.forget(id);
        };
        let AppendDone::Sent(finishing) = self.send_stored(nodes, copy, position).await else {
            return self.inner.sendings.forget(id);
        };
        let delivery = self.clone();
        self.inner.lifecycle.spawn(async move {
            drop(finishing.await);
            delivery.inner.sendings.forget(id);
        });
    }
}

fn position_of(appended: &Appended) -> Option<Position> {
    match appended {
        Appended::New { position, .. } | Appended::Known { position, .. } => Some(position.clone()),
        Appended::KeyReused | Appended::Refused(_) => None,
    }
}

fn stored_emit(user: &UserId, event: EventName, connections: Vec<ConnectionId>) -> Emit {
    let except = Exceptions { connections, ..Exceptions::default() };
    Emit { except, store: true, ..Emit::plain(Audience::user(user), event, Payload::None) }
}

/// What these appends store: of a direct message two entries.
pub(super) fn messages(appends: &[PendingAppend]) -> Vec<NewMessage> {
    let mut messages = Vec::with_capacity(appends.len());
    for append in appends {
        let main = append.message();
        let Some(direct_append) = append.direct.as_deref() else {
            messages.push(main);
            continue;
        };
        let direct = Some(direct_append.new.clone());
        let copy = NewMessage { room: direct_append.room(), direct: direct.clone(), ..main.clone() };
        messages.extend([NewMessage { direct, ..main }, copy]);
    }
    messages
}

/// Whether what refused several appends to a room may be the damaged mailbox of one sender: then each is tried alone.
pub(super) fn may_be_of_another_room(error: &store::Error, appends: &[PendingAppend]) -> bool {
    error.is_damage() && appends.len() > 1 && appends.iter().any(|append| append.direct.is_some())
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
        if let Some(DirectAppend { new, copy }) = append.direct.as_deref_mut()
            && let (Some(mut copy), Some(of_copy)) = (copy.take(), appended.next())
        {
            if let Appended::New { direct: Some(stored), .. } = &main {
                copy.emit.payload = new.render.0(stored);
                append.accepted.emit.payload = copy.emit.payload.clone();
            }
            copies.push((copy, of_copy));
        }
        own.push(main);
    }
    (own, copies)
}
