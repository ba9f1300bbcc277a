//! Looking into the store while frames may not come: this node, or another one, is not connected to the engine.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{Delivery, wakes::COMMITTED_WITHIN};
use crate::message::Position;

const INTERVAL: Duration = Duration::from_millis(500);

impl Delivery {
    /// Publishes what other nodes have stored while their frames may not come, again and again, until the server stops.
    pub(super) async fn poll_store(self) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut whole_until, mut polled_until, mut has_failed) = (Instant::now(), Instant::now(), false);
        let mut gaps = 0;
        loop {
            let has_missed = tokio::select! {
                () = self.inner.lifecycle.stopping() => return,
                () = self.inner.frames_missed.notified() => true,
                _ = tick.tick() => false,
            };
            let Some(cluster) = self.cluster() else { return };
            let began = Instant::now();
            // It may have been too short for a look to see it.
            let before = std::mem::replace(&mut gaps, cluster.gaps());
            if has_missed || !cluster.is_whole() || gaps != before {
                whole_until = began;
            }
            // Until a node that was cut off is known to be dead, it may have stored what it could not publish.
            let is_whole = began.duration_since(whole_until) > cluster.lease();
            #[cfg(test)]
            if is_broken(Rule::StoreIsPolled) {
                continue;
            }
            if has_failed || !is_whole {
                has_failed = !self.publish_stored_within(polled_until.elapsed() + COMMITTED_WITHIN).await;
            }
            if !has_failed {
                polled_until = began;
            }
        }
    }

    /// Publishes what was stored within this time and has not come in frames. False: the store could not be read.
    async fn publish_stored_within(&self, period: Duration) -> bool {
        let Some(store) = self.store() else { return true };
        let read = async {
            let begin = store.position(0).await?;
            Ok::<_, crate::store::Error>((begin, store.appended_within(period).await?))
        };
        let Ok((begin, rooms)) = read.await else { return false };
        for (room, last) in rooms {
            // Where it is not known where a room stands, its next frame has that read.
            if self.hub().log_head(&room).is_some_and(|head| head < last) {
                self.fill_up_to(&room, Position { number: last, ..begin.clone() });
            }
        }
        true
    }
}
