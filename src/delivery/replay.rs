use std::{borrow::Borrow, future::poll_fn, pin::pin, sync::Arc, time::Duration, vec};

use tokio::{task::yield_now, time::timeout};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{
    Delivery,
    faulty_logs::FailedReads,
    log_lane::published_head,
    page_entry::{FrameKey, PageEntry},
    resumed::{ReplayFrom, Resumed},
};
use crate::hub::{EntryMeta, Frame, Member, Replayed, RoomGuard};
use crate::message::{LogEntry, Position, RoomName};
use crate::store::{self, Mailbox, Page, WatermarkReports};

/// Messages of a history that are read at one time.
const PAGE: usize = 200;
/// Messages that are sent before other tasks get a chance to run: many devices catch up at one time.
const STRETCH: u64 = 16;

/// Plain frames to a device that does not resume wait so long for what it has missed.
const PLAIN_WAITS: Duration = Duration::from_millis(250);

/// Gives a connection what it has missed in a room.
pub(super) struct Replay<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) member: &'a Arc<Member>,
    pub(super) room: &'a RoomName,
    pub(super) from: &'a ReplayFrom,
    /// Set if the room is the user's own mailbox, before anything is read: what the user's devices have proven.
    pub(super) reports: Option<WatermarkReports>,
    /// Up to here all was given; none: nothing was looked at yet.
    pub(super) cursor: Option<u64>,
    /// The epoch in which the cursor was set.
    epoch: Option<Arc<str>>,
    /// Up to the cursor these are still to be given: no device of the user has proven them.
    pub(super) skipped: vec::IntoIter<u64>,
    /// The last message that was given; 0: none.
    pub(super) last_given: u64,
    pub(super) count: u64,
}

/// Why replaying stopped.
pub(super) enum Stopped {
    /// The connection has gone, or left the room.
    Gone,
    /// The room's log could not be read.
    Failed(store::Error),
}

impl From<store::Error> for Stopped {
    fn from(error: store::Error) -> Self {
        Self::Failed(error)
    }
}

/// How a replay ended.
pub(super) enum Caught {
    /// The connection has all up to this position, and is sent what comes.
    Up(Resumed),
    /// Something could not be given. Kept frames wait until the device was told, see `gap.rs`.
    Gap(Resumed),
}

/// Whether all that came after a position could be replayed.
pub(super) enum Replayability {
    Whole,
    /// What comes next is not there any more, or never was.
    Gap,
    /// Another node has given the device messages up to there, which come here later.
    Ahead(u64),
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        delivery: &'a Delivery,
        member: &'a Arc<Member>,
        room: &'a RoomName,
        from: &'a ReplayFrom,
    ) -> Self {
        Self {
            delivery,
            member,
            room,
            from,
            reports: None,
            cursor: None,
            epoch: None,
            skipped: Vec::new().into_iter(),
            last_given: 0,
            count: 0,
        }
    }

    /// Waits for the store if need be. `None`: the connection has gone, or left the room.
    pub(super) async fn run(&mut self) -> Option<Caught> {
        let resumes = self.member.connection().resumes();
        let (hub, member, room) = (self.delivery.hub(), self.member, self.room);
        let mut replaying = pin!(self.replay());
        // Order is promised to devices that resume. Of the others plain frames wait once it is known that something was missed.
        if !resumes {
            match timeout(PLAIN_WAITS, &mut replaying).await {
                Ok(caught) => return caught,
                Err(_) => hub.let_plain_pass(member, room),
            }
        }
        replaying.await
    }

    /// While the log cannot be read, plain frames do not wait, also those to the rooms that are replayed later.
    async fn replay(&mut self) -> Option<Caught> {
        let (hub, mut failed) = (self.delivery.hub(), FailedReads::default());
        loop {
            let error = match self.all_that_is_there().await {
                Ok(caught) => return Some(caught),
                Err(Stopped::Gone) => return None,
                Err(Stopped::Failed(error)) => error,
            };
            hub.log_unreadable(self.member, self.room);
            if failed.is_final(&error) {
                self.delivery.inner.faulty_logs.note(self.room, &error);
                return self.give_up(true).await.map(Caught::Gap);
            }
            self.delivery.wait_for_log(self.room, &mut failed).await?;
        }
    }

    /// Replays what was published up to now without the lock, and takes it only to see whether more was published meanwhile. If so, kept
    /// frames wait from then on, so that a second round is the last one.
    async fn all_that_is_there(&mut self) -> Result<Caught, Stopped> {
        let Some(mut head) = self.head().await? else {
            self.delivery.hub().lock_room(self.room).await.end_replay(self.member);
            return Ok(Caught::Up(Resumed::unreadable()));
        };
        loop {
            match self.replay_to(&head).await? {
                Replayability::Whole => {}
                Replayability::Gap => return self.give_up(false).await.map(Caught::Gap).ok_or(Stopped::Gone),
                Replayability::Ahead(number) => {
                    let position = Position { number, ..head };
                    let filled = self.delivery.filled_up_to(self.room, position.clone());
                    self.delivery.await_log(self.member, filled).await;
                    head = self.head().await?.ok_or(Stopped::Gone)?;
                    if head.epoch == position.epoch && head.number < number {
                        return Err(store::Error::Unreachable.into());
                    }
                    continue;
                }
            }
            let guard = self.delivery.hub().lock_room(self.room).await;
            if !self.member.is_replaying(self.room) {
                return Err(Stopped::Gone);
            }
            let is_complete = guard.is_buffering(self.member);
            match self.published_head(&guard).filter(|_| !self.is_outdated(&head)) {
                Some(number) if number <= head.number || is_complete => {
                    self.note_settled(head.number);
                    guard.end_replay(self.member);
                    let position = Some(head.to_string());
                    return Ok(Caught::Up(Resumed { recovered: true, count: self.count, position }));
                }
                Some(number) => {
                    guard.begin_buffering(self.member);
                    head.number = number;
                }
                None => {
                    drop(guard);
                    head = self.head().await?.ok_or(Stopped::Gone)?;
                }
            }
        }
    }

    /// Reads the log. Plain frames do not wait for that if it takes long.
    pub(super) async fn read<T, E>(&self, read: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.delivery.read_log(self.member, read).await
    }

    /// Where the room's log stands: all up to there is published. `None`: the room has none.
    pub(super) async fn head(&mut self) -> Result<Option<Position>, Stopped> {
        self.renew_reports();
        if self.delivery.has_history(self.room) {
            return Ok(Some(self.read(self.history_head()).await?));
        }
        if self.delivery.store().is_none() {
            return Ok(None);
        }
        let position = self.read(self.delivery.log_position(self.room)).await?;
        #[cfg(test)]
        let position = if is_broken(Rule::ReplayEndsAtHead) {
            let Some(store) = self.delivery.store() else { return Ok(None) };
            Position { number: store.mailbox(self.room).await?.unwrap_or_default().last, ..position }
        } else {
            position
        };
        Ok(Some(position))
    }

    /// Whether a new epoch has begun since.
    pub(super) fn is_outdated(&self, head: &Position) -> bool {
        if self.delivery.has_history(self.room) {
            return self.delivery.history_position(self.room).is_none_or(|position| position.epoch != head.epoch);
        }
        let store = self.delivery.store().filter(|_| !self.delivery.has_history(self.room));
        store.is_some_and(|store| store.epoch().is_some_and(|epoch| epoch != head.epoch))
    }

    /// The same with the room locked. `None`: it is not known.
    pub(super) fn published_head(&self, guard: &RoomGuard<'_>) -> Option<u64> {
        let in_history = self.delivery.history_position(self.room);
        in_history.map(|position| position.number).or_else(|| published_head(guard))
    }

    /// Replays messages up to this position.
    async fn replay_to(&mut self, head: &Position) -> Result<Replayability, Stopped> {
        let Some(store) = self.delivery.store().filter(|_| !self.delivery.has_history(self.room)) else {
            return match self.delivery.shared().map(|shared| &shared.history) {
                Ok(history) => self.replay_shared_history(history, head).await,
                Err(_) => self.replay_history(head).await,
            };
        };
        let (delivery, member) = (self.delivery, self.member);
        let mut cursor = delivery.read_log(member, self.cursor_in(store, head)).await?;
        // What was given before a new epoch may be numbered otherwise now.
        let stands = match self.epoch.clone().filter(|epoch| *epoch != head.epoch) {
            Some(epoch) => self.read(store.stands(self.room, &Position::new(epoch, cursor))).await?,
            None => true,
        };
        self.epoch = Some(head.epoch.clone());
        if !stands {
            return Ok(Replayability::Gap);
        }
        if cursor > head.number {
            let last = self.read(store.mailbox(self.room)).await?.unwrap_or_default().last;
            return Ok(if cursor > last { Replayability::Gap } else { Replayability::Ahead(cursor) });
        }
        if cursor < head.number || !self.skipped.as_slice().is_empty() {
            self.delivery.hub().let_plain_wait(self.member, self.room);
        }
        self.give_skipped(head).await?;
        while cursor < head.number {
            let page = self.read(store.page(&self.delivery.inner.pages, self.room, cursor)).await?;
            let Mailbox { last: last_stored, trimmed } = page.mailbox;
            if last_stored < head.number || self.is_outdated(head) {
                // It is not the database that the head was stored in: a standby that lags, until the writer has seen that.
                return Err(store::Error::Unreachable.into());
            }
            let may_begin_later = matches!(self.from, ReplayFrom::Watermark(_)) && !self.member.connection().resumes();
            if trimmed > cursor && !may_begin_later {
                return Ok(Replayability::Gap);
            }
            // Without any all that the page began with was deleted meanwhile.
            let last = page.entries.last().map_or(cursor, |entry| entry.message.number);
            let has_more = page.has_more;
            self.give_page(page, head).await?;
            cursor = if has_more { last.min(head.number) } else { head.number };
            self.cursor = Some(cursor);
        }
        Ok(Replayability::Whole)
    }

    async fn replay_history(&mut self, head: &Position) -> Result<Replayability, Stopped> {
        let ReplayFrom::Position(seen) = self.from else {
            return Ok(Replayability::Whole);
        };
        loop {
            let from = Position::new(seen.epoch.clone(), *self.cursor.get_or_insert(seen.number));
            if from.epoch == head.epoch && from.number == head.number {
                return Ok(Replayability::Whole);
            }
            let now_ms = self.delivery.inner.clock.now().as_millisecond();
            let Some(messages) = self.delivery.inner.history.after(self.room, &from, PAGE, now_ms) else {
                return Ok(Replayability::Gap);
            };
            let is_last = messages.len() < PAGE || messages.last().is_some_and(|last| last.number >= head.number);
            self.give(messages.into_iter().map(PageEntry::from), head).await?;
            if is_last {
                self.cursor = Some(head.number);
            }
        }
    }

    /// Sends the messages of a page. While a device cannot accept more, only the messages that it has not been sent are kept for it, and neither the page nor
    /// its frames.
    async fn give_page(&mut self, page: Arc<Page<PageEntry>>, head: &Position) -> Result<(), Stopped> {
        let mut entries = page.entries.iter();
        while self.member.connection().has_room() {
            let Some(entry) = entries.next() else { return Ok(()) };
            self.give([entry], head).await?;
        }
        let rest: Vec<_> = entries.map(|entry| entry.message.clone()).collect();
        drop(page);
        self.give(rest.into_iter().map(PageEntry::from), head).await
    }

    /// Sends those of these messages that were published up to `head`.
    pub(super) async fn give(
        &mut self,
        entries: impl IntoIterator<Item: Borrow<PageEntry>>,
        head: &Position,
    ) -> Result<(), Stopped> {
        for entry in entries {
            let entry = entry.borrow();
            let number = entry.message.number;
            if number > head.number {
                break;
            }
            if entry.message.except_users.contains(self.member.user()) {
                self.note_settled(number);
            } else {
                match self.give_one(entry, head).await? {
                    Replayed::Given => self.last_given = number,
                    Replayed::NotForIt | Replayed::Later => self.note_not_for_it(number),
                }
            }
            self.cursor = Some(number);
        }
        Ok(())
    }

    /// Sends what no device of the user has proven, though later messages were.
    async fn give_skipped(&mut self, head: &Position) -> Result<(), Stopped> {
        let Some(store) = self.delivery.store() else {
            return Ok(());
        };
        while !self.skipped.as_slice().is_empty() {
            let (messages, looked_at) = self.read(store.messages_at(self.room, self.skipped.as_slice())).await?;
            for message in messages.into_iter().filter(|message| !message.except_users.contains(self.member.user())) {
                self.give_one(&message.into(), head).await?;
            }
            self.skipped.by_ref().take(looked_at).for_each(drop);
        }
        Ok(())
    }

    /// Waits until the device can take the message.
    async fn give_one(&mut self, entry: &PageEntry, head: &Position) -> Result<Replayed, Stopped> {
        let frame = self.frame(entry, head);
        loop {
            let replayed = self.delivery.hub().replay(self.member, self.room, &frame).ok_or(Stopped::Gone)?;
            if replayed != Replayed::Later {
                self.count += u64::from(replayed == Replayed::Given);
                if self.count.is_multiple_of(STRETCH) {
                    yield_now().await;
                }
                return Ok(replayed);
            }
            poll_fn(|cx| self.member.connection().poll_room(cx)).await;
        }
    }

    fn frame(&self, entry: &PageEntry, head: &Position) -> Arc<Frame> {
        let incarnation = self.reports.as_ref().map(WatermarkReports::incarnation);
        let key = FrameKey { epoch: head.epoch.clone(), incarnation };
        entry.frame(&key, || {
            let LogEntry { number, id, event, payload, .. } = &entry.message;
            let position = Position::new(head.epoch.clone(), *number);
            let (entry, unproven) = (Some(EntryMeta::new(*id, self.room, &position)), self.unproven(*number));
            Frame { entry, unproven, ..Frame::new(event.clone(), payload.clone()) }
        })
    }
}
