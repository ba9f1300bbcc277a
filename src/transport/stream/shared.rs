use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::{AnswerFate, Flushers, WriteMode, flusher::Shard, io::Io, queue::Queue};

/// What a stream and its handles share.
pub(super) struct Shared {
    condition: AtomicU8,
    pub(super) queue: Mutex<Queue>,
    shard: Arc<Shard>,
    /// The shard has the stream in its list.
    is_dirty: AtomicBool,
    /// The task that reads the stream; after an upgrade it writes too what the kernel did not take at once.
    pub(super) reader: AtomicWaker,
    /// The task that writes responses. Reader and writer may be different tasks, and a cut wakes both.
    pub(super) writer: AtomicWaker,
    /// Answers whose last byte was handed to the HTTP server, and is not known to be in the kernel.
    pub(super) answers: Mutex<Vec<Arc<dyn AnswerFate>>>,
    /// Requests whose heads the HTTP server has read.
    pub(super) requests: AtomicU32,
}

pub(super) const OPEN: u8 = 0;
/// What waits is still written as far as the kernel has room.
pub(super) const CUT: u8 = 1;
/// What waits is thrown away, in the kernel too (RST).
pub(super) const ABORTED: u8 = 2;
pub(super) const CLOSED: u8 = 3;

impl Shared {
    pub(super) fn new(io: Io, flushers: &Flushers) -> Self {
        Self {
            condition: AtomicU8::new(OPEN),
            queue: Mutex::new(Queue::new(io, flushers.queued().clone())),
            shard: flushers.shard(),
            is_dirty: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            answers: Mutex::default(),
            requests: AtomicU32::new(0),
        }
    }

    pub(super) fn condition(&self) -> u8 {
        self.condition.load(Ordering::Acquire)
    }

    pub(super) fn check(&self) -> io::Result<()> {
        match self.condition() {
            OPEN => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the server")),
        }
    }

    pub(super) fn end(&self, how: u8) {
        self.condition.fetch_max(how, Ordering::AcqRel);
        self.reader.wake();
        self.writer.wake();
    }

    pub(super) fn close(&self) -> u8 {
        self.condition.swap(CLOSED, Ordering::AcqRel)
    }

    /// Queues frames behind all that wait. False: the stream has ended, and they are dropped.
    pub(super) fn enqueue(self: &Arc<Self>, frames: &[Bytes], mode: WriteMode) -> bool {
        if self.condition() != OPEN {
            return false;
        }
        let mut queue = self.queue.lock();
        if !frames.iter().all(|frame| queue.push(frame.clone())) {
            return false;
        }
        match mode {
            // The owner writes it when the kernel has room.
            _ if queue.is_blocked => {}
            WriteMode::Inline => self.flush(&mut queue),
            WriteMode::Batched => {
                drop(queue);
                if !self.is_dirty.swap(true, Ordering::AcqRel) {
                    self.shard.mark_dirty(self.clone());
                }
            }
        }
        true
    }

    /// Writes the queue of a stream that was marked dirty.
    pub(super) fn flush_dirty(&self) {
        self.is_dirty.store(false, Ordering::Release);
        let mut queue = self.queue.lock();
        if !queue.is_blocked {
            self.flush(&mut queue);
        }
    }

    fn flush(&self, queue: &mut Queue) {
        // The owner meets the same error, and one that finds the queue blocked writes on.
        if queue.try_flush().is_err() || queue.is_blocked {
            queue.is_blocked = true;
            self.reader.wake();
        }
    }
}
