//! Frames with messages of histories that several nodes share. Each node sends a room's messages in the order of their numbers: what a frame leaves out
//! is read from the history first.

use tokio::time::{Instant, timeout_at};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{Delivery, accepted::Accepted, history_heads::Place, stored_frames::Executed};
use crate::cluster::Kept;
use crate::hub::RoomGuard;
use crate::message::Receipt;

impl Delivery {
    /// Executes a frame, unless it has to wait: then it is returned.
    pub(super) fn execute_kept_now(&self, accepted: Accepted, kept: Kept) -> Result<Executed, Box<Accepted>> {
        let Some(guard) = self.hub().try_lock_room_for_emit(accepted.room()) else {
            return Err(Box::new(accepted));
        };
        match self.place_kept(&guard, kept) {
            Place::Before { is_sent } => Ok(self.executed_kept_before(&guard, &accepted, (kept, is_sent))),
            Place::Next if guard.is_small(accepted.emit.ack.is_some()) => {
                Ok(Executed::Published(self.publish_locked_now(&guard, accepted, None)))
            }
            Place::Next | Place::Beyond => Err(Box::new(accepted)),
        }
    }

    /// Executes a frame after the messages before it. It waits for the engine until its deadline: then the frames behind it pass, and it is read from
    /// the history later, with those of its room that come meanwhile.
    pub(super) async fn execute_kept(&self, accepted: Accepted, kept: Kept) -> Executed {
        let Some(cluster) = self.cluster() else { return Executed::Late };
        let (room, position) = (accepted.room().clone(), kept.position());
        let (until, mut has_waited) = (Instant::now() + cluster.deadline(), false);
        let fills = &self.inner.history_fills;
        loop {
            let guard = self.hub().lock_room_for_emit(&room).await;
            match self.place_kept(&guard, kept) {
                Place::Before { is_sent } => return self.executed_kept_before(&guard, &accepted, (kept, is_sent)),
                Place::Next => return Executed::Published(self.publish_locked(&guard, accepted, None).await),
                Place::Beyond => {}
            }
            drop(guard);
            if has_waited && self.inner.history_heads.get(&room).is_some_and(|head| head.sequence != kept.sequence) {
                tracing::debug!(room.name = %room, "a message came whose sequence is over");
                break;
            }
            let (is_first, waits) = fills.wait_before(&room, &position);
            if is_first {
                self.spawn_history_fill(&room);
            }
            let Some(waits) = waits else { break };
            if timeout_at(until, waits).await.is_err() {
                if fills.give_up_waiting(&room, &position) {
                    self.spawn_history_fill(&room);
                }
                break;
            }
            has_waited = true;
        }
        self.late(&accepted)
    }

    /// Notes that a message is sent next in a locked room.
    pub(super) fn advance_history(&self, guard: &RoomGuard<'_>, kept: Kept) {
        let stood = self.inner.history_heads.advance(guard.room(), kept, guard.connections() > 0);
        if let Some(stood) = stood {
            self.tell_of_late_head(guard, stood);
        }
    }

    /// Tells devices that were let in before it was known where their locked room stands that they may have missed what is up to there.
    pub(super) fn tell_of_late_head(&self, guard: &RoomGuard<'_>, stood: Kept) {
        #[cfg(test)]
        if is_broken(Rule::LateHeadIsTold) {
            return;
        }
        if stood.number > 0 {
            self.tell_of_gap_in(guard, &stood.position());
        }
    }

    /// Where a message is, seen from where its locked room stands. Of a room without connections nothing need be read.
    fn place_kept(&self, guard: &RoomGuard<'_>, kept: Kept) -> Place {
        let heads = &self.inner.history_heads;
        let place = heads.place(guard.room(), kept);
        if place == Place::Beyond && guard.connections() == 0 {
            heads.pass(guard.room(), Kept { number: kept.number.saturating_sub(1), ..kept });
            return heads.place(guard.room(), kept);
        }
        #[cfg(test)]
        if is_broken(match place {
            Place::Before { .. } => Rule::SentIsNotSentAgain,
            Place::Next | Place::Beyond
                if heads.get(guard.room()).is_some_and(|head| head.sequence != kept.sequence) =>
            {
                Rule::EndedSequenceIsNotSent
            }
            Place::Next | Place::Beyond => Rule::HistoryHoleIsRead,
        }) {
            return Place::Next;
        }
        place
    }

    /// A message that was sent before its frame came. What devices answer that were sent it then is not known.
    fn executed_kept_before(
        &self,
        guard: &RoomGuard<'_>,
        accepted: &Accepted,
        (kept, is_sent): (Kept, bool),
    ) -> Executed {
        if let Some(repeated) = self.repeated(guard, accepted) {
            return Executed::Published(Ok(repeated));
        }
        if !is_sent {
            return Executed::Published(Ok((Receipt::new(accepted.message_id), None)));
        }
        let receipt = self.inner.history_fills.receipt(accepted, kept.number);
        receipt.map_or_else(|| self.late(accepted), |receipt| Executed::Published(Ok((receipt, None))))
    }

    /// A connection that joins now reads again what the room retains.
    fn late(&self, accepted: &Accepted) -> Executed {
        if accepted.change != 0 {
            self.note_missed_change(accepted.room(), accepted.change);
        }
        Executed::Late
    }
}
