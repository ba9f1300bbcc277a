//! What has arrived of requests and messages that are not complete, and answers that have not left: how many bytes of it a process
//! may hold.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{AnswerFate, Handle, Stranger, Throttle};

/// From so many bytes on a part counts. Most that arrives is complete at once, or smaller than what is kept of its connection.
const COUNTED_FROM: usize = 1_024;

type Abort = Box<dyn Fn() + Send + Sync>;

/// Counts the bytes that have arrived of everyone's incomplete requests and messages, and those of answers that the kernel has not taken
/// whole. When they exceed the bound, parts of the address that holds the most are ended, those first that began first.
#[derive(Clone)]
pub struct Unfinished(Arc<Inner>);

struct Inner {
    bound: usize,
    total: AtomicUsize,
    parts: Mutex<Parts>,
    log: Throttle,
}

#[derive(Default)]
struct Parts {
    next: u64,
    /// The parts by number, which is their age.
    held: HashMap<u64, Held>,
    by_address: HashMap<Option<IpAddr>, OfAddress>,
}

struct Held {
    address: Option<IpAddr>,
    bytes: usize,
    abort: Abort,
}

#[derive(Default)]
struct OfAddress {
    bytes: usize,
    /// The first is the oldest.
    parts: BTreeSet<u64>,
}

/// What there is of one request, message or answer. Dropping it stops counting it.
pub struct Part {
    unfinished: Unfinished,
    number: u64,
    bytes: usize,
    /// Whose bytes they are for as long as no token was accepted.
    stranger: Option<Arc<Stranger>>,
}

/// Counts what is under way on one connection, as a stranger's too for as long as it is one's. What exceeds a bound costs the connection.
#[derive(Clone)]
pub struct UnderWay {
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

    /// Sets how many bytes `part` holds, which is made as soon as that is worth counting, and dropped when it no longer is. `address`:
    /// whose they are.
    ///
    /// `abort` gives what ends the part without waiting: it is called at most once, from the task that exceeds the bound (even this
    /// one, before `hold` returns), without any lock of the count.
    pub fn hold<A>(&self, part: &mut Option<Part>, bytes: usize, address: Option<IpAddr>, abort: impl FnOnce() -> A)
    where
        A: Fn() + Send + Sync + 'static,
    {
        hold(part, bytes, || self.begin(address, None, Box::new(abort())));
    }

    fn begin(&self, address: Option<IpAddr>, stranger: Option<Arc<Stranger>>, abort: Abort) -> Part {
        let mut parts = self.0.parts.lock();
        let number = parts.next;
        parts.next += 1;
        parts.held.insert(number, Held { address, bytes: 0, abort });
        parts.by_address.entry(address).or_default().parts.insert(number);
        Part { unfinished: self.clone(), number, bytes: 0, stranger }
    }

    fn set(&self, number: u64, bytes: usize) {
        let mut ended = Vec::new();
        {
            let mut parts = self.0.parts.lock();
            let Some(grown) = parts.set(number, bytes) else {
                return;
            };
            let mut total = self.total().saturating_add_signed(grown);
            while total > self.0.bound {
                let Some(held) = parts.largest_and_oldest().and_then(|number| parts.remove(number)) else {
                    break;
                };
                total -= held.bytes;
                ended.push(held);
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
                client.address = held.address.map(tracing::field::display),
                part.size_bytes = held.bytes,
                bound.size_bytes = self.0.bound,
                suppressed,
                "ended a request, a message or an answer that was under way: too many bytes of such (clients.unfinished_bytes_total)"
            );
        }
        (held.abort)();
    }

    fn forget(&self, number: u64) {
        let mut parts = self.0.parts.lock();
        let held = parts.remove(number);
        let bytes = held.as_ref().map_or(0, |held| held.bytes);
        self.0.total.fetch_sub(bytes, Ordering::Relaxed);
        drop(parts);
        // After the lock: its abort function may own the last reference to a stream.
        drop(held);
    }
}

impl Parts {
    /// Sets how many bytes a part holds. Returns by how much it has grown; None: it was ended.
    fn set(&mut self, number: u64, bytes: usize) -> Option<isize> {
        let held = self.held.get_mut(&number)?;
        let grown = bytes.cast_signed() - held.bytes.cast_signed();
        held.bytes = bytes;
        if let Some(of_address) = self.by_address.get_mut(&held.address) {
            of_address.bytes = of_address.bytes.saturating_add_signed(grown);
        }
        Some(grown)
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        if let Entry::Occupied(mut of_address) = self.by_address.entry(held.address) {
            of_address.get_mut().bytes -= held.bytes;
            of_address.get_mut().parts.remove(&number);
            if of_address.get().parts.is_empty() {
                of_address.remove();
            }
        }
        Some(held)
    }

    /// The oldest part of the address that holds the most.
    fn largest_and_oldest(&self) -> Option<u64> {
        let largest = self.by_address.values().max_by_key(|of_address| of_address.bytes)?;
        largest.parts.first().copied()
    }
}

fn hold(part: &mut Option<Part>, bytes: usize, begin: impl FnOnce() -> Part) {
    if bytes < COUNTED_FROM {
        *part = None;
    } else {
        part.get_or_insert_with(begin).set(bytes);
    }
}

impl Part {
    fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if before == bytes {
            return;
        }
        if let Some(stranger) = &self.stranger {
            if bytes > before {
                stranger.add_body_bytes(bytes - before);
            } else {
                stranger.release_body_bytes(before - bytes);
            }
        }
        self.unfinished.set(self.number, bytes);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(stranger) = &self.stranger {
            stranger.release_body_bytes(self.bytes);
        }
        self.unfinished.forget(self.number);
    }
}

impl UnderWay {
    pub(crate) fn new(unfinished: Unfinished, stranger: Arc<Stranger>, handle: Handle) -> Self {
        Self { unfinished, stranger, handle }
    }

    /// The same as [`Unfinished::hold`].
    pub(crate) fn hold(&self, part: &mut Option<Part>, bytes: usize) {
        hold(part, bytes, || {
            let (stranger, handle) = (self.stranger.clone(), self.handle.clone());
            self.unfinished.begin(stranger.address(), Some(stranger), Box::new(move || handle.abort()))
        });
    }

    /// Counts an answer until its fate is known. None: it is not worth counting.
    pub(crate) fn answer(&self, bytes: usize) -> Option<Arc<dyn AnswerFate>> {
        let mut part = None;
        self.hold(&mut part, bytes);
        part.map(|part| Arc::new(part) as _)
    }
}

impl AnswerFate for Part {
    fn taken(&self) {}

    fn lost(&self) {}
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
            // The last two are of another address.
            let address = Some([1, 1, 1, u8::from(name >= 2)].into());
            self.unfinished.hold(&mut self.parts[name], bytes, address, || move || ended.lock().push(name));
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
    fn an_address_that_holds_the_most_loses_its_own() {
        let mut lab = Lab::new(10_000);
        lab.hold(0, 4_000);
        lab.hold(2, 3_000);
        lab.hold(3, 3_001);
        assert_eq!(lab.ended(), [2]);
        lab.hold(1, 4_000);
        assert_eq!(lab.ended(), [0]);
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
        unfinished.hold(&mut own.lock(), 2_000, None, || move || drop(ended.lock().take()));
        let mut other = None;
        unfinished.hold(&mut other, 2_000, None, || || {});
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
            let parts = lab.unfinished.0.parts.lock();
            prop_assert!(parts.held.is_empty() && parts.by_address.is_empty());
        }
    }
}
