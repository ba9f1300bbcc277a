//! Reading from the engine what did not come in frames of a history that several nodes share, in its place among what did. Only what the engine says
//! decides that something is lost, or that a history has begun anew: what cannot be read is read again.

use std::time::Duration;

use scopeguard::guard_on_unwind;
use tokio::time::{Instant, sleep, timeout};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{Delivery, fills::Next, laned::Laned};
use crate::cluster::{BusError, Kept};
use crate::hub::{EntryMeta, Frame};
use crate::message::{Exceptions, LogEntry, RoomName};
use crate::telemetry;

/// Messages that are read at one time.
pub(super) const PAGE: usize = 200;
/// The pause before a room is read again that could not be; it doubles from one to the next, up to the longest.
const READ_AGAIN: Duration = Duration::from_millis(50);
const MAX_READ_AGAIN: Duration = Duration::from_millis(800);
/// A room is given up that the engine has refused so often to read, one time after the other.
const MAX_REFUSED: u32 = 5;

/// The reads of one room that have failed, one after the other.
#[derive(Default)]
struct Failed {
    count: u32,
    refused: u32,
}

impl Delivery {
    /// Has what a room's history has up to a message sent, after what waits of the room already.
    pub(super) fn fill_history_later(&self, room: &RoomName, target: Kept) {
        self.push_to_lane(room, Laned::Fill(target));
    }

    /// Has what a room's history has up to a message sent. Called by the room's frame lane, which does not wait for that.
    pub(super) async fn fill_history_up_to(&self, room: &RoomName, target: Kept) {
        if self.inner.history_heads.get(room).is_none() {
            let guard = self.hub().lock_room_for_emit(room).await;
            let stood = self.inner.history_heads.note_missed(room, target, guard.connections() > 0);
            if let Some(stood) = stood {
                self.tell_of_late_head(&guard, stood);
            }
        }
        if self.inner.history_fills.want(room, target.position()) {
            self.spawn_history_fill(room);
        }
    }

    pub(super) fn spawn_history_fill(&self, room: &RoomName) {
        let (delivery, room) = (self.clone(), room.clone());
        self.inner.lifecycle.spawn(async move { delivery.run_history_fill(&room).await });
    }

    /// One task runs for a room, as long as something is to be read and a connection is there.
    async fn run_history_fill(&self, room: &RoomName) {
        let (fills, heads) = (&self.inner.history_fills, &self.inner.history_heads);
        let _guard = guard_on_unwind((), |()| fills.abandon(room));
        let mut failed = Failed::default();
        loop {
            let head = heads.get(room);
            let epoch = head.map(|head| head.position().epoch).unwrap_or_default();
            let Some(next) = fills.next(room, head.map(|head| head.number), &epoch) else { return };
            let target = if let Next::Up(target) = next { Kept::of(&target) } else { None };
            {
                let guard = self.hub().lock_room_for_emit(room).await;
                if guard.connections() == 0 {
                    if let Some(target) = target {
                        heads.pass(room, target);
                    }
                    return fills.abandon(room);
                }
            }
            let read = match head.zip(target) {
                Some((head, target)) => self.fill_history(room, head, target).await,
                None => self.read_heads(vec![room.clone()]).await,
            };
            match read {
                Ok(()) => failed = Failed::default(),
                Err(error) => self.wait_to_fill(room, head.zip(target), &mut failed, error).await,
            }
        }
    }

    /// Sends the messages of a page, or of as many as there are up to a message.
    async fn fill_history(&self, room: &RoomName, head: Kept, target: Kept) -> Result<(), BusError> {
        // Closed never.
        let permit = self.inner.history_heads.reads.acquire().await;
        if head.sequence != target.sequence {
            return self.go_on(room, head, target).await;
        }
        let page = self.shared()?.history.after(room, head, PAGE).await?;
        let Some(page) = page.filter(|page| page.up_to > head.number) else {
            return self.go_on(room, head, target).await;
        };
        drop(permit);
        for message in page.messages.into_iter().filter(|message| message.number <= target.number) {
            self.publish_filled_message(room, message, head.sequence).await;
        }
        let _guard = self.hub().lock_room_for_emit(room).await;
        self.inner.history_heads.advance(room, Kept { number: page.up_to.min(target.number), ..head }, false);
        Ok(())
    }

    async fn publish_filled_message(&self, room: &RoomName, message: LogEntry, sequence: u64) {
        let began = Instant::now();
        let kept = Kept { sequence, number: message.number };
        let guard = self.hub().lock_room_for_emit(room).await;
        // What is between has expired. Its frame may have come meanwhile.
        if self.inner.history_heads.get(room).is_none_or(|head| head.sequence != sequence || head.number >= kept.number)
        {
            return;
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
        self.inner.history_fills.note_filled(room, kept.number, counts);
    }

    /// Goes on in a room of which not all messages are there, or whose next ones are of another sequence: the engine says which one is over.
    async fn go_on(&self, room: &RoomName, head: Kept, target: Kept) -> Result<(), BusError> {
        let fills = &self.inner.history_fills;
        let stands = self.shared()?.history.position(room).await?;
        match stands {
            Some(stands) if stands.sequence != head.sequence => {
                tracing::debug!(room.name = %room, "a history has begun anew");
                if self.skip_and_tell(room, head, Kept { number: 0, ..stands }).await {
                    fills.forget_filled_in(room);
                    // The task that reads the history goes on with it.
                    let _ = fills.want(room, stands.position());
                    if target.sequence != stands.sequence {
                        fills.discard(room, &target.position().epoch);
                    }
                }
            }
            Some(stands) if stands.sequence == target.sequence => {
                if stands.number < target.number {
                    // It is not the engine that the message was published by.
                    return Err(BusError::Unanswered);
                }
                tracing::warn!(room.name = %room, "messages of a history are not there any more: its devices are told so");
                self.skip_and_tell(room, head, target).await;
            }
            Some(_) | None => fills.discard(room, &target.position().epoch),
        }
        Ok(())
    }

    /// Goes on in a room after a message, though some before it were not sent: devices that resume are told so. False: the room does not stand at
    /// `head` any more.
    pub(super) async fn skip_and_tell(&self, room: &RoomName, head: Kept, to: Kept) -> bool {
        let guard = self.hub().lock_room_for_emit(room).await;
        let is_skipped = self.inner.history_heads.skip(room, head, to);
        #[cfg(test)]
        if head.sequence != to.sequence && is_broken(Rule::BegunAnewIsTold) {
            return is_skipped;
        }
        if is_skipped {
            self.tell_of_gap_in(&guard, &to.position());
        }
        is_skipped
    }

    /// Waits until a room is to be read again. What the engine refuses to read again and again is given up.
    async fn wait_to_fill(&self, room: &RoomName, read: Option<(Kept, Kept)>, failed: &mut Failed, error: BusError) {
        failed.refused = if error == BusError::Refused { failed.refused + 1 } else { 0 };
        if failed.refused >= MAX_REFUSED
            && let Some((head, target)) = read
        {
            tracing::error!(room.name = %room, "the engine refuses to read a history: the room's devices are told that they have missed messages");
            if head.sequence != target.sequence || self.skip_and_tell(room, head, target).await {
                self.inner.history_fills.discard(room, &target.position().epoch);
            }
            failed.refused = 0;
            return;
        }
        let pause = MAX_READ_AGAIN.min(READ_AGAIN * (1 << failed.count.min(8)));
        failed.count += 1;
        sleep(pause).await;
        if let Some(cluster) = self.cluster() {
            // The room may become empty meanwhile.
            let _ = timeout(MAX_READ_AGAIN, cluster.engines().of(room).reached()).await;
        }
    }
}
