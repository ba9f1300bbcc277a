use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;

use super::{
    flusher::{Flushers, Share},
    outbox::Outbox,
};

/// What a stream and its handles share.
pub(super) struct State {
    pub(super) written: AtomicU64,
    /// How much may still be read.
    pub(super) readable: AtomicU64,
    pub(super) condition: AtomicU8,
    pub(super) outbox: Mutex<Outbox>,
    pub(super) share: Arc<Share>,
    /// The share knows that the outbox has something new.
    pub(super) is_noted: AtomicBool,
    /// The kernel does not take what waits in the outbox: whoever reads from the stream, or writes into it next, sees to it that it
    /// goes out.
    pub(super) is_held_up: AtomicBool,
    // Reader and writer are different tasks: a cut has to wake both, above all a writer that waits for a device that
    // has stopped reading.
    pub(super) reader: AtomicWaker,
    pub(super) writer: AtomicWaker,
    pub(super) at_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

pub(super) const OPEN: u8 = 0;
/// What the kernel holds is still sent.
pub(super) const CUT: u8 = 1;
/// What the kernel holds is thrown away (RST), so that a stalled device costs nothing more.
pub(super) const ABORTED: u8 = 2;
pub(super) const CLOSED: u8 = 3;

impl State {
    pub(super) fn new(outbox: OwnedWriteHalf, flushers: &Flushers) -> Self {
        Self {
            written: AtomicU64::new(0),
            readable: AtomicU64::new(u64::MAX),
            condition: AtomicU8::new(OPEN),
            outbox: Mutex::new(Outbox::new(outbox)),
            share: flushers.share(),
            is_noted: AtomicBool::new(false),
            is_held_up: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            at_end: Mutex::default(),
        }
    }

    /// Has the outbox flushed soon.
    pub(super) fn note(self: &Arc<Self>) {
        if !self.is_noted.swap(true, Ordering::AcqRel) {
            self.share.put(self.clone());
        }
    }

    pub(super) fn end(&self, how: u8) {
        self.condition.fetch_max(how, Ordering::AcqRel);
        self.reader.wake();
        self.writer.wake();
    }

    pub(super) fn check(&self) -> io::Result<()> {
        match self.condition.load(Ordering::Acquire) {
            OPEN => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the server")),
        }
    }

    pub(super) fn has_ended(&self) {
        let act = self.at_end.lock().take();
        if let Some(act) = act {
            act();
        }
    }

    pub(super) fn count(&self, written: usize) {
        self.written.fetch_add(written as u64, Ordering::AcqRel);
    }

    /// Writes what waits in the outbox, which was noted.
    pub(super) fn flush_noted(&self) {
        self.is_noted.store(false, Ordering::Release);
        self.flush(&mut self.outbox.lock());
    }

    /// Writes what waits in the outbox.
    pub(super) fn flush(&self, outbox: &mut Outbox) {
        // The owner finds out, too, if the stream has failed.
        let _ = self.write_or_hold_up(outbox);
    }

    /// Writes what waits in the outbox, unless the owner is in the middle of a frame; what cannot be written now is left to the
    /// stream's owner.
    /// Says whether the owner may write.
    pub(super) fn write_or_hold_up(&self, outbox: &mut Outbox) -> io::Result<bool> {
        if !outbox.is_waiting() {
            return Ok(true);
        }
        let is_in_frame = !outbox.may_go_out();
        if !is_in_frame && self.write_out(outbox)? {
            return Ok(true);
        }
        self.is_held_up.store(true, Ordering::Release);
        self.reader.wake();
        Ok(is_in_frame)
    }

    /// Writes what the kernel takes of it. Whether that was all.
    pub(super) fn write_out(&self, outbox: &mut Outbox) -> io::Result<bool> {
        while outbox.is_waiting() {
            let written = outbox.flush()?;
            if written == 0 {
                return Ok(false);
            }
            self.count(written);
        }
        self.is_held_up.store(false, Ordering::Release);
        self.writer.wake();
        Ok(true)
    }
}
