//! Looking into the store while frames may not come: this node, or another one, is not connected to the engine.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Delivery;
#[cfg(test)]
use super::broken::{Rule, is_broken};
use crate::message::Position;
use crate::store::{COMMITTED_WITHIN, Error, STORED_WITHIN};

const INTERVAL: Duration = Duration::from_millis(500);
/// Of messages whose writers have given up, those that are committed all the same are looked for so often.
const FAR_INTERVAL: Duration = Duration::from_secs(30);
/// A look counts if it takes no longer than this: later, the database reckons its period from a later time.
const MAX_LOOK: Duration = Duration::from_secs(2);

/// What the looks up to now have covered.
struct Looks {
    /// When the last look began that counts, or when frames came for sure: what was stored before, by a writer that was told so, has come.
    covered: Instant,
    /// The same of looks that went back far: all that was stored before has come.
    all_covered: Instant,
    /// The next look goes back far.
    is_far_due: bool,
    /// The last look did not count: there is another one, even if frames come again.
    has_failed: bool,
    /// Not all looks since the last far one have found what was committed late.
    has_looked_near: bool,
}

/// How far back a look goes.
#[derive(Debug, PartialEq)]
struct Look {
    period: Duration,
    is_far: bool,
}

impl Looks {
    fn new(now: Instant) -> Self {
        Self { covered: now, all_covered: now, is_far_due: true, has_failed: false, has_looked_near: false }
    }

    /// The look that is due, if any. `is_whole`: frames come.
    fn next(&mut self, is_whole: bool, now: Instant) -> Option<Look> {
        if is_whole && !self.has_failed && !self.has_looked_near {
            *self = Self::new(now);
            return None;
        }
        let is_far = self.is_far_due || is_whole || now.duration_since(self.all_covered) >= FAR_INTERVAL;
        let period = if is_far {
            now.duration_since(self.all_covered) + COMMITTED_WITHIN
        } else {
            now.duration_since(self.covered) + STORED_WITHIN
        };
        Some(Look { period: period + MAX_LOOK, is_far })
    }

    fn done(&mut self, look: &Look, began: Instant, is_read: bool) {
        self.has_failed = !is_read || began.elapsed() > MAX_LOOK;
        if self.has_failed {
            self.is_far_due = true;
            return;
        }
        self.covered = began;
        self.is_far_due = false;
        self.has_looked_near = !look.is_far;
        if look.is_far {
            self.all_covered = began;
        }
    }
}

impl Delivery {
    /// Publishes what other nodes have stored while their frames may not come, again and again, until the server stops.
    pub(super) async fn poll_store(self) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut whole_until, mut looks) = (Instant::now(), Looks::new(Instant::now()));
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
            if let Some(look) = looks.next(is_whole, began) {
                let is_read = self.publish_stored_within(look.period).await.is_ok();
                looks.done(&look, began, is_read);
            }
        }
    }

    /// Publishes what was stored within this time and has not come in frames.
    async fn publish_stored_within(&self, period: Duration) -> Result<(), Error> {
        let Some(store) = self.store() else { return Ok(()) };
        let begin = store.position(0).await?;
        let mut recent = store.stored_within(period);
        while let Some(rooms) = recent.next().await? {
            for (room, last) in rooms {
                // Where it is not known where a room stands, its next frame has that read.
                if self.hub().log_head(&room).is_some_and(|head| head < last) {
                    self.fill_up_to(&room, Position { number: last, ..begin.clone() });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn far(since: Duration) -> Look {
        Look { period: since + COMMITTED_WITHIN + MAX_LOOK, is_far: true }
    }

    fn near(since: Duration) -> Look {
        Look { period: since + STORED_WITHIN + MAX_LOOK, is_far: false }
    }

    /// Looks now, for so long.
    async fn look(looks: &mut Looks, takes: Duration, is_read: bool) -> Look {
        let began = Instant::now();
        let look = looks.next(false, began).unwrap();
        advance(takes).await;
        looks.done(&look, began, is_read);
        look
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_look_goes_back_far_and_later_ones_to_the_one_before() {
        let mut looks = Looks::new(Instant::now());
        advance(SECOND).await;
        assert_eq!(looks.next(true, Instant::now()), None);
        advance(SECOND).await;
        assert_eq!(look(&mut looks, SECOND, true).await, far(SECOND));
        for _ in 0..28 {
            assert_eq!(look(&mut looks, SECOND, true).await, near(SECOND));
        }
        advance(SECOND).await;
        assert_eq!(look(&mut looks, SECOND, true).await, far(FAR_INTERVAL), "what was committed late");
        assert_eq!(looks.next(true, Instant::now()), None, "frames come again");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_look_that_failed_or_was_slow_the_next_one_goes_back_far() {
        let mut looks = Looks::new(Instant::now());
        assert_eq!(look(&mut looks, SECOND, false).await, far(Duration::ZERO));
        assert_eq!(look(&mut looks, SECOND, true).await, far(SECOND));
        assert_eq!(look(&mut looks, SECOND * 3, true).await, near(SECOND));
        assert_eq!(looks.next(true, Instant::now()), Some(far(SECOND * 4)), "also when frames come again");
        assert_eq!(look(&mut looks, SECOND, true).await, far(SECOND * 4));
        assert_eq!(look(&mut looks, SECOND, true).await, near(SECOND));
        assert_eq!(looks.next(true, Instant::now()), Some(far(SECOND * 2)), "a last one");
    }
}
