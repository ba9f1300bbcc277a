use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::QueuedBytes;
use crate::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Who writes queued frames into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The sender, at once: for one frame to few devices.
    Inline,
    /// A flusher, together with what else is queued by then.
    Batched,
    /// The same, and more follows at once for the same streams: if many are dirty, and all of them so, the flusher waits for it, up to 1 ms.
    Gathered,
}

/// Runs a task of the server.
pub type Spawn = Arc<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// Tasks that write the queues of many streams: one task per processor instead of one per stream, so that an emit to a thousand
/// devices wakes a few tasks.
#[derive(Clone)]
pub struct Flushers {
    shards: Arc<[Arc<Shard>]>,
    next: Arc<AtomicUsize>,
    queued: Arc<QueuedBytes>,
}

/// The streams that one task writes.
#[derive(Default)]
pub(super) struct Shard {
    dirty: Mutex<DirtyStreams>,
    /// More frames follow at once for all streams that are dirty.
    is_gathering: AtomicBool,
    /// There is something to write, or no more to gather.
    wake: Notify,
}

/// A stream with frames whose write has not been attempted.
pub(super) trait Dirty: Send + Sync {
    /// Reads what `flush_dirty` is about to touch, so that it is in the processor's cache by then.
    fn touch(&self);

    /// Writes them. Frames that are queued from now on make the stream dirty again.
    fn flush_dirty(&self);
}

#[derive(Default)]
struct DirtyStreams {
    streams: Vec<Arc<dyn Dirty>>,
    /// The task has ended: senders write by themselves.
    has_ended: bool,
}

/// After this many streams, some 150 µs, the task yields: emits that run in between queue frames that the next writes take along.
const STRETCH: usize = 32;
/// With more dirty streams than this, the task waits for frames that follow at once.
const GATHERED_FROM: usize = 64;
/// How long it waits for them.
const GATHER_WITHIN: Duration = Duration::from_millis(1);

impl Flushers {
    /// Starts a task per processor. They end when `done` is cancelled and nothing is dirty; afterwards senders write by themselves.
    pub fn start(spawn: &Spawn, done: &CancellationToken, queued: Arc<QueuedBytes>) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with(count, spawn, done, queued)
    }

    /// The same with `count` tasks.
    pub(super) fn with(count: usize, spawn: &Spawn, done: &CancellationToken, queued: Arc<QueuedBytes>) -> Self {
        let flushers = Self { shards: (0..count).map(|_| Arc::default()).collect(), next: Arc::default(), queued };
        for shard in &*flushers.shards {
            let (shard, done) = (shard.clone(), done.clone());
            spawn(Box::pin(async move { shard.flush_until(done).await }));
        }
        flushers
    }

    /// No tasks: senders write by themselves.
    pub fn inline(queued: Arc<QueuedBytes>) -> Self {
        let shard =
            Shard { dirty: Mutex::new(DirtyStreams { streams: Vec::new(), has_ended: true }), ..Shard::default() };
        Self { shards: Arc::new([Arc::new(shard)]), next: Arc::default(), queued }
    }

    /// The shard of a new stream.
    pub(super) fn shard(&self) -> Arc<Shard> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards[next % self.shards.len()].clone()
    }

    /// How many tasks there are.
    #[cfg(all(test, not(feature = "model")))]
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Counts the bytes of all queues.
    pub fn queued(&self) -> &Arc<QueuedBytes> {
        &self.queued
    }
}

impl Shard {
    /// Has a stream written soon. `is_gathered`: more frames follow at once.
    pub(super) fn mark_dirty(&self, stream: Arc<dyn Dirty>, is_gathered: bool) {
        let mut dirty = self.dirty.lock();
        if dirty.has_ended {
            drop(dirty);
            stream.flush_dirty();
            return;
        }
        dirty.streams.push(stream);
        let is_first = dirty.streams.len() == 1;
        if is_first {
            self.is_gathering.store(is_gathered, Ordering::Relaxed);
        }
        drop(dirty);
        if is_first {
            self.wake.notify_one();
        } else if !is_gathered {
            self.stop_gathering();
        }
    }

    /// No more frames follow at once.
    pub(super) fn stop_gathering(&self) {
        if self.is_gathering.load(Ordering::Relaxed) && self.is_gathering.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    async fn flush_until(&self, done: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            self.gather().await;
            let has_ended = self.take(&mut batch, &done);
            if has_ended {
                return;
            }
            if batch.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = done.cancelled() => {}
                }
            }
            for (index, stream) in batch.iter().enumerate() {
                if let Some(next) = batch.get(index + 1) {
                    next.touch();
                }
                if index % STRETCH == STRETCH - 1 {
                    tokio::task::yield_now().await;
                }
                stream.flush_dirty();
            }
            batch.clear();
        }
    }

    /// Waits for frames that follow at once, if many streams are dirty.
    async fn gather(&self) {
        let until = Instant::now() + GATHER_WITHIN;
        while self.is_gathering.load(Ordering::Relaxed) && self.dirty.lock().streams.len() > GATHERED_FROM {
            if timeout_at(until, self.wake.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Takes the dirty streams. True: there are none, and there will be none.
    fn take(&self, batch: &mut Vec<Arc<dyn Dirty>>, done: &CancellationToken) -> bool {
        let mut dirty = self.dirty.lock();
        std::mem::swap(batch, &mut dirty.streams);
        dirty.has_ended = batch.is_empty() && done.is_cancelled();
        dirty.has_ended
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use std::ops::Range;

    use super::*;

    /// A stream that notes when it was written.
    struct Noting(Mutex<Option<Instant>>);

    impl Dirty for Noting {
        fn touch(&self) {}

        fn flush_dirty(&self) {
            *self.0.lock() = Some(Instant::now());
        }
    }

    struct Bench {
        shard: Arc<Shard>,
        streams: Vec<Arc<Noting>>,
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
        fn new(streams: usize) -> Self {
            let spawn: Spawn = Arc::new(|task| _ = tokio::spawn(task));
            let flushers = Flushers::with(1, &spawn, &CancellationToken::new(), QueuedBytes::new(u64::MAX));
            let streams = (0..streams).map(|_| Arc::new(Noting(Mutex::new(None)))).collect();
            Self { shard: flushers.shard(), streams }
        }

        fn mark(&self, streams: Range<usize>, is_gathered: bool) {
            for stream in &self.streams[streams] {
                self.shard.mark_dirty(stream.clone(), is_gathered);
            }
        }

        /// How long after `begun` each was written.
        async fn waited(&self, begun: Instant) -> Vec<Duration> {
            tokio::time::sleep(10 * GATHER_WITHIN).await;
            self.streams.iter().map(|stream| stream.0.lock().expect("it is written") - begun).collect()
        }
    }

    const MANY: usize = GATHERED_FROM + 1;

    #[tokio::test(start_paused = true)]
    async fn many_streams_wait_for_frames_that_follow_at_once_but_not_for_long() {
        let (bench, begun) = (Bench::new(MANY), Instant::now());
        bench.mark(0..MANY, true);
        assert!(
            bench.waited(begun).await.iter().all(|waited| *waited >= GATHER_WITHIN && *waited <= 2 * GATHER_WITHIN)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_stream_waits_for_what_follows_for_others() {
        for (first, second) in [(0..1, 1..MANY), (0..MANY - 1, MANY - 1..MANY)] {
            for is_first_gathered in [true, false] {
                let (bench, begun) = (Bench::new(MANY), Instant::now());
                bench.mark(first.clone(), is_first_gathered);
                bench.mark(second.clone(), !is_first_gathered);
                assert_eq!(bench.waited(begun).await, [Duration::ZERO; MANY]);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_streams_do_not_wait() {
        let (bench, begun) = (Bench::new(GATHERED_FROM), Instant::now());
        bench.mark(0..GATHERED_FROM, true);
        assert_eq!(bench.waited(begun).await, [Duration::ZERO; GATHERED_FROM]);
    }
}
