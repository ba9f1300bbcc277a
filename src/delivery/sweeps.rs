use std::time::Duration;

use tokio::{task::yield_now, time::MissedTickBehavior};

use super::Delivery;
use crate::hub::Reason;

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Delivery {
    /// Forgets what has ended, again and again, until the server stops.
    pub(super) async fn sweep_loop(self) {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.inner.lifecycle.is_stopping() {
            tokio::select! {
                () = self.inner.lifecycle.stopping() => {}
                _ = tick.tick() => self.sweep().await,
            }
        }
    }

    /// Forgets what has ended, in steps that are short, since each has a lock: others get a chance to run in between.
    async fn sweep(&self) {
        self.close_late();
        while self.inner.idempotency.sweep() {
            yield_now().await;
        }
        let now = self.inner.clock.now();
        while self.inner.retained.sweep(now) {
            yield_now().await;
        }
        let mut swept = 0;
        while let Some(next) = self.inner.history.sweep(now.as_millisecond(), swept) {
            swept = next;
            yield_now().await;
        }
        while self.inner.grants.sweep().await {
            yield_now().await;
        }
        self.sweep_memberships().await;
        self.sweep_shared().await;
    }

    /// Forgets what has ended at the engines. Each node does, in steps that are short.
    async fn sweep_shared(&self) {
        let Ok(shared) = self.shared() else { return };
        shared.changes.sweep();
        self.inner.fills.sweep();
        self.inner.history_fills.sweep();
        self.inner.wakes.request();
        shared.executed.sweep();
        shared.collapsing.sweep();
        while matches!(shared.idempotency.sweep().await, Ok(true)) {}
        while matches!(shared.retained.sweep().await, Ok(true)) {}
        while matches!(shared.collapse.sweep().await, Ok(true)) {}
        while matches!(shared.history.sweep().await, Ok(true)) {}
        self.inner.memberships.sweep_shared().await;
    }

    async fn sweep_memberships(&self) {
        loop {
            let ended = self.inner.memberships.sweep();
            if ended.is_empty() {
                return;
            }
            for (user, room) in ended {
                // A JoinRoom since has renewed it.
                if self.inner.memberships.has(&user, &room) {
                    continue;
                }
                self.leave_now(&user, &room, Reason::Backend);
                // A JoinRoom in between saw its connections in the room still.
                if self.inner.memberships.has(&user, &room) {
                    self.join_again(&user, &room).await;
                }
            }
            yield_now().await;
        }
    }
}
