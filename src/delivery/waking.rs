//! Telling nodes of stored messages that may not have come to them in frames. One task does, however often it is requested: of the requests during a pass
//! one more pass is made.

use futures_util::{StreamExt, future::join, stream};

use super::Delivery;
#[cfg(test)]
use super::broken::{Rule, is_broken};
use crate::cluster::Frame;
use crate::message::{Position, RoomName};
use crate::store::{self, Store};

/// Rooms that are looked up, or whose nodes are told, at one time. The store reads lookups together.
const MAX_AT_ONCE: usize = 64;

impl Delivery {
    /// Tells nodes whenever it is requested, until the server stops.
    pub(super) async fn wake_loop(self) {
        let Some(store) = self.store().cloned() else { return };
        loop {
            tokio::select! {
                () = self.inner.lifecycle.stopping() => return,
                () = self.inner.wakes.requested() => {}
            }
            self.send_wakes(&store).await;
        }
    }

    /// Where it is not possible now, it is done by a later pass.
    async fn send_wakes(&self, store: &Store) {
        #[cfg(test)]
        if is_broken(Rule::UncertainIsTold) {
            return;
        }
        let owed = stream::iter(self.inner.wakes.take()).for_each_concurrent(MAX_AT_ONCE, |(room, known)| {
            let (delivery, store) = (self.clone(), store.clone());
            async move { delivery.send_owed_wake(&store, room, known).await }
        });
        let uncertain = stream::iter(self.inner.wakes.uncertain()).for_each_concurrent(MAX_AT_ONCE, |room| {
            let (delivery, store) = (self.clone(), store.clone());
            async move { delivery.look_up_uncertain_room(&store, room).await }
        });
        join(owed, uncertain).await;
    }

    async fn send_owed_wake(&self, store: &Store, room: RoomName, known: Option<Position>) {
        let position = match &known {
            Some(position) => Ok(position.clone()),
            None => self.last_position(store, &room).await,
        };
        match position {
            Ok(position) => self.send_wake(room, position, known).await,
            // The other nodes cannot read it either.
            Err(error) if error.is_damage() => self.inner.faulty_logs.note(&room, &error),
            Err(_) => self.inner.wakes.note(&room, known),
        }
    }

    async fn look_up_uncertain_room(&self, store: &Store, room: RoomName) {
        // What cannot be read is looked up again by the next pass.
        if let Ok(position) = self.last_position(store, &room).await
            && self.inner.wakes.note_last(&room, &position)
        {
            self.send_wake(room, position.clone(), Some(position)).await;
        }
    }

    /// `owed`: what is noted for a later pass if nodes cannot be told now.
    async fn send_wake(&self, room: RoomName, position: Position, owed: Option<Position>) {
        if self.ask(Frame::Wake(room.clone(), position)).await.is_err() {
            self.inner.wakes.note(&room, owed);
        }
    }

    async fn last_position(&self, store: &Store, room: &RoomName) -> Result<Position, store::Error> {
        let begin = store.position(0).await?;
        Ok(Position { number: store.mailbox(room).await?.unwrap_or_default().last, ..begin })
    }
}
