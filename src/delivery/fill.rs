//! Reading from the store what did not come in frames, in its place among what did.

use std::time::Duration;

use scopeguard::guard_on_unwind;
use tokio::time::{Instant, sleep};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{Delivery, faulty_logs::FailedReads, fills::Next, late::Late, resumed::Resumed};
use crate::hub::RoomGuard;
use crate::message::{Position, RoomName, UserId};
use crate::store::{self, Mailbox, Store, Window};

const PAGE: u32 = 100;
/// The time to the second read of a room whose store cannot be reached, which is back soon after a restart. It doubles from one to the next.
const READ_AGAIN: Duration = Duration::from_millis(50);
const READ_AGAIN_AT_MOST: Duration = Duration::from_secs(1);
/// A position of an epoch that the store does not know is given up after this time: the store is of this node's epoch then.
const UNKNOWN_FOR: Duration = Duration::from_secs(15);

impl Delivery {
    /// Sees to it that a room's mailbox is published here up to a position.
    pub(super) fn fill_up_to(&self, room: &RoomName, position: Position) {
        let is_published = self.hub().log_head(room).is_some_and(|head| head >= position.number)
            && self.store().is_some_and(|store| store.epoch().as_ref() == Some(&position.epoch));
        if self.hub().is_in_use(room) && !is_published {
            self.want_filled(room, position);
        }
    }

    fn want_filled(&self, room: &RoomName, position: Position) {
        if self.inner.fills.want(room, position) {
            self.spawn_fill(room);
        }
    }

    /// Waits until a room is published here up to a position of its mailbox.
    pub(super) async fn filled_up_to(&self, room: &RoomName, position: Position) {
        let (is_first, ended) = self.inner.fills.wait_for(room, position);
        if is_first {
            self.spawn_fill(room);
        }
        // It is never sent, only dropped.
        let _ = ended.await;
    }

    pub(super) fn spawn_fill(&self, room: &RoomName) {
        let (delivery, room) = (self.clone(), room.clone());
        self.inner.lifecycle.spawn(async move { delivery.run_fill(&room).await });
    }

    async fn run_fill(&self, room: &RoomName) {
        let _guard = guard_on_unwind((), |()| self.inner.fills.abandon(room));
        let Some(store) = self.store() else { return };
        let mut failed = FailedReads::default();
        let (mut pause, mut unknown_since) = (READ_AGAIN, None);
        let epoch = || store.epoch().unwrap_or_default();
        while let Some(next) = self.inner.fills.next(room, self.hub().log_head(room), &epoch()) {
            if !self.hub().is_in_use(room) || store.is_closed() {
                // A device that comes later reads where the room stands.
                return self.inner.fills.abandon(room);
            }
            let Err(error) = self.fill(room, store, &next).await else {
                (failed, pause, unknown_since) = (FailedReads::default(), READ_AGAIN, None);
                continue;
            };
            let unknown = matches!(&next, Next::Up(target) if !store.knows(&target.epoch));
            unknown_since = unknown.then(|| unknown_since.unwrap_or_else(Instant::now));
            match &next {
                Next::Up(target) if error.is_damage() || failed.is_final(&error) => {
                    self.give_up_fill(room, store, target, &error).await;
                }
                Next::Up(target) if unknown_since.is_some_and(|since| since.elapsed() > UNKNOWN_FOR) => {
                    self.inner.fills.discard(room, &target.epoch);
                }
                Next::Head | Next::Up(_) if matches!(error, store::Error::Unreachable) => {
                    if store.status().can_read() {
                        sleep(pause).await;
                        pause = READ_AGAIN_AT_MOST.min(pause * 2);
                    } else {
                        store.reached().await;
                        pause = READ_AGAIN;
                    }
                }
                Next::Head | Next::Up(_) => failed.wait(store).await,
            }
        }
    }

    async fn fill(&self, room: &RoomName, store: &Store, next: &Next) -> Result<(), store::Error> {
        // Closed never.
        let _permit = self.inner.fills.reads.acquire().await;
        // The epoch first: heads are forgotten before a new one begins.
        let begin = store.position(0).await?;
        let mut after = self.log_head(room).await?;
        let is_current = || store.epoch().as_ref() == Some(&begin.epoch);
        let Next::Up(target) = next else { return Ok(()) };
        if !is_current() {
            return Ok(());
        }
        if target.epoch != begin.epoch {
            if !store.knows(&target.epoch) {
                // Another node has begun it, and this one comes to know it soon.
                return Err(store::Error::Unreachable);
            }
            let stands = self.is_there(store, room, target).await?;
            if !is_current() {
                return Ok(());
            }
            self.inner.fills.discard(room, &target.epoch);
            if stands {
                // This task goes on with it.
                let _ = self.inner.fills.want(room, Position { number: target.number, ..begin });
            }
            return Ok(());
        }
        let incarnation = store.incarnation();
        while after < target.number {
            let (listed, has_more) = store.list(room, Window { after, max: PAGE }, None).await?;
            let Mailbox { last, trimmed } = store.mailbox(room).await?.unwrap_or_default();
            if last < target.number {
                // It is not the database that the message was stored in: a standby that lags, until the writer has seen that.
                return Err(store::Error::Unreachable);
            }
            if trimmed > after {
                self.tell_of_gap(room, &Position { number: trimmed, ..begin.clone() }).await;
            }
            after = match listed.last() {
                Some(last) if has_more => last.message.number,
                // What the page began with was deleted meanwhile.
                None if has_more => after,
                Some(_) | None => target.number,
            };
            let messages = listed.into_iter().map(|listed| listed.message);
            for message in messages.filter(|message| message.number <= target.number) {
                let position = Position { number: message.number, ..begin.clone() };
                self.publish_filled(room, Late { position, incarnation, message }).await?;
            }
            let guard = self.hub().lock_room_for_emit(room).await;
            if !is_current() {
                return Ok(());
            }
            guard.raise_log_head(after.min(target.number));
        }
        Ok(())
    }

    /// Publishes a message, unless its frame was executed meanwhile.
    async fn publish_filled(&self, room: &RoomName, late: Late) -> Result<(), store::Error> {
        let (number, guard) = (late.position.number, self.hub().lock_room_for_emit(room).await);
        match guard.log_head() {
            // The store has begun a new epoch.
            _ if !self.is_current(&late.position) => Err(store::Error::Unreachable),
            None => Err(store::Error::Unreachable),
            Some(head) if head >= number => Ok(()),
            Some(_) => {
                let counts = self.publish_entry(&guard, late).await;
                self.inner.fills.note_filled(room, number, counts);
                Ok(())
            }
        }
    }

    /// Whether a message that was stored in an epoch that is over is in the mailbox still.
    pub(super) async fn is_there(
        &self,
        store: &Store,
        room: &RoomName,
        position: &Position,
    ) -> Result<bool, store::Error> {
        let last = store.mailbox(room).await?.unwrap_or_default().last;
        Ok(position.number <= last && store.stands(room, position).await?)
    }

    async fn give_up_fill(&self, room: &RoomName, store: &Store, target: &Position, error: &store::Error) {
        let head = self.hub().log_head(room);
        let told = match head {
            Some(head) if head < target.number => self.give_up_late(room, store, head..=target.number, error).await,
            Some(_) | None => Ok(()),
        };
        if told.is_ok() {
            let guard = self.hub().lock_room_for_emit(room).await;
            if self.is_current(target) {
                guard.raise_log_head(target.number);
            }
        }
        if head.is_none() || !self.is_current(target) {
            self.inner.fills.discard(room, &target.epoch);
        }
    }

    /// Tells the devices in a room that resume that they have missed some of its messages, and where it stands.
    pub(super) async fn tell_of_gap(&self, room: &RoomName, position: &Position) {
        self.tell_of_gap_in(&self.hub().lock_room_for_emit(room).await, position);
    }

    /// The same of a locked room.
    pub(super) fn tell_of_gap_in(&self, guard: &RoomGuard<'_>, position: &Position) {
        let room = guard.room();
        for member in self.hub().members(room) {
            if member.is_replaying(room) {
                // It comes to the log by itself.
                guard.stop_buffering(&member);
            } else if member.connection().resumes() {
                let gap = Resumed { recovered: false, count: 0, position: Some(position.to_string()) };
                guard.note_gap(&member, position);
                guard.send(&member, Self::resumed_frame(room, gap));
            }
        }
    }

    /// Where a room is to be published from among several nodes, if `last` is the last message of its mailbox. What was published before the store
    /// began a new epoch is not sent again, if it is still there; what comes in frames that wait is.
    pub(super) async fn head_across(&self, room: &RoomName, store: &Store, last: u64) -> Result<u64, store::Error> {
        let end = store.position(last).await?;
        let (stood_at, first_waiting) = self.inner.fills.known(room);
        let Some(stood_at) = stood_at else {
            let Some(first) = first_waiting.filter(|_| self.hub().connections_in(room) > 0) else { return Ok(last) };
            // What came before the subscription, in frames that overtook the one that waits, is among the rest.
            self.want_filled(room, end);
            return Ok(last.min(first.saturating_sub(1)));
        };
        let stands = stood_at.number <= last && store.stands(room, &stood_at).await?;
        #[cfg(test)]
        let stands = stands || is_broken(Rule::StoodMustStand);
        let head = if stands { stood_at.number } else { self.head_of_rest(room, store, &stood_at, &end).await? };
        self.want_filled(room, end);
        Ok(head)
    }

    /// Notes that it is known where a room stands. Devices that were let in before that may have missed what is before, and are told so: they
    /// came while the store was slow, or away.
    pub(super) async fn settle_head(&self, room: &RoomName, position: &Position) {
        if self.inner.fills.settle(room) {
            return;
        }
        if self.hub().connections_in(room) == 0 {
            return self.inner.fills.note_empty(room, position.number);
        }
        #[cfg(test)]
        if is_broken(Rule::LateReadIsTold) {
            return;
        }
        let guard = self.hub().lock_room_for_emit(room).await;
        if let Some(number) = guard.log_head().filter(|number| *number > 0 && self.is_current(position)) {
            self.tell_of_gap_in(&guard, &Position { number, ..position.clone() });
        }
    }

    /// Up to where what was published of a room is there still, after some of it was lost. What was stored in its place is sent, and devices that resume are told
    /// of the gap before.
    async fn head_of_rest(
        &self,
        room: &RoomName,
        store: &Store,
        stood_at: &Position,
        end: &Position,
    ) -> Result<u64, store::Error> {
        let (mut head, mut lost) = (0, stood_at.number.min(end.number) + 1);
        if !store.knows(&stood_at.epoch) {
            // What was published is not known. It goes to the user's next device: the proof of a later message is none of it.
            head = end.number;
            let user = room.user().filter(|_| self.is_users_mailbox(room)).and_then(|user| UserId::new(user).ok());
            if let Some(user) = user {
                store.watermark_reports(&user, store.incarnation()).skip_to(head).await?;
            }
        }
        // Later messages are not of earlier generations.
        while head + 1 < lost {
            let middle = u64::midpoint(head, lost);
            if store.stands(room, &Position { number: middle, ..stood_at.clone() }).await? {
                head = middle;
            } else {
                lost = middle;
            }
        }
        self.tell_of_gap(room, &Position { number: head, ..end.clone() }).await;
        Ok(head)
    }

    /// Forgets where rooms stand, as the store begins a new epoch. Among several nodes it is remembered where they stood: what is stored after that,
    /// by any node, is published from there if nothing was lost.
    pub(super) fn forget_log_heads(&self) {
        let Some(epoch) = self.store().filter(|_| !self.is_alone()).and_then(Store::epoch) else {
            return self.hub().forget_log_heads();
        };
        self.inner.fills.forget_filled();
        for (room, number) in self.hub().take_log_heads() {
            if self.inner.fills.note_stood(&room, Position::new(epoch.clone(), number)) {
                self.spawn_fill(&room);
            }
        }
    }
}
