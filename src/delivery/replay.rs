use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    Delivery,
    catch_up::{ReplayFrom, Resumed},
    first_resume_grace::GRACE,
    proof::OwnMessage,
};
use crate::hub::{EntryMeta, Frame, Member, Replayed, RoomGuard, Unproven};
use crate::message::{LogEntry, Position, RoomName};
use crate::store::{self, Mailbox, Store, Undelivered, Window};

/// Messages that are read at one time, fewer if they are large.
const PAGE: usize = 200;
/// How often is looked whether a device has taken what it was given.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often is looked whether a connection is still there while the store cannot be reached.
const STILL_THERE: Duration = Duration::from_secs(1);

/// Gives a connection what it has missed in a room.
pub(super) struct Replay<'a> {
    delivery: &'a Delivery,
    member: &'a Arc<Member>,
    room: &'a RoomName,
    from: &'a ReplayFrom,
    /// Up to here all was given; none: nothing was looked at yet.
    cursor: Option<u64>,
    /// Up to the cursor these are still to be given: no device of the user has proven them.
    skipped: Vec<u64>,
    /// The last message that was given; 0: none.
    last_given: u64,
    count: u64,
}

/// Why replaying stopped.
enum Stopped {
    /// The connection has gone, or left the room.
    Gone,
    /// The store cannot be read for now.
    Unreadable,
    /// It holds something that nobody understands.
    Broken,
}

impl From<store::Error> for Stopped {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Broken(_) => {
                tracing::error!(%error, "a mailbox cannot be replayed");
                Self::Broken
            }
            store::Error::Unavailable(_) | store::Error::Url | store::Error::Closed => Self::Unreadable,
        }
    }
}

/// Some messages of a room, and where it stands.
enum LogPage {
    /// These are next, and maybe more follow; `last` is the room's last position.
    Next { messages: Vec<LogEntry>, more: bool, last: Position },
    /// What comes next is not there any more, or never was.
    Gap { last: Option<Position> },
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        delivery: &'a Delivery,
        member: &'a Arc<Member>,
        room: &'a RoomName,
        from: &'a ReplayFrom,
    ) -> Self {
        Self { delivery, member, room, from, cursor: None, skipped: Vec::new(), last_given: 0, count: 0 }
    }

    /// Waits for the store if need be. None: the connection has gone, or left the room.
    pub(super) async fn run(mut self) -> Option<Resumed> {
        loop {
            match self.all_that_is_there().await {
                Ok(resumed) => return Some(resumed),
                Err(Stopped::Gone) => return None,
                Err(Stopped::Unreadable) => self.wait_for_store().await?,
                Err(Stopped::Broken) => {
                    self.delivery.hub().lock_room(self.room).await.caught_up(self.member);
                    return Some(Resumed { recovered: false, count: 0, position: None });
                }
            }
        }
    }

    /// What is not kept goes on meanwhile.
    async fn wait_for_store(&self) -> Option<()> {
        let hub = self.delivery.hub();
        hub.log_unreadable(self.member, self.room);
        // Whatever the reason was, it is given time to pass.
        sleep(STILL_THERE).await;
        let mut reachable = self.delivery.store()?.reachable();
        while timeout(STILL_THERE, reachable.wait_for(|reachable| *reachable)).await.is_err() {
            if self.member.is_gone() {
                return None;
            }
        }
        hub.log_readable(self.member, self.room);
        Some(())
    }

    /// The last page is read and given with the room locked, so that what is live comes right after it.
    async fn all_that_is_there(&mut self) -> Result<Resumed, Stopped> {
        // Most have missed little.
        let mut guard = Some(self.delivery.hub().lock_room(self.room).await);
        loop {
            let (messages, more, last) = match self.page().await? {
                LogPage::Next { messages, more, last } => (messages, more, last),
                LogPage::Gap { last } => return self.give_up(guard, last).await,
            };
            let given =
                self.give_skipped(&last, guard.is_none()).await? && self.give(messages, &last, guard.is_none()).await?;
            match guard.take() {
                Some(guard) if given && !more => {
                    self.note_settled(last.number);
                    guard.caught_up(self.member);
                    return Ok(Resumed { recovered: true, count: self.count, position: Some(last.to_string()) });
                }
                Some(guard) => {
                    drop(guard);
                    self.wait_for_room().await;
                }
                None if !more => guard = Some(self.delivery.hub().lock_room(self.room).await),
                None => {}
            }
        }
    }

    /// What is next.
    async fn page(&mut self) -> Result<LogPage, Stopped> {
        let history = &self.delivery.inner.history;
        if let Some(last) = history.position(self.room) {
            let ReplayFrom::Position(seen) = self.from else {
                return Ok(LogPage::Next { messages: Vec::new(), more: false, last });
            };
            let from = Position::new(seen.epoch.clone(), *self.cursor.get_or_insert(seen.number));
            let now_ms = self.delivery.inner.clock.now().as_millisecond();
            return Ok(match history.after(self.room, &from, PAGE, now_ms) {
                Some(messages) => LogPage::Next { more: messages.len() == PAGE, messages, last },
                None => LogPage::Gap { last: Some(last) },
            });
        }
        match self.delivery.store() {
            Some(store) => self.page_of(store).await,
            None => Ok(LogPage::Gap { last: None }),
        }
    }

    async fn page_of(&mut self, store: &Store) -> Result<LogPage, Stopped> {
        let mut mailbox = store.mailbox(self.room).await?.unwrap_or_default();
        let cursor = self.cursor_in(store, mailbox).await?;
        let (mut messages, mut more) = (Vec::new(), false);
        if cursor < mailbox.last {
            let max = u32::try_from(PAGE).unwrap_or(u32::MAX);
            let listed;
            (listed, more) = store.list(self.room, Window { after: cursor, max }, None).await?;
            messages = listed.into_iter().map(|listed| listed.message).collect();
            // What was trimmed meanwhile is missing among these.
            mailbox = store.mailbox(self.room).await?.unwrap_or_default();
        }
        let may_begin_later = matches!(self.from, ReplayFrom::Watermark) && !self.member.connection().resumes();
        let is_whole = cursor <= mailbox.last && (mailbox.trimmed <= cursor || may_begin_later);
        let last = store.position(mailbox.last).await?;
        Ok(if is_whole { LogPage::Next { messages, more, last } } else { LogPage::Gap { last: Some(last) } })
    }

    async fn cursor_in(&mut self, store: &Store, mailbox: Mailbox) -> Result<u64, Stopped> {
        let cursor = match (self.cursor, self.from) {
            (Some(cursor), _) => cursor,
            (None, ReplayFrom::Watermark) => {
                let user = self.member.user();
                let Undelivered { after, skipped } =
                    if mailbox.last == 0 { Undelivered::default() } else { store.undelivered(user).await? };
                let begin = if self.member.connection().resumes() {
                    // Until it knows where it stands, what it was given may not have arrived.
                    store.freeze_watermark(user, GRACE);
                    self.delivery.inner.first_resume_grace.begin(user, after)
                } else {
                    after
                };
                // later ones are replayed in order.
                self.skipped = skipped.into_iter().filter(|number| *number <= begin).collect();
                begin
            }
            (None, ReplayFrom::Position(seen)) => {
                let begin = store.position(seen.number).await?;
                // Past all that there can be: it is no place in this sequence.
                if begin.epoch == seen.epoch { seen.number } else { u64::MAX }
            }
        };
        self.cursor = Some(cursor);
        Ok(cursor)
    }

    /// False if too much waits for the device, unless it may take its time.
    async fn give(&mut self, messages: Vec<LogEntry>, last: &Position, may_wait: bool) -> Result<bool, Stopped> {
        for message in messages {
            let number = message.number;
            if message.except_users.contains(self.member.user()) {
                self.note_settled(number);
            } else {
                match self.give_one(message, last, may_wait).await? {
                    Replayed::Later => return Ok(false),
                    Replayed::Given => self.last_given = number,
                    Replayed::NotForIt => self.note_not_for_it(number),
                }
            }
            self.cursor = Some(number);
        }
        Ok(true)
    }

    /// The skipped messages, which come before the rest.
    async fn give_skipped(&mut self, last: &Position, may_wait: bool) -> Result<bool, Stopped> {
        let Some(store) = self.delivery.store() else {
            return Ok(true);
        };
        while let Some(number) = self.skipped.first().copied() {
            let window = Window { after: number - 1, max: 1 };
            let (listed, _) = store.list(self.room, window, None).await?;
            let message = listed.into_iter().map(|listed| listed.message).find(|message| message.number == number);
            if let Some(message) = message.filter(|message| !message.except_users.contains(self.member.user()))
                && self.give_one(message, last, may_wait).await? == Replayed::Later
            {
                return Ok(false);
            }
            self.skipped.remove(0);
        }
        Ok(true)
    }

    async fn give_one(&mut self, message: LogEntry, last: &Position, may_wait: bool) -> Result<Replayed, Stopped> {
        let position = Position::new(last.epoch.clone(), message.number);
        let entry = EntryMeta::new(message.id, self.room, &position);
        let unproven = self.unproven(message.number);
        let frame = Frame { entry: Some(entry), unproven, ..Frame::new(message.event, message.payload) };
        loop {
            let replayed = self.delivery.hub().replay(self.member, self.room, &frame).ok_or(Stopped::Gone)?;
            if replayed == Replayed::Later && may_wait {
                self.wait_for_room().await;
                continue;
            }
            self.count += u64::from(replayed == Replayed::Given);
            return Ok(replayed);
        }
    }

    /// The gap cannot be filled: the device is told so, and goes on with what is live. Another one may still be given what it was not.
    async fn give_up(&self, guard: Option<RoomGuard<'_>>, last: Option<Position>) -> Result<Resumed, Stopped> {
        let guard = match guard {
            Some(guard) => guard,
            None => self.delivery.hub().lock_room(self.room).await,
        };
        if let (Some(last), Some(store)) = (&last, self.notes()) {
            store.skip_to(self.member.user(), last.number).await?;
        }
        guard.caught_up(self.member);
        Ok(Resumed { recovered: false, count: 0, position: last.map(|last| last.to_string()) })
    }

    /// The store, if this is the user's own mailbox: it notes what the user's devices have proven.
    fn notes(&self) -> Option<&Store> {
        self.delivery.store().filter(|_| self.delivery.is_users_mailbox(self.room))
    }

    fn unproven(&self, number: u64) -> Option<Arc<dyn Unproven>> {
        let (store, user) = (self.notes()?.clone(), self.member.user().clone());
        Some(Arc::new(OwnMessage { store, user, number, may_be_skipped: true }))
    }

    /// Messages up to this one that were not given need no proof: the device has seen them, or they are not for the user.
    fn note_settled(&self, number: u64) {
        if let Some(store) = self.notes().filter(|_| number > 0) {
            store.note_settled(self.member.user(), self.last_given, number);
        }
    }

    /// The device does not listen for a message, or cannot receive it: the next one may.
    fn note_not_for_it(&self, number: u64) {
        if let Some(store) = self.notes() {
            store.note_skipped(self.member.user(), number);
            self.note_settled(number);
        }
    }

    async fn wait_for_room(&self) {
        loop {
            sleep(LOOK_AGAIN).await;
            if self.member.is_gone() || self.member.connection().has_room() {
                return;
            }
        }
    }
}
