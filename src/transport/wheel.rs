use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The resolution of all timers.
const TICK_MS: u64 = 10;
/// No entry.
const NEVER: u64 = u64::MAX;

/// The timers of many connections, driven by one task. Entries name connections by a key, so that one that has ended is not kept.
pub struct Wheel<K> {
    start: Instant,
    slots: Mutex<BTreeMap<u64, Vec<K>>>,
    has_earlier: Notify,
}

/// A connection's earliest entry in the wheel, as a tick. Later ones are made when this one is due.
pub struct Entry(AtomicU64);

impl Default for Entry {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Self { start: Instant::now(), slots: Mutex::default(), has_earlier: Notify::new() }
    }
}

impl<K> Wheel<K> {
    /// Wakes a connection then, unless that happens earlier anyway.
    pub fn arm(&self, key: K, entry: &Entry, at: Instant) {
        let elapsed = at.saturating_duration_since(self.start).as_nanos().div_ceil(u128::from(TICK_MS) * 1_000_000);
        let tick = u64::try_from(elapsed).unwrap_or(NEVER - 1).min(NEVER - 1);
        if entry.0.fetch_min(tick, Ordering::AcqRel) <= tick {
            return;
        }
        let mut slots = self.slots.lock();
        let is_first = slots.first_key_value().is_none_or(|(first, _)| tick < *first);
        slots.entry(tick).or_default().push(key);
        drop(slots);
        if is_first {
            self.has_earlier.notify_one();
        }
    }

    /// Waits for connections that are due, and returns them with the tick of their entries ([`Entry::take`]). For one caller. Cancel safe.
    pub async fn due(&self) -> (u64, Vec<K>) {
        loop {
            let first = self.slots.lock().first_key_value().map(|(first, _)| *first);
            let Some(first) = first else {
                self.has_earlier.notified().await;
                continue;
            };
            let at = self.start + Duration::from_millis(first.saturating_mul(TICK_MS));
            tokio::select! {
                () = sleep_until(at) => {
                    if let Some(due) = self.slots.lock().remove(&first) {
                        return (first, due);
                    }
                }
                () = self.has_earlier.notified() => {}
            }
        }
    }
}

impl Entry {
    /// Takes the entry that is due at this tick: whatever is armed from now on needs another. False: the connection has an earlier one, or
    /// none, and this one is left over.
    pub fn take(&self, tick: u64) -> bool {
        self.0.compare_exchange(tick, NEVER, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_come_in_the_order_of_their_deadlines_and_an_earlier_one_goes_first() {
        let wheel = Wheel::default();
        let (late, early) = (1, 2);
        let (late_entry, early_entry) = (Entry::default(), Entry::default());
        let start = Instant::now();
        wheel.arm(late, &late_entry, start + Duration::from_secs(25));
        wheel.arm(late, &late_entry, start + Duration::from_secs(30));
        let arming = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            wheel.arm(early, &early_entry, start + Duration::from_secs(2));
        };
        let ((), first) = tokio::join!(arming, wheel.due());
        assert_eq!((first.1, Instant::now()), (vec![early], start + Duration::from_secs(2)));
        let second = wheel.due().await;
        assert_eq!((second.1, Instant::now()), (vec![late], start + Duration::from_secs(25)));
        assert!(wheel.slots.lock().is_empty(), "one entry is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_an_earlier_one_replaced_is_left_over() {
        let wheel = Wheel::default();
        let (id, entry, start) = (1, Entry::default(), Instant::now());
        wheel.arm(id, &entry, start + Duration::from_secs(25));
        wheel.arm(id, &entry, start + Duration::from_secs(2));
        let (tick, _) = wheel.due().await;
        assert!(entry.take(tick));
        wheel.arm(id, &entry, start + Duration::from_secs(30));
        let (tick, ids) = wheel.due().await;
        assert_eq!((ids, entry.take(tick)), (vec![id], false));
        let (tick, _) = wheel.due().await;
        assert!(entry.take(tick) && !entry.take(tick));
        assert!(wheel.slots.lock().is_empty());
    }
}
