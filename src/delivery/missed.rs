use std::time::Duration;

use tokio::time::timeout;

use super::Delivery;
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
