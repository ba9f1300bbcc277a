//! What has arrived of requests and messages that are not complete: how many bytes of it a process may hold.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{Handle, Stranger, throttle::Throttle};

/// From so many bytes on a part counts. Most that arrives is complete at once, or smaller than what is kept of its connection.
const COUNTED_FROM: usize = 1_024;

type Abort = Box<dyn Fn() + Send + Sync>;

/// Counts the bytes that have arrived of everyone's incomplete requests and messages. When they exceed the bound, those that have been
/// incomplete for longest are ended, so that what arrives swiftly always gets its chance.
#[derive(Clone)]
pub struct Unfinished(Arc<Inner>);

struct Inner {
    bound: usize,
    total: AtomicUsize,
    parts: Mutex<Parts>,
    log: Throttle,
}

/// The parts by number, which is their age: the first is the oldest.
#[derive(Default)]
struct Parts {
    next: u64,
    held: BTreeMap<u64, Held>,
}

struct Held {
    bytes: usize,
    abort: Abort,
}

/// What has arrived of one request or message. Dropping it stops counting it.
pub struct Part {
    unfinished: Unfinished,
    number: u64,
    /// Bytes that count as a stranger's, and whose.
    stranger: Option<(Arc<Stranger>, usize)>,
}

/// Counts what arrives on one connection, as a stranger's too for as long as it is one's. What exceeds a bound costs the connection.
#[derive(Clone)]
pub struct Arriving {
    unfinished: Unfinished,
    stranger: Arc<Stranger>,
    handle: Handle,
}

impl Unfinished {
    /// Counts nothing yet. `bound` is in bytes.
    pub fn new(bound: usize) -> Self {
        let (total, parts, log) = (AtomicUsize::new(0), Mutex::default(), Throttle::default());
        Self(Arc::new(Inner { bound, total, parts, log }))
    }

    /// Bytes that are held now.
    pub fn total(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Sets how many bytes `part` holds, which is made as soon as that is worth counting, and dropped when it no longer is.
    ///
    /// `abort` gives what ends the part without waiting: it is called at most once, from the task that exceeds the bound (even this
    /// one, before `hold` returns), without any lock of the count.
    pub fn hold<A>(&self, part: &mut Option<Part>, bytes: usize, abort: impl FnOnce() -> A)
    where
        A: Fn() + Send + Sync + 'static,
    {
        self.hold_for(None, part, bytes, abort);
    }

    fn hold_for<A>(
        &self,
        stranger: Option<&Arc<Stranger>>,
        part: &mut Option<Part>,
        bytes: usize,
        abort: impl FnOnce() -> A,
    ) where
        A: Fn() + Send + Sync + 'static,
    {
        if bytes < COUNTED_FROM {
            *part = None;
            return;
        }
        let begin = || Part {
            unfinished: self.clone(),
            number: self.begin(Box::new(abort())),
            stranger: stranger.map(|stranger| (stranger.clone(), 0)),
        };
        part.get_or_insert_with(begin).set(bytes);
    }

    fn begin(&self, abort: Abort) -> u64 {
        let mut parts = self.0.parts.lock();
        let number = parts.next;
        parts.next += 1;
        parts.held.insert(number, Held { bytes: 0, abort });
        number
    }

    fn set(&self, number: u64, bytes: usize) {
        let mut ended = Vec::new();
        {
            let mut parts = self.0.parts.lock();
            let Some(held) = parts.held.get_mut(&number) else {
                return;
            };
            let mut total = self.total() - held.bytes + bytes;
            held.bytes = bytes;
            while total > self.0.bound {
                let Some((_, oldest)) = parts.held.pop_first() else {
                    break;
                };
                total -= oldest.bytes;
                ended.push(oldest);
            }
            self.0.total.store(total, Ordering::Relaxed);
        }
        for held in &ended {
            self.end(held);
        }
    }

    fn end(&self, held: &Held) {
        metrics::counter!("transport_unfinished_ended_total").increment(1);
        if let Some(suppressed) = self.0.log.permit() {
            tracing::info!(
                part.size_bytes = held.bytes,
                bound.size_bytes = self.0.bound,
                suppressed,
                "ended a request or message that had not arrived whole: too many bytes of such (clients.incoming_bytes_total)"
            );
        }
        (held.abort)();
    }

    fn forget(&self, number: u64) {
        let mut parts = self.0.parts.lock();
        let held = parts.held.remove(&number);
        let bytes = held.as_ref().map_or(0, |held| held.bytes);
        self.0.total.fetch_sub(bytes, Ordering::Relaxed);
        drop(parts);
        // After the lock: its abort function may own the last reference to a stream.
        drop(held);
    }
}

impl Part {
    fn set(&mut self, bytes: usize) {
        if let Some((stranger, counted)) = &mut self.stranger {
            stranger.add_body_bytes(bytes.saturating_sub(*counted));
            stranger.release_body_bytes(counted.saturating_sub(bytes));
            *counted = bytes;
        }
        self.unfinished.set(self.number, bytes);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some((stranger, counted)) = &self.stranger {
            stranger.release_body_bytes(*counted);
        }
        self.unfinished.forget(self.number);
    }
}

impl Arriving {
    pub(crate) fn new(unfinished: Unfinished, stranger: Arc<Stranger>, handle: Handle) -> Self {
        Self { unfinished, stranger, handle }
    }

    /// The same as [`Unfinished::hold`].
    pub(crate) fn hold(&self, part: &mut Option<Part>, bytes: usize) {
        let abort = || {
            let handle = self.handle.clone();
            move || handle.abort()
        };
        self.unfinished.hold_for(Some(&self.stranger), part, bytes, abort);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parts that note their names when they are ended.
    struct Lab {
        unfinished: Unfinished,
        ended: Arc<Mutex<Vec<usize>>>,
        parts: [Option<Part>; 4],
    }

    impl Lab {
        fn new(bound: usize) -> Self {
            Self { unfinished: Unfinished::new(bound), ended: Arc::default(), parts: [const { None }; 4] }
        }

        fn hold(&mut self, name: usize, bytes: usize) {
            let ended = self.ended.clone();
            self.unfinished.hold(&mut self.parts[name], bytes, || move || ended.lock().push(name));
        }

        fn ended(&self) -> Vec<usize> {
            std::mem::take(&mut self.ended.lock())
        }
    }

    #[test]
    fn the_part_that_has_been_incomplete_for_longest_is_ended() {
        let mut lab = Lab::new(10_000);
        lab.hold(0, 4_000);
        lab.hold(1, 4_000);
        lab.hold(0, 0);
        lab.hold(0, 6_000);
        assert!(lab.ended().is_empty());
        lab.hold(0, 6_001);
        assert_eq!(lab.ended(), [1], "the other has begun anew");
        assert_eq!(lab.unfinished.total(), 6_001);
    }

    #[test]
    fn an_ended_part_counts_no_more_whatever_arrives() {
        let mut lab = Lab::new(10_000);
        lab.hold(0, 10_001);
        assert_eq!((lab.ended(), lab.unfinished.total()), (vec![0], 0));
        lab.hold(0, 20_000);
        assert_eq!((lab.ended(), lab.unfinished.total()), (vec![], 0));
    }

    #[test]
    fn small_parts_do_not_count() {
        let mut lab = Lab::new(0);
        lab.hold(0, COUNTED_FROM - 1);
        assert!(lab.parts[0].is_none());
        assert!(lab.ended().is_empty());
    }

    #[test]
    fn an_end_may_drop_its_part() {
        let unfinished = Unfinished::new(2_000);
        let own: Arc<Mutex<Option<Part>>> = Arc::default();
        let ended = own.clone();
        unfinished.hold(&mut own.lock(), 2_000, || move || drop(ended.lock().take()));
        let mut other = None;
        unfinished.hold(&mut other, 2_000, || || {});
        assert!(own.lock().is_none());
        assert_eq!(unfinished.total(), 2_000);
    }

    proptest! {
        #[test]
        fn the_bound_is_kept_and_nothing_counts_at_the_end(
            steps in prop::collection::vec((0..4_usize, 0..6_000_usize), 0..100)
        ) {
            let mut lab = Lab::new(10_000);
            for (name, bytes) in steps {
                lab.hold(name, bytes);
                prop_assert!(lab.unfinished.total() <= 10_000);
            }
            lab.parts = [const { None }; 4];
            prop_assert_eq!(lab.unfinished.total(), 0);
            prop_assert!(lab.unfinished.0.parts.lock().held.is_empty());
        }
    }
}
