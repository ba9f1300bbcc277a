use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{QueuedBytes, shared::Shared};

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
    dirty: Mutex<Dirty>,
    is_dirty: Notify,
}

#[derive(Default)]
struct Dirty {
    /// Streams with frames that nobody has tried to write yet.
    streams: Vec<Arc<Shared>>,
    /// The task has ended: senders write by themselves.
    has_ended: bool,
}

/// After this many streams the task yields.
const STRETCH: usize = 64;

impl Flushers {
    /// Starts a task per processor. They end when `done` is cancelled and nothing is dirty; afterwards senders write by themselves.
    pub fn start(spawn: &Spawn, done: &CancellationToken, queued: Arc<QueuedBytes>) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
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
            Shard { dirty: Mutex::new(Dirty { streams: Vec::new(), has_ended: true }), is_dirty: Notify::new() };
        Self { shards: Arc::new([Arc::new(shard)]), next: Arc::default(), queued }
    }

    /// The shard of a new stream.
    pub(super) fn shard(&self) -> Arc<Shard> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards[next % self.shards.len()].clone()
    }

    /// Counts the bytes of all queues.
    pub fn queued(&self) -> &Arc<QueuedBytes> {
        &self.queued
    }
}

impl Shard {
    /// Has a stream written soon.
    pub(super) fn mark_dirty(&self, stream: Arc<Shared>) {
        let mut dirty = self.dirty.lock();
        if dirty.has_ended {
            drop(dirty);
            stream.flush_dirty();
            return;
        }
        dirty.streams.push(stream);
        if dirty.streams.len() == 1 {
            drop(dirty);
            self.is_dirty.notify_one();
        }
    }

    async fn flush_until(&self, done: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            {
                let mut dirty = self.dirty.lock();
                std::mem::swap(&mut batch, &mut dirty.streams);
                if batch.is_empty() && done.is_cancelled() {
                    dirty.has_ended = true;
                    return;
                }
            }
            if batch.is_empty() {
                tokio::select! {
                    () = self.is_dirty.notified() => {}
                    () = done.cancelled() => {}
                }
            }
            for (index, stream) in batch.drain(..).enumerate() {
                if index % STRETCH == STRETCH - 1 {
                    tokio::task::yield_now().await;
                }
                stream.flush_dirty();
            }
        }
    }
}
