//! What a session is sent.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::Instant;
use transport::{Bounds, Handle, Ledger, Outgoing, Rejected, Unproven, WriteMode};

use crate::session::{Carrier, SendError, Session, State};

impl Session {
    /// Queues whole frames (see [`crate::frame`]) with nothing between them, behind everything that was queued before.
    pub fn send(&self, frames: &[Bytes], mode: WriteMode) -> Result<(), Rejected> {
        match self.stream.get() {
            Some(stream) => stream.send(frames, mode).map(drop),
            None => self.lock().push(frames, mode).map(drop),
        }
    }

    /// The WebSocket that carries the session, once one does.
    pub fn websocket(&self) -> Option<&Handle> {
        self.stream.get()
    }

    /// The same for a packet that the ledger has to accept, and that its device may have to prove: then a ping follows, or the next poll.
    /// A packet without that may as well go to [`Session::websocket`], once there is one.
    pub fn deliver(&self, outgoing: &Outgoing<'_>, mode: WriteMode) -> Result<(), Rejected> {
        let mut state = self.lock();
        state.deliver(outgoing, mode)?;
        if outgoing.unproven.is_some() {
            self.ping_if_wanted(&mut state, Instant::now());
            self.arm_locked(&state);
        }
        Ok(())
    }

    /// Checks whether a packet of `bytes` bytes would be accepted, for one that the library above queues. Its frames need not be known.
    pub fn check(&self, outgoing: &Outgoing<'_>, bytes: usize) -> Result<(), Rejected> {
        let mut state = self.lock();
        let backlog = state.backlog();
        state.ledger(|ledger| ledger.check(outgoing, bytes, backlog)).map(drop)
    }

    /// Requests proof of what a user of this generation has queued until now. Fails if it has ended: then what
    /// it queued last may be lost.
    pub fn want_proof(&self, generation: u32, unproven: &Arc<dyn Unproven>) -> Result<(), Rejected> {
        let mut state = self.lock();
        state.want_proof(generation, unproven)?;
        self.ping_if_wanted(&mut state, Instant::now());
        self.arm_locked(&state);
        Ok(())
    }

    /// Another device has connected: [`Session::deliver`] accepts its packets, which are of the generation that this returns.
    pub fn reopen(&self) -> u32 {
        self.lock().ledger(Ledger::reopen)
    }

    /// What is not proven never will be: [`Unproven::lost`] is called before this returns. [`Session::deliver`] accepts no packet any more.
    pub fn end_proof(&self) {
        let in_flight = self.lock().ledger(Ledger::end);
        drop(in_flight);
    }

    /// Whether so little waits that the device can be given what it has missed.
    pub fn has_room(&self, bounds: Bounds) -> bool {
        match &self.lock().carrier {
            Carrier::Polling(polling) => polling.has_room(bounds, self.engine.config().max_buffer_size),
            Carrier::WebSocket(stream) => stream.has_room(bounds),
        }
    }

    /// Waits until there is room, as [`Session::has_room`] defines it, on whatever transport, or the session has ended. For one task at a
    /// time: if another polls, the earlier one is woken. Cancel safe.
    pub fn poll_room(&self, cx: &mut Context<'_>, bounds: Bounds) -> Poll<()> {
        match &mut *self.lock() {
            State { closed: Some(_), .. } => Poll::Ready(()),
            State { carrier: Carrier::Polling(polling), .. } => {
                polling.poll_room(cx, bounds, self.engine.config().max_buffer_size)
            }
            State { carrier: Carrier::WebSocket(stream), .. } => stream.poll_room(cx, bounds),
        }
    }

    /// Bytes that were queued and that the kernel, or a poll, has not taken.
    pub fn backlog(&self) -> usize {
        match self.stream.get() {
            Some(stream) => stream.backlog(),
            None => self.lock().backlog(),
        }
    }

    /// Whether the library above may queue a packet.
    pub(crate) fn may_send(&self) -> Result<(), SendError> {
        let state = self.lock();
        match &state.carrier {
            _ if state.closed.is_some() => Err(SendError::Closed),
            Carrier::Polling(polling) if polling.len() >= self.engine.config().max_buffer_size => Err(SendError::Full),
            Carrier::Polling(_) | Carrier::WebSocket(_) => Ok(()),
        }
    }
}

impl State {
    /// Bytes that were queued and that the kernel, or a poll, has not taken.
    pub(crate) fn backlog(&self) -> usize {
        match &self.carrier {
            Carrier::Polling(polling) => polling.bytes(),
            Carrier::WebSocket(stream) => stream.backlog(),
        }
    }

    /// Queues packets. Returns the number of the last one.
    pub(crate) fn push(&mut self, frames: &[Bytes], mode: WriteMode) -> Result<u64, Rejected> {
        match &mut self.carrier {
            _ if self.closed.is_some() => Err(Rejected::Ended),
            Carrier::Polling(polling) => Ok(polling.send(frames)),
            Carrier::WebSocket(stream) => stream.send(frames, mode),
        }
    }

    fn deliver(&mut self, outgoing: &Outgoing<'_>, mode: WriteMode) -> Result<(), Rejected> {
        match &mut self.carrier {
            _ if self.closed.is_some() => Err(Rejected::Ended),
            Carrier::Polling(polling) => polling.deliver(outgoing),
            Carrier::WebSocket(stream) => stream.deliver(outgoing, mode),
        }
    }

    fn want_proof(&mut self, generation: u32, unproven: &Arc<dyn Unproven>) -> Result<(), Rejected> {
        match &mut self.carrier {
            _ if self.closed.is_some() => Err(Rejected::Ended),
            Carrier::Polling(polling) => polling.ledger.want_proof(generation, unproven),
            Carrier::WebSocket(stream) => stream.want_proof(generation, unproven),
        }
    }

    /// Looks at the ledger of what was queued.
    pub(crate) fn ledger<T>(&mut self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        match &mut self.carrier {
            Carrier::Polling(polling) => look(&mut polling.ledger),
            Carrier::WebSocket(stream) => stream.ledger(look),
        }
    }
}
