//! Pages of mailboxes for devices that catch up. Devices of one room that wait for the same page share one read, and the frames that are made of it.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use crate::hub::Frame;
use crate::message::{LogEntry, RoomName};
use crate::store::{self, Incarnation, Mailbox};

/// Pages that are read at one time: a store has at most as many connections for reads.
const MAX_READS: usize = 4;

/// Messages of a mailbox, as they stood at one time.
pub(super) struct Page {
    pub(super) entries: Vec<PageEntry>,
    /// Later messages follow.
    pub(super) has_more: bool,
    /// How the mailbox stood after the messages were read: what was trimmed meanwhile is missing among them.
    pub(super) mailbox: Mailbox,
}

/// A message that is replayed, and the frame that is made of it.
pub(super) struct PageEntry {
    pub(super) message: LogEntry,
    frame: OnceLock<(FrameKey, Arc<Frame>)>,
}

/// What a frame of a message depends on, besides the message: the epoch of its position, and the incarnation in which a user's own devices
/// report that they have received it.
#[derive(Clone, PartialEq)]
pub(super) struct FrameKey {
    pub(super) epoch: Arc<str>,
    pub(super) incarnation: Option<Incarnation>,
}

/// Reads of pages that wait for their turn. A read that has begun is not joined: the mailbox may have gone on since.
pub(super) struct Pages {
    waiting: Mutex<HashMap<(RoomName, u64), Shared>>,
    turns: Semaphore,
}

type SharedRead = OnceCell<Result<Arc<Page>, store::Error>>;

struct Shared {
    read: Arc<SharedRead>,
    /// How many wait for it.
    count: usize,
}

/// One of those that wait for a page.
struct Waiting<'a> {
    pages: &'a Pages,
    page: (RoomName, u64),
    read: Arc<SharedRead>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(MAX_READS) }
    }
}

impl Pages {
    /// The page of a room's mailbox after a position, read after this was called. If the future that reads is dropped, the next one that waits
    /// reads.
    pub(super) async fn get(
        &self,
        room: &RoomName,
        after: u64,
        read: impl AsyncFnOnce() -> Result<Arc<Page>, store::Error>,
    ) -> Result<Arc<Page>, store::Error> {
        let waiting = self.wait(room, after);
        let page = waiting.read.get_or_init(async || {
            // Closed never.
            let _turn = self.turns.acquire().await;
            waiting.begin();
            read().await
        });
        page.await.clone()
    }

    fn wait(&self, room: &RoomName, after: u64) -> Waiting<'_> {
        let page = (room.clone(), after);
        let mut waiting = self.waiting.lock();
        let shared = waiting.entry(page.clone()).or_insert_with(|| Shared { read: Arc::default(), count: 0 });
        shared.count += 1;
        Waiting { pages: self, read: shared.read.clone(), page }
    }
}

impl Waiting<'_> {
    /// The read begins: nobody joins it from now on.
    fn begin(&self) {
        self.change(|shared| shared.count = 0);
    }

    fn change(&self, change: impl FnOnce(&mut Shared)) {
        let mut waiting = self.pages.waiting.lock();
        let Some(shared) = waiting.get_mut(&self.page).filter(|shared| Arc::ptr_eq(&shared.read, &self.read)) else {
            return;
        };
        change(shared);
        if shared.count == 0 {
            waiting.remove(&self.page);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.change(|shared| shared.count -= 1);
    }
}

impl From<LogEntry> for PageEntry {
    fn from(message: LogEntry) -> Self {
        Self { message, frame: OnceLock::new() }
    }
}

impl PageEntry {
    /// The message's frame. The one that is made first is shared by all devices that need the same.
    pub(super) fn frame(&self, key: &FrameKey, make: impl Fn() -> Frame) -> Arc<Frame> {
        let (shared_key, shared) = self.frame.get_or_init(|| (key.clone(), Arc::new(make())));
        if shared_key == key { shared.clone() } else { Arc::new(make()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::future::{join_all, poll_immediate};

    use super::*;
    use crate::message::{EventName, MessageId, Payload};

    fn room() -> RoomName {
        RoomName::new("r").unwrap()
    }

    fn page() -> Arc<Page> {
        Arc::new(Page { entries: Vec::new(), has_more: false, mailbox: Mailbox::default() })
    }

    #[tokio::test]
    async fn those_who_wait_for_the_same_page_share_one_read() {
        let room = room();
        let (pages, reads) = (Pages::default(), AtomicUsize::new(0));
        let read = async || {
            reads.fetch_add(1, Ordering::Relaxed);
            Ok(page())
        };
        let all_turns = pages.turns.acquire_many(4).await.unwrap();
        let mut same = pin!(join_all((0..10).map(|_| pages.get(&room, 5, read))));
        let mut other = pin!(pages.get(&room, 6, read));
        assert!(poll_immediate(&mut same).await.is_none() && poll_immediate(&mut other).await.is_none());
        drop(all_turns);
        let got: Vec<_> = same.await.into_iter().map(Result::unwrap).collect();
        assert!(got.iter().all(|page| Arc::ptr_eq(page, &got[0])) && reads.load(Ordering::Relaxed) == 1);
        other.await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        assert!(pages.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn a_read_that_has_begun_is_not_joined() {
        let room = room();
        let pages = Pages::default();
        let mut begun = pin!(pages.get(&room, 5, async || std::future::pending().await));
        assert!(poll_immediate(&mut begun).await.is_none());
        let (mailbox, has_more) = (Mailbox { last: 9, trimmed: 0 }, false);
        let later = async || Ok(Arc::new(Page { entries: Vec::new(), has_more, mailbox }));
        assert_eq!(pages.get(&room, 5, later).await.unwrap().mailbox.last, 9);
    }

    #[tokio::test]
    async fn when_the_one_that_reads_gives_up_the_next_one_reads() {
        let room = room();
        let pages = Pages::default();
        let all_turns = pages.turns.acquire_many(4).await.unwrap();
        let mut first = Box::pin(pages.get(&room, 5, async || std::future::pending().await));
        let mut second = pin!(pages.get(&room, 5, async || Ok(page())));
        assert!(poll_immediate(&mut first).await.is_none() && poll_immediate(&mut second).await.is_none());
        drop(first);
        assert_eq!(pages.waiting.lock().len(), 1);
        drop(all_turns);
        assert!(second.await.is_ok() && pages.waiting.lock().is_empty());
        let all_turns = pages.turns.acquire_many(4).await.unwrap();
        let mut alone = Box::pin(pages.get(&room, 5, async || Ok(page())));
        assert!(poll_immediate(&mut alone).await.is_none());
        drop((alone, all_turns));
        assert!(pages.waiting.lock().is_empty(), "nothing is left of reads that nobody waits for");
    }

    #[test]
    fn a_frame_is_shared_by_devices_that_need_the_same_one() {
        let event = EventName::new("e").unwrap();
        let message = LogEntry {
            number: 1,
            id: MessageId::from_bytes(&[0; 16]).unwrap(),
            event: event.clone(),
            payload: Payload::None,
            except_users: Vec::new(),
            stored_at_ms: 0,
        };
        let entry = PageEntry::from(message);
        let key = |epoch: &str| FrameKey { epoch: epoch.into(), incarnation: None };
        let frame = |key| entry.frame(&key, || Frame::new(event.clone(), Payload::None));
        assert!(Arc::ptr_eq(&frame(key("a")), &frame(key("a"))));
        assert!(!Arc::ptr_eq(&frame(key("a")), &frame(key("b"))));
    }
}
