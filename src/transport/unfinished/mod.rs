//! What has arrived of requests and messages that are not complete, or what has not left of answers: how many bytes of it a process
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
use tokio::sync::{Mutex as Queue, Notify};

use crate::{AnswerFate, Handle, Stranger, Throttle};

/// From so many bytes on a part counts. Most that arrives is complete at once, or smaller than what is kept of its connection.
const COUNTED_FROM: usize = 1_024;

type Abort = Box<dyn Fn() + Send + Sync>;

/// Counts the bytes that have arrived of everyone's incomplete requests and messages, or those of answers that the kernel has not taken
/// whole. When they exceed the bound, parts of the address that holds the most are ended, those first that began first. One that is
/// alone may be larger.
#[derive(Clone)]
pub struct Unfinished(Arc<Inner>);

struct Inner {
    /// The key of the configuration that sets the bound.
    key: &'static str,
    bound: usize,
    total: AtomicUsize,
    parts: Mutex<Parts>,
    /// Those who wait for what was ended, in turn.
    waiting: Queue<()>,
    let_go: Notify,
    log: Throttle,
}

#[derive(Default)]
struct Parts {
    next: u64,
    /// The parts by number, which is their age.
    held: HashMap<u64, Held>,
    by_address: HashMap<Option<IpAddr>, OfAddress>,
    /// The bytes of those that were ended and whose owners have not let go of them.
    ended: HashMap<u64, usize>,
    ended_bytes: usize,
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

/// Counts what is under way on one connection, what arrives as a stranger's too for as long as it is one's. What exceeds a bound costs
/// the connection.
#[derive(Clone)]
pub struct UnderWay {
    incoming: Unfinished,
    answers: Unfinished,
    stranger: Arc<Stranger>,
    handle: Handle,
}

impl Unfinished {
    /// Counts nothing yet. `bound` is in bytes; `key` of the configuration sets it.
    pub fn new(key: &'static str, bound: usize) -> Self {
        let (total, parts, log) = (AtomicUsize::new(0), Mutex::default(), Throttle::default());
        let (waiting, let_go) = (Queue::default(), Notify::new());
        Self(Arc::new(Inner { key, bound, total, parts, waiting, let_go, log }))
    }

    /// Bytes that are held now.
    pub fn total(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Waits until no more than a quarter of the bound is in memory of parts that were ended and not yet dropped: their tasks have to run
    /// for that. To be called before a large answer is made.
    pub async fn settled(&self) {
        if self.is_settled() {
            return;
        }
        let _turn = self.0.waiting.lock().await;
        while !self.is_settled() {
            self.0.let_go.notified().await;
        }
    }

    fn is_settled(&self) -> bool {
        self.0.parts.lock().ended_bytes <= self.0.bound / 4
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
            while total > self.0.bound && parts.held.len() > 1 {
                let Some(held) = parts.largest_and_oldest().and_then(|number| parts.end(number)) else {
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
                bound.key = self.0.key,
                suppressed,
                "ended a request, a message or an answer that was under way: too many bytes of such"
            );
        }
        (held.abort)();
    }

    fn forget(&self, number: u64) {
        let mut parts = self.0.parts.lock();
        let held = parts.remove(number);
        let bytes = held.as_ref().map_or(0, |held| held.bytes);
        self.0.total.fetch_sub(bytes, Ordering::Relaxed);
        if held.is_none() {
            parts.ended_bytes -= parts.ended.remove(&number).unwrap_or_default();
            self.0.let_go.notify_one();
        }
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

    /// Removes a part whose owner has yet to let go of it.
    fn end(&mut self, number: u64) -> Option<Held> {
        let held = self.remove(number)?;
        self.ended_bytes += held.bytes;
        self.ended.insert(number, held.bytes);
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
    pub(crate) fn new(incoming: Unfinished, answers: Unfinished, stranger: Arc<Stranger>, handle: Handle) -> Self {
        Self { incoming, answers, stranger, handle }
    }

    /// The same as [`Unfinished::hold`].
    pub(crate) fn hold(&self, part: &mut Option<Part>, bytes: usize) {
        hold(part, bytes, || {
            let (stranger, handle) = (self.stranger.clone(), self.handle.clone());
            self.incoming.begin(stranger.address(), Some(stranger), Box::new(move || handle.abort()))
        });
    }

    /// Counts an answer until its fate is known. None: it is not worth counting.
    pub(crate) fn answer(&self, bytes: usize) -> Option<Arc<dyn AnswerFate>> {
        let (mut part, handle) = (None, self.handle.clone());
        self.answers.hold(&mut part, bytes, self.stranger.address(), || move || handle.abort());
        part.map(|part| Arc::new(part) as _)
    }
}

/// It counts until it is dropped, whatever the fate.
impl AnswerFate for Part {
    fn taken(&self) {}

    fn lost(&self) {}
}

#[cfg(test)]
mod tests;
