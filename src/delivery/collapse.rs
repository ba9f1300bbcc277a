use std::sync::Arc;

use scopeguard::guard_on_unwind;
use tokio::time::Instant;

use super::{
    Delivery,
    accepted::{Accepted, Publishing, settled},
    collapse_windows::Topic,
};
use crate::hub::RoomGuard;
use crate::message::Receipt;
use crate::state::Claim;

impl Delivery {
    /// Publishes an emit with a collapse key if it opens a window; else it waits for the window's end.
    pub(super) fn collapse(&self, accepted: Accepted, key: Arc<str>, claim: Option<Claim>) -> Publishing {
        let topic = Topic::of(&accepted.emit);
        let message_id = accepted.message_id;
        let can_retain = if accepted.emit.retain { self.can_retain([&topic.room], &accepted.emit) } else { Ok(()) };
        match can_retain.and_then(|()| self.inner.collapse.offer(&topic, &key, accepted)) {
            Err(refused) => Publishing::Done(Err(refused)),
            Ok(None) => {
                let receipt = Receipt { deferred: true, ..Receipt::new(message_id) };
                Publishing::Done(settled(Ok((receipt, None)), claim))
            }
            Ok(Some(accepted)) => {
                let delivery = self.clone();
                self.inner.lifecycle.spawn(async move { delivery.keep_window(topic, key).await });
                self.publish_accepted(accepted, claim)
            }
        }
    }

    async fn keep_window(&self, topic: Topic, key: Arc<str>) {
        let _guard = guard_on_unwind((), |()| self.inner.collapse.close(&topic, &key));
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.inner.collapse.config.window) => {}
                // Nothing that waits is lost to a stop.
                () = self.inner.lifecycle.stopping() => {}
            }
            if !self.inner.collapse.goes_on(&topic, &key) {
                return;
            }
            let guard = self.hub().lock_room_for_emit(&topic.room).await;
            // An emit without a key may have taken it along meanwhile.
            if let Some(accepted) = self.inner.collapse.take(&topic, &key) {
                self.publish_deferred(accepted, &guard).await;
            }
        }
    }

    /// Publishes what was told that it would wait.
    pub(super) async fn publish_deferred(&self, mut accepted: Accepted, guard: &RoomGuard<'_>) {
        let event = accepted.emit.event.clone();
        // That it waited is no slowness.
        accepted.received = Instant::now();
        if let Err(refused) = self.publish_locked(guard, accepted, None).await {
            tracing::warn!(error = %refused, event.name = %event, "a deferred emit could not be published");
        }
    }
}
