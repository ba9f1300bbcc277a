use std::{io, sync::Arc};

use futures_util::task::AtomicWaker;

use super::{
    Flushers, WriteMode,
    flusher::{Dirty, Shard},
    io::Io,
    queue::Queue,
};
use crate::{
    ledger::Rejected,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
};

/// Learns what became of an answer of the HTTP server. Exactly one of the two is called, once.
pub trait AnswerFate: Send + Sync {
    /// The kernel has taken the whole answer.
    fn taken(&self);

    /// The connection ended before that.
    fn lost(&self);
}

/// What a stream and its handles share.
pub(super) struct Shared {
    condition: AtomicU8,
    pub(super) queue: Mutex<Queue>,
    shard: Arc<Shard>,
    /// What the peer sends is not read, since it takes too little.
    pub(super) is_unread: AtomicBool,
    /// The same, or it was so since [`Handle::note_progress`](super::Handle::note_progress).
    pub(super) was_unread: AtomicBool,
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
            is_unread: AtomicBool::new(false),
            was_unread: AtomicBool::new(false),
            is_dirty: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            answers: Mutex::default(),
            requests: AtomicU32::new(0),
        }
    }

    /// Reads what a delivery, or a flusher, is about to touch.
    pub(super) fn touch(&self) {
        std::hint::black_box((self.condition.load(Ordering::Relaxed), self.is_dirty.load(Ordering::Relaxed)));
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

    /// Puts something into the queue, and has it written.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        mode: WriteMode,
        add: impl FnOnce(&mut Queue) -> Result<(), Rejected>,
    ) -> Result<(), Rejected> {
        if self.condition() != OPEN {
            return Err(Rejected::Ended);
        }
        let mut queue = self.queue.lock();
        add(&mut queue)?;
        match mode {
            // The owner writes it when the kernel has room.
            _ if queue.is_blocked => {}
            WriteMode::Inline => self.flush(&mut queue),
            WriteMode::Batched | WriteMode::Gathered => {
                drop(queue);
                let is_gathered = mode == WriteMode::Gathered;
                if !self.is_dirty.swap(true, Ordering::AcqRel) {
                    self.shard.mark_dirty(self.clone(), is_gathered);
                } else if !is_gathered {
                    self.shard.stop_gathering();
                }
            }
        }
        Ok(())
    }

    fn flush(&self, queue: &mut Queue) {
        // The owner meets the same error, and one that finds the queue blocked writes on.
        if queue.try_flush().is_err() || queue.is_blocked {
            queue.is_blocked = true;
            self.reader.wake();
        }
    }
}

impl Dirty for Shared {
    fn touch(&self) {
        self.touch();
    }

    fn flush_dirty(&self) {
        self.is_dirty.store(false, Ordering::Release);
        let mut queue = self.queue.lock();
        if !queue.is_blocked {
            self.flush(&mut queue);
        }
    }
}
