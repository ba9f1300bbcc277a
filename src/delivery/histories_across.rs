//! Histories that several nodes share: where rooms stand, and what devices have missed of them.

use std::{collections::HashSet, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{
    Delivery,
    faulty_logs::FailedReads,
    history_fill::PAGE,
    history_heads::HeadRead,
    page_entry::PageEntry,
    replay::{Replay, Replayability, Stopped},
    resumed::ReplayFrom,
};
use crate::cluster::{BusError, Kept};
use crate::message::{Position, RoomName};
use crate::state::{Page, SharedHistory};
use crate::store;

/// The pause before something is read again that could not be.
const RETRY: Duration = Duration::from_millis(100);
/// Frames are awaited so often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Delivery {
    /// Reads where rooms stand that a connection is about to join, and whose frames come to this node. A join does not wait for longer than
    /// `cluster.deadline`: then devices that resume are told that they may have missed something.
    pub(super) async fn read_history_heads(&self, rooms: impl Iterator<Item = &RoomName>) {
        let Some(cluster) = self.cluster() else { return };
        let is_unknown = |room: &&RoomName| self.has_history(room) && self.inner.history_heads.get(room).is_none();
        let unknown: Vec<_> = rooms.filter(is_unknown).cloned().collect();
        if !unknown.is_empty() {
            // What takes longer is known soon.
            let _ = timeout(cluster.deadline(), self.read_heads(unknown)).await;
        }
    }

    /// Reads where rooms stand that are not known yet. Returns the last error. The read goes on if the caller drops the future.
    pub(super) async fn read_heads(&self, rooms: Vec<RoomName>) -> Result<(), BusError> {
        let (done, read) = oneshot::channel();
        let delivery = self.clone();
        self.inner.lifecycle.spawn(async move {
            // The caller may be gone.
            let _ = done.send(delivery.read_unknown_heads(&rooms).await);
        });
        read.await.unwrap_or(Err(BusError::Away))
    }

    async fn read_unknown_heads(&self, rooms: &[RoomName]) -> Result<(), BusError> {
        let shared = self.shared()?;
        let heads = &self.inner.history_heads;
        let unknown: Vec<_> = rooms.iter().filter(|room| heads.begin_reading(room)).cloned().collect();
        let mut read = Ok(());
        for (room, position) in shared.history.positions(&unknown).await {
            match position {
                Ok(position) => match heads.read(&room, position) {
                    HeadRead::First if self.hub().connections_in(&room) > 0 => {
                        heads.read_after_join(&room);
                        self.tell_of_late_read(&room).await;
                    }
                    HeadRead::First | HeadRead::Known => {}
                    HeadRead::Other => self.fill_history_later(&room, position),
                },
                Err(error) => {
                    heads.not_read(&room);
                    read = Err(error);
                }
            }
        }
        read
    }

    /// Tells devices that were let in before it was read where their room stands that they may have missed what is before.
    async fn tell_of_late_read(&self, room: &RoomName) {
        let guard = self.hub().lock_room_for_emit(room).await;
        if let Some(head) = self.inner.history_heads.get(room) {
            self.tell_of_late_head(&guard, head);
        }
    }

    /// Up to where a room's history was sent to the connections of this node. It is read where the room stands if that is not known.
    pub(super) async fn history_head(&self, room: &RoomName) -> Result<Kept, store::Error> {
        loop {
            if let Some(head) = self.inner.history_heads.get(room) {
                return Ok(head);
            }
            self.read_heads(vec![room.clone()]).await.map_err(unreadable)?;
        }
    }

    /// The same once it is where a device was told that it is, by another node whose frames come sooner than those of this one. `None`: the room does
    /// not stand there.
    pub(super) async fn history_head_at(&self, room: &RoomName, seen: Kept) -> Result<Option<Kept>, store::Error> {
        let Some((cluster, shared)) = self.others() else { return Ok(None) };
        let head = self.history_head(room).await?;
        if is_there(head, seen) {
            return Ok(Some(head));
        }
        let Some(stands) = shared.history.position(room).await.map_err(unreadable)? else { return Ok(None) };
        let is_seen_there = is_there(stands, seen);
        if head.sequence == stands.sequence && !is_seen_there {
            return Ok(None);
        }
        let (began, mut is_filling) = (Instant::now(), head.sequence != stands.sequence);
        if is_filling {
            self.fill_history_later(room, stands);
        }
        let awaited = if is_seen_there { seen } else { Kept { number: 0, ..stands } };
        while began.elapsed() < cluster.deadline() * 2 {
            sleep(LOOK_AGAIN).await;
            let head = self.history_head(room).await?;
            if is_there(head, awaited) {
                return Ok(is_seen_there.then_some(head));
            }
            if began.elapsed() > cluster.deadline() && !is_filling {
                is_filling = true;
                self.fill_history_later(room, seen);
            }
        }
        Err(store::Error::Unreachable)
    }

    /// Whether a room's history goes on at the engine in this sequence. If not, it soon does not here, either.
    async fn goes_on_in(&self, room: &RoomName, sequence: Kept) -> Result<bool, store::Error> {
        let shared = self.shared().map_err(unreadable)?;
        let stands = shared.history.position(room).await.map_err(unreadable)?;
        let Some(stands) = stands.filter(|stands| stands.sequence != sequence.sequence) else { return Ok(true) };
        self.fill_history_later(room, stands);
        Ok(false)
    }

    /// Waits until a room's log is to be read again, from the engine or the store. `None`: there is nothing that it could be read from.
    pub(super) async fn wait_for_log(&self, room: &RoomName, failed: &mut FailedReads) -> Option<()> {
        match self.cluster().filter(|_| self.has_history(room)) {
            Some(cluster) => {
                sleep(RETRY).await;
                cluster.engines().of(room).reached().await;
            }
            None => failed.wait(self.store()?).await,
        }
        Some(())
    }

    /// Where a room's history stands for a connection that joins now. `None`: it is not known.
    pub(super) fn history_position(&self, room: &RoomName) -> Option<Position> {
        if self.is_alone() {
            return self.inner.history.position(room);
        }
        self.inner.history_heads.get(room).map(|head| head.position())
    }

    /// Has all histories of a shard sent that were published while frames did not come.
    pub(super) async fn catch_up_with_histories(&self, shard: usize) {
        let (Some(cluster), Ok(state)) = (self.cluster(), self.shared()) else { return };
        let heads = &self.inner.history_heads;
        let mut rooms = heads.known();
        rooms.retain(|room| cluster.engines().index_of(room) == shard);
        let mut begun_anew = 0_usize;
        while !rooms.is_empty() && !self.inner.lifecycle.is_stopping() {
            let positions = state.history.positions(&rooms).await;
            rooms.clear();
            for (room, position) in positions {
                match (position, heads.get(&room)) {
                    (Ok(position), Some(head)) if head != position => {
                        begun_anew += usize::from(head.sequence != position.sequence);
                        self.fill_history_later(&room, position);
                    }
                    (Ok(_), Some(_)) => {}
                    // It may have been read before frames came again.
                    (Ok(_), None) | (Err(_), _) => rooms.push(room),
                }
            }
            if let Some(room) = rooms.first() {
                let can_read = async {
                    sleep(RETRY).await;
                    cluster.engines().of(room).reached().await;
                };
                tokio::select! {
                    () = can_read => {}
                    // A node that leaves does not connect again.
                    () = self.inner.lifecycle.stopping() => {}
                }
                let known: HashSet<_> = heads.known().into_iter().collect();
                rooms.retain(|room| known.contains(room));
            }
        }
        if begun_anew > 0 {
            tracing::warn!(
                rooms.count = begun_anew,
                "the engine may have lost messages: the histories of rooms have begun anew, and their devices are told"
            );
        }
    }
}

impl Replay<'_> {
    /// Where a history stands: all up to there was sent. A device may have seen more at another node than was sent here so far.
    pub(super) async fn history_head(&self) -> Result<Position, store::Error> {
        if let ReplayFrom::Position(seen) = self.from
            && !self.delivery.is_alone()
            && let Some(seen) = Kept::of(seen)
            && let Some(head) = self.delivery.history_head_at(self.room, seen).await?
        {
            return Ok(head.position());
        }
        self.delivery.log_position(self.room).await
    }

    /// Replays messages up to this position.
    pub(super) async fn replay_shared_history(
        &mut self,
        history: &SharedHistory,
        head: &Position,
    ) -> Result<Replayability, Stopped> {
        let ReplayFrom::Position(seen) = self.from else {
            return Ok(Replayability::Whole);
        };
        let cursor = self.cursor.get_or_insert(seen.number);
        if seen.epoch != head.epoch || *cursor > head.number {
            return Ok(Replayability::Gap);
        }
        while let Some(cursor) = self.cursor.filter(|cursor| *cursor < head.number) {
            let Some(after) = Kept::of(&Position::new(head.epoch.clone(), cursor)) else {
                return Ok(Replayability::Gap);
            };
            let page = self.read(history.after(self.room, after, PAGE)).await.map_err(unreadable)?;
            let Some(Page { messages, up_to, .. }) = page.filter(|page| page.up_to > cursor) else {
                if self.read(self.delivery.goes_on_in(self.room, after)).await? {
                    return Ok(Replayability::Gap);
                }
                // The device is told where the later sequence stands.
                return Err(store::Error::Unreachable.into());
            };
            self.give(messages.into_iter().map(PageEntry::from), head).await?;
            self.cursor = Some(up_to.min(head.number));
        }
        Ok(Replayability::Whole)
    }
}

/// Whether a message is among those up to a head.
fn is_there(head: Kept, seen: Kept) -> bool {
    head.sequence == seen.sequence && head.number >= seen.number
}

/// As of a log that cannot be read.
pub(super) fn unreadable(error: BusError) -> store::Error {
    match error {
        BusError::Away | BusError::Unanswered | BusError::Full => store::Error::Unreachable,
        BusError::Refused => store::Error::Refused("the engine refuses to read a history"),
    }
}
