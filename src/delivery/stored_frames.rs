//! Frames of stored messages. Each node publishes a room's messages in the order of their positions: what a frame leaves out is read from the
//! store first.

use tokio::time::{Instant, timeout_at};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{
    Delivery,
    accepted::Published,
    execute::{InLog, publish_to_nobody},
    laned::StoredFrame,
};
use crate::hub::{RoomGuard, TryLock};
use crate::message::{Position, RoomName};
use crate::store::Store;

/// What became of a frame with an emit.
pub(super) enum Executed {
    Published(Published),
    /// It is not executed, or later without an answer.
    Late,
}

/// Where a message is, seen from where its room stands.
enum Place {
    Next,
    Before,
    /// Something before it was not published here, or that is not known.
    Beyond,
}

impl Delivery {
    /// Executes a frame, unless it has to wait: then it is returned.
    pub(super) fn execute_stored_now(&self, frame: StoredFrame) -> Result<Executed, Box<StoredFrame>> {
        let StoredFrame { accepted, position } = &frame;
        if !self.is_current(position) {
            return Err(Box::new(frame));
        }
        match self.hub().try_lock_occupied_room_for_emit(accepted.room()) {
            TryLock::Empty => Ok(Executed::Published(Ok((publish_to_nobody(accepted), None)))),
            TryLock::Busy => Err(Box::new(frame)),
            TryLock::Locked(guard) => match place(&guard, position) {
                Place::Before => Ok(self.executed_before(&frame)),
                Place::Next if guard.is_small(accepted.emit.ack.is_some()) => Ok(self.execute_next_now(&guard, frame)),
                Place::Next | Place::Beyond => Err(Box::new(frame)),
            },
        }
    }

    fn execute_next_now(&self, guard: &RoomGuard<'_>, StoredFrame { accepted, position }: StoredFrame) -> Executed {
        let Some(store) = self.store() else { return Executed::Late };
        let stored = InLog::new(&position, store.incarnation());
        let published = self.publish_locked_now(guard, accepted, Some(stored));
        guard.raise_log_head(position.number);
        Executed::Published(published)
    }

    /// Executes a frame after all messages before it. It waits for the store until its deadline: then the frames behind it pass, and it is read
    /// from the store later, with those of its room that come meanwhile.
    pub(super) async fn execute_stored(&self, mut frame: StoredFrame) -> Executed {
        let (Some(store), Some(cluster)) = (self.store(), self.cluster()) else { return Executed::Late };
        let until = Instant::now() + cluster.deadline();
        let room = frame.accepted.room().clone();
        loop {
            if !self.is_current(&frame.position) && store.knows(&frame.position.epoch) {
                match timeout_at(until, self.moved(&room, &frame.position)).await {
                    Ok(Some(position)) => frame.position = position,
                    Ok(None) | Err(_) => return Executed::Late,
                }
            }
            let Some(guard) = self.hub().lock_occupied_room_for_emit(&room).await else {
                return Executed::Published(Ok((publish_to_nobody(&frame.accepted), None)));
            };
            if self.is_current(&frame.position) {
                match place(&guard, &frame.position) {
                    Place::Before => return self.executed_before(&frame),
                    Place::Next => {
                        let StoredFrame { accepted, position } = frame;
                        let stored = InLog::new(&position, store.incarnation());
                        let published = self.publish_locked(&guard, accepted, Some(stored)).await;
                        guard.raise_log_head(position.number);
                        return Executed::Published(published);
                    }
                    Place::Beyond => {}
                }
            }
            drop(guard);
            let (is_first, waits) = self.inner.fills.wait_before(&room, &frame.position);
            if is_first {
                self.spawn_fill(&room);
            }
            let Some(waits) = waits else { return Executed::Late };
            if timeout_at(until, waits).await.is_err() {
                if self.inner.fills.give_up_waiting(&room, &frame.position) {
                    self.spawn_fill(&room);
                }
                return Executed::Late;
            }
        }
    }

    /// Whether a position is of the store's epoch.
    pub(super) fn is_current(&self, position: &Position) -> bool {
        #[cfg(test)]
        if is_broken(Rule::EpochsAreCompared) {
            return true;
        }
        self.store().and_then(Store::epoch).as_ref() == Some(&position.epoch)
    }

    /// The same position in the store's epoch. `None`: what stood there is lost, or that cannot be seen now, when devices come to it later.
    async fn moved(&self, room: &RoomName, position: &Position) -> Option<Position> {
        let store = self.store()?;
        let begin = store.position(0).await.ok()?;
        let is_there = self.is_there(store, room, position).await.ok()?;
        is_there.then_some(Position { number: position.number, ..begin })
    }

    /// A message that was published before its frame came. What devices answer that were sent it then is not known.
    fn executed_before(&self, StoredFrame { accepted, position }: &StoredFrame) -> Executed {
        let receipt = self.inner.fills.receipt(accepted, position.number);
        receipt.map_or(Executed::Late, |receipt| Executed::Published(Ok((receipt, None))))
    }
}

fn place(guard: &RoomGuard<'_>, position: &Position) -> Place {
    #[cfg(test)]
    let sends_all = match guard.log_head() {
        Some(head) if position.number <= head => is_broken(Rule::PublishedIsNotSentAgain),
        _ => is_broken(Rule::HoleIsRead),
    };
    #[cfg(test)]
    if sends_all {
        return Place::Next;
    }
    match guard.log_head() {
        Some(head) if position.number <= head => Place::Before,
        Some(head) if position.number == head + 1 => Place::Next,
        Some(_) | None => Place::Beyond,
    }
}
