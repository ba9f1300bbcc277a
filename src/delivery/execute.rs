use tokio::time::Instant;

use super::{
    Delivery,
    accepted::{Accepted, EmitError, Published},
    acks::PendingAcks,
    collapse_windows::Topic,
    proof::UnprovenFanOut,
};
use crate::cluster;
use crate::hub::{Counts, EntryMeta, FanOut, Frame, RoomGuard, WriteMode};
use crate::message::{AckRequest, MessageId, Payload, Position, Receipt, RoomName};
use crate::state::{NewEntry, RetainedValue};
use crate::store::Incarnation;
use crate::telemetry;

/// An emit on its way to the connections of a locked room.
struct Execution<'a> {
    room: &'a RoomName,
    fan_out: FanOut<'a>,
    message_id: MessageId,
    received: Instant,
    /// When it was sent, if it asks for acknowledgements.
    began: Option<Instant>,
    ack: Option<Box<AckRequest>>,
    unproven: Option<UnprovenFanOut>,
    /// A direct message in its sender's room: a connection of this node has sent it.
    is_sent_here: bool,
    /// Connections that were given it when they joined, as a retained value.
    given: u64,
    /// That of an emit that may come again: the number of its change.
    once: Option<u64>,
}

/// Where a stored message is.
#[derive(Clone, Copy)]
pub(super) struct InLog<'a> {
    position: &'a Position,
    /// That of the position's number.
    incarnation: Incarnation,
    /// A connection may have come to it before, by replaying.
    is_late: bool,
}

impl<'a> InLog<'a> {
    pub(super) fn new(position: &'a Position, incarnation: Incarnation) -> Self {
        Self { position, incarnation, is_late: false }
    }

    pub(super) fn late(position: &'a Position, incarnation: Incarnation) -> Self {
        Self { position, incarnation, is_late: true }
    }
}

impl Delivery {
    /// Publishes to a locked room. `stored`: where the message is in the room's mailbox.
    pub(super) async fn publish_locked(
        &self,
        guard: &RoomGuard<'_>,
        accepted: Accepted,
        stored: Option<InLog<'_>>,
    ) -> Published {
        if let Some(before) = self.repeated(guard, &accepted) {
            return Ok(before);
        }
        let mut execution = self.execute(guard, accepted, stored)?;
        execution.fan_out.run().await;
        Ok(self.executed(execution))
    }

    /// The same for a room that is small enough to be done without a pause.
    pub(super) fn publish_locked_now(
        &self,
        guard: &RoomGuard<'_>,
        accepted: Accepted,
        stored: Option<InLog<'_>>,
    ) -> Published {
        if let Some(before) = self.repeated(guard, &accepted) {
            return Ok(before);
        }
        let mut execution = self.execute(guard, accepted, stored)?;
        while execution.fan_out.step() {}
        Ok(self.executed(execution))
    }

    /// What became of an emit when it was executed here before: it is not sent again. Nobody knows what those answer that were asked
    /// for acknowledgements then.
    pub(super) fn repeated(
        &self,
        guard: &RoomGuard<'_>,
        accepted: &Accepted,
    ) -> Option<(Receipt, Option<PendingAcks>)> {
        let (id, change) = (accepted.message_id, accepted.change);
        let shared = if accepted.once { self.shared().ok()? } else { return None };
        let before = shared.executed.repeated(id, change)?;
        if change != 0 {
            self.note_missed_change(guard.room(), change);
        }
        if let Some(kept) = accepted.kept {
            self.advance_history(guard, kept);
        }
        telemetry::fanned_out(0, 0, accepted.received.elapsed());
        let cluster::Counts { matched, enqueued, dropped, asked, .. } = before;
        let acks = accepted.emit.ack.as_ref().map(|_| PendingAcks::of_earlier(asked));
        Some((Receipt { matched, enqueued, dropped, duplicate: true, ..Receipt::new(id) }, acks))
    }

    /// Keeps what is to be kept in memory, and makes the frame.
    fn execute<'a>(
        &self,
        guard: &'a RoomGuard<'a>,
        accepted: Accepted,
        stored: Option<InLog<'_>>,
    ) -> Result<Execution<'a>, EmitError> {
        let payload = accepted.payload();
        if accepted.emit.retain {
            let retained = self.retain(guard, &accepted, &payload);
            match (retained, stored) {
                (Ok(()), _) => {}
                (Err(refused), None) => return Err(refused),
                // It is on disk: its devices are to get it. There was room when it was accepted.
                (Err(error), Some(_)) => {
                    tracing::warn!(%error, room.name = %guard.room(), "a stored payload is not retained");
                }
            }
        }
        let is_sent_here = stored.is_some()
            && !accepted.emit.except.connections.is_empty()
            && self.inner.sendings.publish(accepted.message_id, guard.room(), &payload).is_some();
        let in_history = match accepted.kept {
            Some(kept) => {
                self.advance_history(guard, kept);
                Some(kept.position())
            }
            None if stored.is_none() && !accepted.emit.volatile => self.append_to_history(guard, &accepted, &payload),
            None => None,
        };
        let position = stored.map(|stored| stored.position).or(in_history.as_ref());
        let unproven = stored.and_then(|InLog { position, incarnation, is_late }| {
            self.begin_unproven(guard, (position.number, incarnation), is_late)
        });
        let Accepted { mut emit, message_id, received, change, once, .. } = accepted;
        let given = if change == 0 { 0 } else { self.note_change(guard.room(), change, &mut emit.except) };
        let frame = Frame {
            volatile: emit.volatile,
            mode: if emit.alone { WriteMode::Inline } else { WriteMode::Batched },
            entry: position.map(|position| EntryMeta::new(message_id, guard.room(), position)),
            unproven: unproven.as_ref().map(UnprovenFanOut::message),
            ..Frame::new(emit.event, payload)
        };
        let fan_out = guard.fan_out(frame, emit.except, emit.ack.is_some());
        Ok(Execution {
            room: guard.room(),
            fan_out,
            message_id,
            received,
            began: emit.ack.as_ref().map(|_| Instant::now()),
            ack: emit.ack,
            unproven,
            is_sent_here,
            given,
            once: once.then_some(change),
        })
    }

    fn executed(&self, execution: Execution<'_>) -> (Receipt, Option<PendingAcks>) {
        let Execution { room, fan_out, message_id, received, began, ack, unproven, is_sent_here, given, once } =
            execution;
        let (counts, waiters) = fan_out.finish();
        match unproven {
            Some(unproven) if is_sent_here => unproven.done_by_sender(&counts),
            Some(unproven) => unproven.done(&counts),
            None => {}
        }
        telemetry::fanned_out(counts.enqueued, counts.dropped, received.elapsed());
        let Counts { matched, enqueued, dropped, .. } = counts;
        tracing::debug!(message.id = %message_id, room.name = %room, matched, enqueued, dropped, "emitted");
        let (matched, enqueued) = (matched + given, enqueued + given);
        let receipt = Receipt { matched, enqueued, dropped, ..Receipt::new(message_id) };
        let acks = ack.zip(began);
        let acks =
            acks.map(|(request, began)| PendingAcks::new(*request, waiters, began, self.inner.lifecycle.clone()));
        if let (Some(change), Ok(shared)) = (once, self.shared()) {
            let asked = acks.as_ref().map(PendingAcks::targets).unwrap_or_default();
            let counts = cluster::Counts { matched, enqueued, dropped, asked, is_repeated: false };
            shared.executed.note(message_id, change, counts);
        }
        (receipt, acks)
    }

    fn retain(&self, guard: &RoomGuard<'_>, accepted: &Accepted, payload: &Payload) -> Result<(), EmitError> {
        let emit = &accepted.emit;
        if self.inner.collapse.is_outdated(|| Topic::of(emit), accepted.number) {
            return Ok(());
        }
        // An envelope around nothing is not nothing, which takes the value away.
        let is_empty = matches!(emit.payload, Payload::None);
        let value = RetainedValue {
            payload: if is_empty { Payload::None } else { payload.clone() },
            except_users: emit.except.users.clone(),
            expires_at: emit.ttl.and_then(|ttl| accepted.time.checked_add(ttl).ok()),
        };
        self.inner.retained.put(&accepted.caller, guard.room(), &emit.event, value)?;
        self.inner.collapse.note_retained(|| Topic::of(emit), accepted.number);
        Ok(())
    }

    fn append_to_history(&self, guard: &RoomGuard<'_>, accepted: &Accepted, payload: &Payload) -> Option<Position> {
        // Among several nodes the engine does, when the emit is published.
        if !self.is_alone() || !self.inner.history.keeps(guard.room()) {
            return None;
        }
        let emit = &accepted.emit;
        let entry = NewEntry {
            caller: &accepted.caller,
            id: accepted.message_id,
            event: &emit.event,
            payload,
            except_users: &emit.except.users,
            ttl: emit.ttl,
            now_ms: self.inner.clock.now().as_millisecond(),
        };
        self.inner.history.append(guard.room(), &entry)
    }
}

/// Publishes to a room without connections that keeps nothing.
pub(super) fn publish_to_nobody(accepted: &Accepted) -> Receipt {
    telemetry::fanned_out(0, 0, accepted.received.elapsed());
    Receipt::new(accepted.message_id)
}
