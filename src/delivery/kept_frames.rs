//! Frames with messages of histories that several nodes share. Each node sends a room's messages in the order of their numbers: what a frame leaves out
//! is read from the history first.

use tokio::time::{Instant, timeout_at};

use super::{
    Delivery, accepted::Accepted, acks::PendingAcks, history_heads::Place, laned::Laned, stored_frames::Executed,
};
use crate::cluster::Kept;
use crate::hub::{EntryMeta, Frame, RoomGuard};
use crate::message::{Exceptions, LogEntry, Receipt, RoomName};
use crate::telemetry;

/// Messages that are read at one time.
pub(super) const PAGE: usize = 200;

impl Delivery {
    /// Executes a frame, unless it has to wait: then it is returned.
    pub(super) fn execute_kept_now(&self, accepted: Accepted, kept: Kept) -> Result<Executed, Box<Accepted>> {
        match self.inner.history_heads.place(accepted.room(), kept) {
            Place::Next => self.publish_now(accepted).map(Executed::Published),
            Place::Before { is_sent } => Ok(self.executed_kept_before(&accepted, kept, is_sent)),
            Place::Beyond => Err(Box::new(accepted)),
        }
    }

    /// Executes a frame after the messages before it.
    pub(super) async fn execute_kept(&self, accepted: Accepted, kept: Kept) -> Executed {
        let heads = &self.inner.history_heads;
        if heads.place(accepted.room(), kept) == Place::Beyond {
            self.fill_history(accepted.room(), Kept { number: kept.number - 1, ..kept }).await;
        }
        match heads.place(accepted.room(), kept) {
            Place::Before { is_sent } => self.executed_kept_before(&accepted, kept, is_sent),
            Place::Next | Place::Beyond => Executed::Published(self.publish_in_order(accepted).await),
        }
    }

    /// What became of a message that was sent while its frame waited for the locked room.
    pub(super) fn filled_meanwhile(
        &self,
        guard: &RoomGuard<'_>,
        accepted: &Accepted,
    ) -> Option<(Receipt, Option<PendingAcks>)> {
        let kept = accepted.kept?;
        let Place::Before { .. } = self.inner.history_heads.place(guard.room(), kept) else { return None };
        let counts = self.inner.fills.filled(guard.room(), kept.number).unwrap_or_default();
        let crate::hub::Counts { matched, enqueued, dropped, .. } = counts;
        Some((Receipt { matched, enqueued, dropped, ..Receipt::new(accepted.message_id) }, None))
    }

    /// A message that was sent before its frame came. What devices answer that were sent it then is not known.
    fn executed_kept_before(&self, accepted: &Accepted, kept: Kept, is_sent: bool) -> Executed {
        if let Some(repeated) = self.repeated(accepted.room(), accepted) {
            return Executed::Published(Ok(repeated));
        }
        let receipt = Receipt::new(accepted.message_id);
        if !is_sent {
            return Executed::Published(Ok((receipt, None)));
        }
        match self.inner.fills.filled(accepted.room(), kept.number) {
            Some(counts) if accepted.emit.ack.is_none() => {
                let crate::hub::Counts { matched, enqueued, dropped, .. } = counts;
                Executed::Published(Ok((Receipt { matched, enqueued, dropped, ..receipt }, None)))
            }
            Some(_) | None => Executed::Late,
        }
    }

    /// Sends what a room's history has up to a message and was not sent here. Devices are told of what cannot be read, and the room goes on. Called by
    /// the room's frame lane.
    pub(super) async fn fill_history(&self, room: &RoomName, target: Kept) {
        let Some((cluster, shared)) = self.others() else { return };
        let heads = &self.inner.history_heads;
        // A connection that joins from now on is told where the room stands then.
        {
            let guard = self.hub().lock_room_for_emit(room).await;
            if guard.connections() == 0 {
                return heads.pass(room, target);
            }
        }
        // Closed never.
        let Ok(_permit) = heads.reads.acquire().await else { return };
        let until = Instant::now() + cluster.deadline();
        let Some(mut head) = heads.get(room) else { return };
        if head.sequence != target.sequence {
            let stands = timeout_at(until, shared.history.position(room)).await;
            if matches!(stands, Ok(Ok(Some(stands))) if stands.sequence == head.sequence) {
                // That sequence is over.
                return;
            }
            tracing::debug!(room.name = %room, "a history has begun anew");
            head = Kept { number: 0, ..target };
            self.go_on_from(room, head).await;
        }
        while head.number < target.number {
            let page = timeout_at(until, shared.history.after(room, head, PAGE)).await;
            let Ok(Ok(Some(page))) = page else {
                return self.give_up_history(room, target).await;
            };
            if page.up_to <= head.number {
                return self.give_up_history(room, target).await;
            }
            for message in page.messages.into_iter().filter(|message| message.number <= target.number) {
                self.publish_filled_message(room, message, head.sequence).await;
            }
            head.number = page.up_to.min(target.number);
            heads.advance(room, head, false);
        }
    }

    async fn publish_filled_message(&self, room: &RoomName, message: LogEntry, sequence: u64) {
        let began = Instant::now();
        let kept = Kept { sequence, number: message.number };
        let guard = self.hub().lock_room_for_emit(room).await;
        if self.inner.history_heads.place(room, kept) != Place::Next {
            // What has expired before it is passed over.
            let Some(head) = self.inner.history_heads.get(room) else { return };
            if head.sequence != sequence || head.number >= kept.number {
                return;
            }
        }
        let frame = Frame {
            entry: Some(EntryMeta::new(message.id, room, &kept.position())),
            ..Frame::new(message.event, message.payload)
        };
        self.inner.history_heads.advance(room, kept, true);
        let except = Exceptions { users: message.except_users, ..Exceptions::default() };
        let mut fan_out = guard.fan_out(frame, except, false);
        fan_out.run().await;
        let (counts, _) = fan_out.finish();
        telemetry::fanned_out(counts.enqueued, counts.dropped, began.elapsed());
        self.inner.fills.note_filled(room, kept.number, counts);
    }

    async fn give_up_history(&self, room: &RoomName, head: Kept) {
        tracing::warn!(room.name = %room, "messages of a history cannot be read: its devices are told so");
        self.go_on_from(room, head).await;
    }

    /// Goes on in a room after a message, though some before it were not sent: devices that resume are told so.
    async fn go_on_from(&self, room: &RoomName, head: Kept) {
        self.inner.history_heads.advance(room, head, true);
        self.tell_of_gap(room, &head.position()).await;
    }

    /// Has what a room's history has up to a message sent, after what waits of the room already.
    pub(super) fn fill_history_later(&self, room: &RoomName, target: Kept) {
        self.push_to_lane(room, Laned::Fill(target));
    }
}
