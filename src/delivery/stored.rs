use std::collections::{HashMap, hash_map::Entry};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Delivery, IdempotencyKey,
    acks::PendingAcks,
    emit::{Accepted, EmitError},
    proof::Publishing,
};
use crate::hub::{EntryMeta, Frame, RoomGuard};
use crate::message::{Exceptions, MessageId, Position, Receipt, RoomName};
use crate::store::{Appended, NewMessage, Store};

/// Emits that are to be stored, by their room. Those that come while others of the room are written are written together, next.
#[derive(Default)]
pub(super) struct ToBeStored {
    pending: Mutex<HashMap<RoomName, Vec<PendingAppend>>>,
    /// Those that were refused since the database did not answer: it may have kept them all the same.
    uncertain: Mutex<HashMap<RoomName, Vec<MessageId>>>,
}

/// Rooms of which is remembered what may have been kept, and messages of each.
const MAX_UNCERTAIN: usize = 1_000;

/// An emit that is to be stored, and where its receipt goes.
pub(super) struct PendingAppend {
    accepted: Accepted,
    key: Option<IdempotencyKey>,
    answer: oneshot::Sender<Result<(Receipt, Option<PendingAcks>), EmitError>>,
}

/// Emits of one room that are written at one time, and their bytes.
const AT_ONE_TIME: usize = 128;
const AT_ONE_TIME_BYTES: usize = 4 << 20;

impl ToBeStored {
    /// Puts an emit behind those of its room. True if nobody takes care of them yet.
    fn push(&self, room: &RoomName, pending: PendingAppend) -> bool {
        match self.pending.lock().entry(room.clone()) {
            Entry::Occupied(mut others) => {
                others.get_mut().push(pending);
                false
            }
            Entry::Vacant(first) => {
                first.insert(vec![pending]);
                true
            }
        }
    }

    /// The first that have come, as many as are good to write at one time. None: there are none, and whoever comes next is the first.
    fn take(&self, room: &RoomName) -> Option<Vec<PendingAppend>> {
        let mut rooms = self.pending.lock();
        let pending = rooms.get_mut(room).filter(|pending| !pending.is_empty());
        let Some(pending) = pending else {
            rooms.remove(room);
            return None;
        };
        let mut bytes = 0;
        let fits = |pending: &&PendingAppend| {
            bytes += pending.accepted.emit.payload.len();
            bytes <= AT_ONE_TIME_BYTES
        };
        // One that is larger comes alone.
        let count = pending.iter().take(AT_ONE_TIME).take_while(fits).count().max(1);
        Some(pending.drain(..count).collect())
    }

    fn note_uncertain(&self, room: &RoomName, ids: impl Iterator<Item = MessageId>) {
        let mut uncertain = self.uncertain.lock();
        if uncertain.len() < MAX_UNCERTAIN || uncertain.contains_key(room) {
            let known = uncertain.entry(room.clone()).or_default();
            known.extend(ids);
            known.truncate(MAX_UNCERTAIN);
        }
    }
}

impl PendingAppend {
    fn message(&self, room: &RoomName) -> NewMessage {
        let Self { accepted, key, .. } = self;
        let emit = &accepted.emit;
        NewMessage {
            room: room.clone(),
            id: accepted.message_id,
            event: emit.event.clone(),
            payload: accepted.payload(),
            except_users: emit.except.users.clone(),
            ttl: emit.ttl,
            idempotency: key.as_ref().map(IdempotencyKey::stored),
        }
    }
}

impl Delivery {
    /// Whether emits can be stored at all.
    pub fn can_store(&self) -> bool {
        self.store().is_some()
    }

    /// Whether a room is a user's, and what is stored for that user is there.
    pub(super) fn is_users_mailbox(&self, room: &RoomName) -> bool {
        room.user().is_some() && self.can_store() && !self.has_history(room)
    }

    /// Keeps an emit, and then sends it. Its place among those of its room is that of this call.
    pub(super) async fn store_and_send(
        &self,
        accepted: Accepted,
        key: Option<IdempotencyKey>,
    ) -> Result<Receipt, EmitError> {
        let room = accepted.emit.audience.room();
        let (answer, answered) = oneshot::channel();
        if self.inner.to_be_stored.push(&room, PendingAppend { accepted, key, answer }) {
            let delivery = self.clone();
            self.inner.lifecycle.spawn(async move { while delivery.store_pending(&room).await {} });
        }
        let (receipt, pending) = answered.await.unwrap_or(Err(EmitError::StoreUnavailable))?;
        Ok(self.answered(receipt, pending).await)
    }

    /// Writes what has come for a room at one time, and sends it in the order of the positions. False if there was nothing.
    async fn store_pending(&self, room: &RoomName) -> bool {
        let guard = self.hub().lock_room_for_emit(room).await;
        let (Some(pending), Some(store)) = (self.inner.to_be_stored.take(room), self.store()) else {
            return false;
        };
        let messages = pending.iter().map(|pending| pending.message(room)).collect();
        let appended = store.append(messages).await.unwrap_or_default();
        if appended.is_empty() {
            self.inner.to_be_stored.note_uncertain(room, pending.iter().map(|pending| pending.accepted.message_id));
        } else {
            self.send_uncertain(&guard, store).await;
        }
        let mut appended = appended.into_iter();
        let is_one = pending.len() == 1;
        for PendingAppend { mut accepted, answer, .. } in pending {
            accepted.emit.alone &= is_one;
            let receipt = match appended.next() {
                Some(appended) => self.send_stored(&guard, accepted, appended).await,
                None => Err(EmitError::StoreUnavailable),
            };
            // Whoever asked may be gone.
            let _ = answer.send(receipt);
        }
        true
    }

    /// Sends what was refused and was kept all the same. It comes before what was kept later, and a device that has got that would not be
    /// given it any more.
    async fn send_uncertain(&self, guard: &RoomGuard<'_>, store: &Store) {
        let Some(ids) = self.inner.to_be_stored.uncertain.lock().remove(guard.room()) else {
            return;
        };
        let (Ok(messages), Ok(begin)) = (store.messages_by_id(guard.room(), &ids).await, store.position(0).await)
        else {
            self.inner.to_be_stored.note_uncertain(guard.room(), ids.into_iter());
            return;
        };
        for message in messages {
            let position = Position { number: message.number, ..begin.clone() };
            let entry = Some(EntryMeta::new(message.id, guard.room(), &position));
            let except = Exceptions { users: message.except_users, ..Exceptions::default() };
            let publishing = self.begin_publishing(guard.room(), position.number, true);
            let unproven = publishing.as_ref().map(Publishing::unproven);
            let frame = Frame { entry, unproven, ..Frame::new(message.event, message.payload) };
            let counts = guard.fan_out(frame, &except).await;
            if let Some(publishing) = publishing {
                publishing.done(&counts);
            }
        }
    }

    async fn send_stored(
        &self,
        guard: &RoomGuard<'_>,
        accepted: Accepted,
        appended: Appended,
    ) -> Result<(Receipt, Option<PendingAcks>), EmitError> {
        match appended {
            Appended::New { position } => {
                let (receipt, pending) = self.send_in(Some(guard), accepted, Some(&position)).await?;
                Ok((Receipt { stored: true, position: Some(position), ..receipt }, pending))
            }
            Appended::Known { position, id } => {
                let first = Receipt { stored: true, position: Some(position), duplicate: true, ..Receipt::new(id) };
                Ok((first, None))
            }
            Appended::KeyReused => Err(EmitError::KeyReused),
        }
    }
}
