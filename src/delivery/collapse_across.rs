//! Collapsing across nodes: the engine has the windows and what waits for their ends. The node whose emit opened a window keeps it.

use std::time::Duration;

use super::{
    Delivery,
    accepted::{Accepted, EmitError, Published},
};
use crate::cluster::Frame;
use crate::message::{EventName, Receipt, RoomName};
use crate::state::Offered;

impl Delivery {
    /// Publishes an emit with a collapse key if it opens a window; else it waits for the window's end.
    pub(super) async fn collapse_across(&self, accepted: Accepted) -> Published {
        let shared = self.shared()?;
        let deferred = accepted.into_deferred();
        let (room, event) = (deferred.emit.audience.room().clone(), deferred.emit.event.clone());
        let key = deferred.emit.collapse_key.clone().unwrap_or_default();
        if deferred.emit.retain {
            let emit = &deferred.emit;
            shared.retained.can_retain(&[&room], &event, deferred.retained(), &emit.except.users).await??;
        }
        self.announce_collapsing(&event).await?;
        match shared.collapse.offer(&room, &event, &key, deferred.encode()).await? {
            Offered::Full => Err(EmitError::CollapseFull { retry_after: self.inner.collapse.config.window }),
            Offered::Deferred => Ok((Receipt { deferred: true, ..Receipt::new(deferred.message_id) }, None)),
            Offered::Opens => {
                let delivery = self.clone();
                let keeping = async move { delivery.keep_window_across(room, event, &key).await };
                self.inner.lifecycle.spawn(shared.windows.track_future(keeping));
                self.publish_frame(&deferred).await
            }
        }
    }

    /// Has all nodes know that emits of an event are collapsed, before the first one waits.
    async fn announce_collapsing(&self, event: &EventName) -> Result<(), EmitError> {
        let shared = self.shared()?;
        if shared.collapsing.is_due(event) {
            // Nodes that join later read it. The others are told each time, since they forget it.
            shared.collapse.note_event(event).await?;
            self.ask(Frame::Collapses(event.clone())).await?;
            shared.collapsing.noted(event);
        }
        Ok(())
    }

    /// Notes that another node collapses emits of an event.
    pub(super) fn note_collapsing(&self, event: &EventName) {
        if let Ok(shared) = self.shared() {
            shared.collapsing.heard(event);
        }
    }

    /// Reads which events are collapsed: what nodes told while this one did not hear them.
    pub(super) async fn read_collapsing(&self) {
        let Ok(shared) = self.shared() else { return };
        if let Ok(events) = shared.collapse.events().await {
            for event in &events {
                shared.collapsing.heard(event);
            }
        }
    }

    /// Waits until what windows deferred is sent: a stop sends it before devices are sent away. At most this long.
    pub(super) async fn flush_windows(&self, patience: Duration) {
        if let Ok(shared) = self.shared() {
            shared.windows.close();
            // What is not sent by then is lost with the engine.
            let _ = tokio::time::timeout(patience, shared.windows.wait()).await;
        }
    }

    async fn keep_window_across(&self, room: RoomName, event: EventName, key: &str) {
        let Ok(shared) = self.shared() else { return };
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.inner.collapse.config.window) => {}
                // Nothing that waits is lost to a stop.
                () = self.inner.lifecycle.stopping() => {}
            }
            match shared.collapse.window_ended(&room, &event, key).await {
                Ok(Some(waiting)) => self.send_deferred(&waiting),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, room.name = %room, "what a collapse window deferred is lost");
                    return;
                }
            }
        }
    }
}
