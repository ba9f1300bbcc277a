use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{Error, Mailbox, Store, Window, deadlines::Allowance};
use crate::message::{LogEntry, RoomName};

/// Messages of one page, fewer if they are large.
const MAX_MESSAGES: u32 = 200;

/// Messages of a mailbox as they stood at one time, each made into an `E`.
pub struct Page<E> {
    /// In the order of their positions.
    pub entries: Vec<E>,
    /// Later messages follow.
    pub has_more: bool,
    /// How the mailbox stood after the messages were read: what was trimmed meanwhile is missing among them.
    pub mailbox: Mailbox,
}

/// Reads of pages that have not begun. Those that ask for the same page meanwhile share it: many devices of one user may come back at one time. A read that
/// has begun is not joined, since the mailbox may have gone on since.
pub struct Pages<E>(Mutex<HashMap<(RoomName, u64), Waiting<E>>>);

type Read<E> = Arc<OnceCell<Result<Arc<Page<E>>, Error>>>;

struct Waiting<E> {
    read: Read<E>,
    /// How many wait for it.
    count: usize,
}

/// One of those that wait for a page.
struct Waiter<'a, E> {
    pages: &'a Pages<E>,
    key: (RoomName, u64),
    read: Read<E>,
}

impl<E> Default for Pages<E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl Store {
    /// The page of a room's mailbox after a position, as it stands after this was called. It is shared with others that ask for it through the same
    /// `pages`. [`Error::Unreachable`]: the database was not asked, as it is out of reach or other pages took until the deadline.
    pub async fn page<E: From<LogEntry>>(
        &self,
        pages: &Pages<E>,
        room: &RoomName,
        after: u64,
    ) -> Result<Arc<Page<E>>, Error> {
        let waiter = pages.wait(room, after);
        // Boxed: it is large, and moved on from here.
        let read = waiter.get(Box::pin(async {
            let (listed, has_more) = {
                // It is released before the lookup, which may wait in a queue, and needs no connection meanwhile. The semaphore is never closed.
                let _turn = self.inner.page_turns.acquire().await;
                waiter.begin();
                self.list(room, Window { after, max: MAX_MESSAGES }, None).await?
            };
            let mailbox = self.mailbox(room).await?.unwrap_or_default();
            let entries = listed.into_iter().map(|listed| listed.message.into()).collect();
            Ok(Arc::new(Page { entries, has_more, mailbox }))
        }));
        // The deadline includes the wait for others' reads.
        let read = self.inner.database.within(Allowance::Other, read).await;
        // If the read has not begun by its deadline, nothing is known to be wrong with this room's messages.
        if read.is_err() && !waiter.has_begun() { Err(Error::Unreachable) } else { read }
    }
}

impl<E> Pages<E> {
    fn wait(&self, room: &RoomName, after: u64) -> Waiter<'_, E> {
        let key = (room.clone(), after);
        let mut all = self.0.lock();
        let waiting = all.entry(key.clone()).or_insert_with(|| Waiting { read: Arc::default(), count: 0 });
        waiting.count += 1;
        Waiter { pages: self, read: waiting.read.clone(), key }
    }
}

impl<E> Waiter<'_, E> {
    /// If the future that reads is dropped, the next one that waits reads.
    async fn get(&self, read: impl Future<Output = Result<Arc<Page<E>>, Error>>) -> Result<Arc<Page<E>>, Error> {
        self.read.get_or_init(|| read).await.clone()
    }

    /// Begins the read: the next caller waits for another one.
    fn begin(&self) {
        self.change(|waiting| waiting.count = 0);
    }

    fn has_begun(&self) -> bool {
        let all = self.pages.0.lock();
        all.get(&self.key).is_none_or(|waiting| !Arc::ptr_eq(&waiting.read, &self.read))
    }

    fn change(&self, change: impl FnOnce(&mut Waiting<E>)) {
        let mut all = self.pages.0.lock();
        let Some(waiting) = all.get_mut(&self.key).filter(|waiting| Arc::ptr_eq(&waiting.read, &self.read)) else {
            return;
        };
        change(waiting);
        if waiting.count == 0 {
            all.remove(&self.key);
        }
    }
}

impl<E> Drop for Waiter<'_, E> {
    fn drop(&mut self) {
        self.change(|waiting| waiting.count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::future::{join_all, poll_immediate};
    use tokio::{sync::Semaphore, time::Instant};

    use super::*;
    use crate::{lifecycle::Lifecycle, store::model::Memory};

    fn room() -> RoomName {
        RoomName::new("r").unwrap()
    }

    async fn get(
        pages: &Pages<LogEntry>,
        room: &RoomName,
        after: u64,
        read: impl AsyncFnOnce(&Waiter<'_, LogEntry>) -> Result<Arc<Page<LogEntry>>, Error>,
    ) -> Result<Arc<Page<LogEntry>>, Error> {
        let waiter = pages.wait(room, after);
        waiter.get(read(&waiter)).await
    }

    fn page(last: u64) -> Arc<Page<LogEntry>> {
        Arc::new(Page { entries: Vec::new(), has_more: false, mailbox: Mailbox { last, trimmed: 0 } })
    }

    #[tokio::test]
    async fn those_who_wait_for_the_same_page_share_one_read() {
        let (pages, turns, reads, room) = (Pages::default(), Semaphore::new(0), AtomicUsize::new(0), room());
        let read = async |waiter: &Waiter<'_, LogEntry>| {
            turns.acquire().await.unwrap().forget();
            waiter.begin();
            reads.fetch_add(1, Ordering::Relaxed);
            Ok(page(0))
        };
        let mut same = pin!(join_all((0..10).map(|_| get(&pages, &room, 5, read))));
        let mut other = pin!(get(&pages, &room, 6, read));
        assert!(poll_immediate(&mut same).await.is_none() && poll_immediate(&mut other).await.is_none());
        turns.add_permits(1);
        let got: Vec<_> = same.await.into_iter().map(Result::unwrap).collect();
        assert!(got.iter().all(|page| Arc::ptr_eq(page, &got[0])) && reads.load(Ordering::Relaxed) == 1);
        turns.add_permits(1);
        other.await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        assert!(pages.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_read_that_has_begun_is_not_joined() {
        let (pages, room) = (Pages::default(), room());
        let mut begun = pin!(get(&pages, &room, 5, async |waiter| {
            waiter.begin();
            std::future::pending().await
        }));
        assert!(poll_immediate(&mut begun).await.is_none());
        assert_eq!(get(&pages, &room, 5, async |_| Ok(page(9))).await.unwrap().mailbox.last, 9);
    }

    #[tokio::test]
    async fn when_the_one_that_reads_gives_up_the_next_one_reads() {
        let (pages, room) = (Pages::default(), room());
        let mut first = Box::pin(get(&pages, &room, 5, async |_| std::future::pending().await));
        let mut second = Box::pin(get(&pages, &room, 5, async |_| Ok(page(0))));
        assert!(poll_immediate(&mut first).await.is_none() && poll_immediate(&mut second).await.is_none());
        drop(first);
        assert_eq!(pages.0.lock().len(), 1);
        assert!(second.as_mut().await.is_ok());
        drop(second);
        assert!(pages.0.lock().is_empty());
        let mut alone = Box::pin(get(&pages, &room, 5, async |_| std::future::pending().await));
        assert!(poll_immediate(&mut alone).await.is_none());
        drop(alone);
        assert!(pages.0.lock().is_empty(), "a read without a waiter is forgotten");
    }

    /// Each read of the model takes two of these.
    const LATENCY: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_next_pages_are_read_while_it_is_looked_up_where_mailboxes_stand() {
        const ROUNDS: usize = 3;
        let (memory, lifecycle, pages) = (Memory::new(1), Lifecycle::new(), Pages::<LogEntry>::default());
        let store = memory.store(0, &lifecycle);
        store.reached().await;
        memory.delay(0, LATENCY);
        let (begun, room) = (Instant::now(), room());
        let count = ROUNDS * store.inner.page_turns.available_permits();
        let read = join_all((0..count).map(|after| store.page(&pages, &room, after as u64))).await;
        assert!(read.iter().all(Result::is_ok));
        let rounds = u32::try_from(ROUNDS).unwrap();
        assert_eq!(begun.elapsed(), LATENCY * 2 * (rounds + 1), "only the last lookup takes time of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_waits_for_others_until_its_deadline_is_not_a_failed_read() {
        let (memory, lifecycle, pages) = (Memory::new(1), Lifecycle::new(), Pages::<LogEntry>::default());
        let store = memory.store(0, &lifecycle);
        store.reached().await;
        let turns = store.inner.page_turns.available_permits();
        let others = store.inner.page_turns.acquire_many(u32::try_from(turns).unwrap()).await.unwrap();
        let room = room();
        let read = join_all((0..2).map(|_| store.page(&pages, &room, 5))).await;
        assert!(read.iter().all(|read| matches!(read, Err(Error::Unreachable))), "neither asked the database");
        drop(others);
        assert!(store.page(&pages, &room, 5).await.is_ok());
    }
}
