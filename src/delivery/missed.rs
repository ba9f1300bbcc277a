use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Delivery;
use crate::hub::HeldRoom;
use crate::message::{RoomName, UserId};
use crate::store::{Error, Store};

/// A connect waits this long to learn whether its user's devices have missed something.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the devices of a user who do not resume have missed of the user's own mailbox.
pub(super) enum Missed {
    /// Nothing, if nothing was published after this position.
    NothingUpTo(u64),
    /// At least one message.
    Something,
    /// The store has not answered in time.
    Unknown,
}

impl Delivery {
    /// Looks up what a user's devices have missed, before one of them enters the hub. A connect does not wait for a store that is slow already.
    pub(super) async fn look_up_missed(&self, own: &RoomName, user: &UserId) -> Missed {
        let Some(store) = self.store().filter(|store| !store.is_slow(PATIENCE)) else {
            return Missed::Unknown;
        };
        match timeout(PATIENCE, self.missed(own, user, store)).await {
            Ok(Ok(missed)) => missed,
            Ok(Err(_)) | Err(_) => Missed::Unknown,
        }
    }

    /// Reads where rooms stand that a connection is about to join, and whose frames come to this node: what is stored from then on is sent to it,
    /// in whatever order its frames come. It stays known while the rooms are held. A node that is alone knows it by itself. A join does not wait for
    /// longer than `cluster.deadline`: where a room stands is read later then, and devices that resume are told that they may have missed something.
    pub(super) async fn hold_with_heads(&self, rooms: impl Iterator<Item = &RoomName>) -> Vec<HeldRoom<'_>> {
        let Some((store, cluster)) = self.store().zip(self.cluster()) else { return Vec::new() };
        let (mut held, mut unknown) = (Vec::new(), Vec::new());
        for room in rooms.filter(|room| !room.is_everyone() && !self.has_history(room)) {
            held.push(self.hub().hold_room(room));
            if self.hub().log_head(room).is_none() {
                unknown.push(self.log_head(room));
            }
        }
        if !unknown.is_empty() && !store.is_slow(cluster.deadline()) {
            let _ = timeout(cluster.deadline(), join_all(unknown)).await;
        }
        for room in held.iter().map(HeldRoom::name) {
            if self.hub().log_head(room).is_none() && self.inner.fills.want_head(room) {
                // What cannot be read now is read as soon as it can be.
                self.spawn_fill(room);
            }
        }
        held
    }

    async fn missed(&self, own: &RoomName, user: &UserId, store: &Store) -> Result<Missed, Error> {
        let head = self.log_head(own).await?;
        if head == 0 {
            return Ok(Missed::NothingUpTo(head));
        }
        let undelivered = store.undelivered(user).await?;
        let is_nothing = undelivered.after >= head && undelivered.skipped.is_empty();
        Ok(if is_nothing { Missed::NothingUpTo(head) } else { Missed::Something })
    }
}
