use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::shared::State;
use crate::lifecycle::Lifecycle;

/// Tasks that write what was put into the outboxes of streams. One task writes for many streams: a task for each of them would have to be
/// woken for each frame, and whoever sends to many would have to write to all.
#[derive(Clone)]
pub struct Flushers {
    shares: Arc<[Arc<Share>]>,
    next: Arc<AtomicUsize>,
}

/// The streams that one task writes for.
#[derive(Default)]
pub(super) struct Share {
    noted: Mutex<Noted>,
    something_new: Notify,
}

#[derive(Default)]
struct Noted {
    /// Those whose outboxes have something new.
    streams: Vec<Arc<State>>,
    /// There is no task any more.
    is_over: bool,
}

/// After this many streams, others get a chance to run.
const STRETCH: usize = 64;

impl Flushers {
    /// As many as there are processors. They end when that is asked for; from then on, who sends writes.
    pub fn start(lifecycle: &Lifecycle, done: &CancellationToken) -> Self {
        let flushers = Self::idle(std::thread::available_parallelism().map_or(1, usize::from));
        for share in &*flushers.shares {
            let (share, done) = (share.clone(), done.clone());
            lifecycle.spawn(async move { share.flush_until(done).await });
        }
        flushers
    }

    fn idle(count: usize) -> Self {
        let shares = (0..count).map(|_| Arc::default()).collect();
        Self { shares, next: Arc::default() }
    }

    /// Whose a new stream is.
    pub(super) fn share(&self) -> Arc<Share> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.shares[next % self.shares.len()].clone()
    }
}

impl Share {
    /// Takes note of a stream whose outbox has something new.
    pub(super) fn put(&self, stream: Arc<State>) {
        let mut noted = self.noted.lock();
        if noted.is_over {
            drop(noted);
            stream.flush_noted();
            return;
        }
        noted.streams.push(stream);
        if noted.streams.len() == 1 {
            drop(noted);
            self.something_new.notify_one();
        }
    }

    async fn flush_until(&self, done: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            {
                let mut noted = self.noted.lock();
                std::mem::swap(&mut batch, &mut noted.streams);
                if batch.is_empty() && done.is_cancelled() {
                    noted.is_over = true;
                    return;
                }
            }
            if batch.is_empty() {
                tokio::select! {
                    () = self.something_new.notified() => {}
                    () = done.cancelled() => {}
                }
            }
            for (index, stream) in batch.drain(..).enumerate() {
                if index % STRETCH == STRETCH - 1 {
                    tokio::task::yield_now().await;
                }
                stream.flush_noted();
            }
        }
    }
}
