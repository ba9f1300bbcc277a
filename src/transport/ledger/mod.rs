//! What one connection was given: how much of its backlog counts, and what its device has proven to have. It stands under the lock of
//! the connection's queue, so that a packet's number is its place in that queue.

mod bounds;
pub use bounds::Bounds;

mod in_flight;
pub use in_flight::{InFlight, Unproven};

mod proof;

mod waiter;

use std::{sync::Arc, task::Waker};

use bytes::Bytes;

use self::{proof::Proof, waiter::Waiter};

/// What the server has missed to send may take up this part of a queue: the rest is for live events.
const REPLAY_SHARE: usize = 4;

/// The packets of one connection, counted from 1 in the order in which they were queued.
#[derive(Debug, Default)]
pub struct Ledger {
    proof: Proof,
    in_flight: InFlight,
    /// Of the backlog, at most this many bytes are exempt from [`Bounds::queue_bytes`].
    exempt: usize,
    /// Counts the users of the connection, one after the other: each has packets of its own generation accepted.
    generation: u32,
    /// No packet is accepted any more. Those that are counted without a check still go out.
    is_sealed: bool,
    /// The task that waits for room: it is woken as soon as there is some.
    waiter: Option<Box<Waiter>>,
}

/// One packet for one connection.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its frames, which go out with nothing between them.
    pub frames: &'a [Bytes],
    /// The generation of its sender: see [`Ledger::reopen`].
    pub generation: u32,
    /// The packet was there before its device: that it waits does not make the device slow.
    pub is_exempt: bool,
    /// No packet is accepted after this one, whether it is accepted or not.
    pub is_last: bool,
    /// Learns whether the device has received the packet.
    pub unproven: Option<&'a Arc<dyn Unproven>>,
    /// What may wait for the connection.
    pub bounds: Bounds,
}

/// Why a connection does not accept a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Too much waits for the device already.
    Full,
    /// The connection has ended, or was sealed.
    Ended,
}

/// What a pong means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pong {
    /// It answers the ping that was waiting.
    pub is_answer: bool,
    /// Packets behind that ping are to be proven: another one is due.
    pub needs_ping: bool,
}

impl Outgoing<'_> {
    /// Bytes of its frames.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

impl Ledger {
    /// Checks whether a packet may be queued behind `backlog` bytes, and notes it as queued. The caller queues it under the same lock.
    pub fn enter(&mut self, outgoing: &Outgoing<'_>, backlog: usize) -> Result<(), Rejected> {
        let bytes = outgoing.bytes();
        let checked = self.check(outgoing, bytes, backlog);
        if outgoing.is_last && outgoing.generation == self.generation {
            self.is_sealed = true;
            self.wake();
        }
        let is_exempt = checked?;
        self.exempt += if is_exempt { bytes } else { 0 };
        let number = self.count(outgoing.frames.len());
        if let Some(unproven) = outgoing.unproven {
            self.note_unproven(number, unproven);
        }
        Ok(())
    }

    /// Checks whether a packet of `bytes` bytes may be queued behind `backlog` bytes. Returns whether it is exempt from the bound.
    pub fn check(&mut self, outgoing: &Outgoing<'_>, bytes: usize, backlog: usize) -> Result<bool, Rejected> {
        if self.is_sealed || outgoing.generation != self.generation {
            return Err(Rejected::Ended);
        }
        self.exempt = self.exempt.min(backlog);
        let Outgoing { is_exempt, unproven, bounds, .. } = outgoing;
        let is_exempt = *is_exempt && self.exempt.saturating_add(bytes) <= bounds.exempt_bytes;
        let is_full = !is_exempt && backlog > bounds.queue_bytes.saturating_add(self.exempt);
        if is_full || (unproven.is_some() && self.in_flight.is_full()) {
            return Err(Rejected::Full);
        }
        Ok(is_exempt)
    }

    /// Counts packets that were queued without a check. Returns the number of the last one.
    pub fn count(&mut self, packets: usize) -> u64 {
        self.proof.queue(packets)
    }

    /// Packets that were queued.
    pub fn queued(&self) -> u64 {
        self.proof.queued()
    }

    /// Requests proof of what a user of this generation has queued until now.
    pub fn want_proof(&mut self, generation: u32, unproven: &Arc<dyn Unproven>) -> Result<(), Rejected> {
        if self.is_sealed || generation != self.generation {
            return Err(Rejected::Ended);
        }
        self.note_unproven(self.queued(), unproven);
        Ok(())
    }

    fn note_unproven(&mut self, number: u64, unproven: &Arc<dyn Unproven>) {
        self.in_flight.push(number, unproven);
        self.proof.want();
        // The device may have proven the packet before anybody asked.
        self.prove_in_flight(self.proof.proven());
    }

    fn prove_in_flight(&mut self, upto: u64) {
        let had_room = self.in_flight.has_room();
        self.in_flight.prove(upto);
        if !had_room && self.in_flight.has_room() {
            // Whether the backlog leaves room is for the task to look.
            self.wake();
        }
    }

    /// Whether so little waits that the device can be given what it has missed.
    pub fn has_room(&self, backlog: usize, bounds: Bounds) -> bool {
        self.in_flight.has_room() && backlog <= (bounds.queue_bytes / REPLAY_SHARE).saturating_add(self.exempt)
    }

    /// Has a task woken once there is room, as [`Ledger::has_room`] defines it, or the ledger has ended. The caller has found no room under
    /// the lock that it holds, and calls [`Ledger::drained`] whenever the backlog has become smaller. For one task: an earlier one is woken.
    pub fn await_room(&mut self, waker: &Waker, bounds: Bounds) {
        match &mut self.waiter {
            Some(waiter) if waiter.is_of(waker) => waiter.bounds = bounds,
            waiter => *waiter = Some(Box::new(Waiter::new(waker.clone(), bounds))),
        }
    }

    /// The backlog has become smaller: wakes the task that waits for room if there is some.
    pub fn drained(&mut self, backlog: usize) {
        if self.waiter.as_ref().is_some_and(|waiter| self.has_room(backlog, waiter.bounds)) {
            self.wake();
        }
    }

    /// Wakes the task that waits for room, if there is one.
    pub fn wake(&mut self) {
        self.waiter = None;
    }

    /// Whether no packet is accepted any more.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Accepts the packets of a new generation, which this returns, and no others. The first is 0.
    pub fn reopen(&mut self) -> u32 {
        self.is_sealed = false;
        self.wake();
        self.generation += 1;
        self.generation
    }

    /// Ends: what is not proven never will be. The caller drops what this returns without a lock.
    #[must_use]
    pub fn end(&mut self) -> InFlight {
        self.is_sealed = true;
        self.wake();
        std::mem::take(&mut self.in_flight)
    }

    /// Whether a ping is to be sent for packets that are to be proven.
    pub fn needs_ping(&self) -> bool {
        self.proof.needs_ping()
    }

    /// Whether a ping waits for its pong.
    pub fn has_ping(&self) -> bool {
        self.proof.has_ping()
    }

    /// Registers a ping that is queued next, and gives its id.
    pub fn ping(&mut self) -> u64 {
        self.proof.ping()
    }

    /// The ping has been queued on a stream: it ends there in the bytes that were ever queued.
    pub(crate) fn ping_queued(&mut self, end: u64) {
        self.proof.ping_queued(end);
    }

    /// See [`Handle::note_progress`](crate::Handle::note_progress).
    pub(crate) fn note_progress(&mut self, taken: u64, was_unread: bool) -> bool {
        self.proof.note_progress(taken, was_unread)
    }

    /// Takes the pong of the ping with this id; of any if the pong names none.
    pub fn pong(&mut self, id: Option<u64>) -> Pong {
        let had_ping = self.proof.has_ping();
        if let Some(upto) = self.proof.pong(id) {
            self.prove_in_flight(upto);
        }
        Pong { is_answer: had_ping && !self.proof.has_ping(), needs_ping: self.proof.needs_ping() }
    }

    /// The device has the packets up to this one.
    pub fn prove(&mut self, upto: u64) {
        if let Some(upto) = self.proof.prove(upto) {
            self.prove_in_flight(upto);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    const BOUNDS: Bounds = Bounds { queue_bytes: 100, exempt_bytes: 1_000 };

    fn outgoing(frames: &[Bytes], is_exempt: bool) -> Outgoing<'_> {
        Outgoing { frames, generation: 0, is_exempt, is_last: false, unproven: None, bounds: BOUNDS }
    }

    #[test]
    fn exempt_packets_do_not_count_towards_the_bound_until_they_have_left() {
        let (large, small) = ([Bytes::from_static(&[0; 900])], [Bytes::from_static(&[0; 10])]);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.enter(&outgoing(&large, true), 0), Ok(()));
        assert_eq!(ledger.enter(&outgoing(&small, false), 900), Ok(()), "the backlog is exempt");
        assert_eq!(ledger.enter(&outgoing(&small, false), 1_001), Err(Rejected::Full));
        assert_eq!(ledger.enter(&outgoing(&large, true), 1_000), Ok(()), "within the bound, exempt or not");
        assert_eq!(ledger.enter(&outgoing(&small, false), 50), Ok(()));
        assert_eq!(ledger.enter(&outgoing(&small, false), 151), Err(Rejected::Full), "they have left");
    }

    #[test]
    fn no_packet_is_accepted_after_the_last_one_even_if_that_was_not() {
        let frames = [Bytes::from_static(b"a")];
        for (backlog, accepted) in [(0, Ok(())), (101, Err(Rejected::Full))] {
            let mut ledger = Ledger::default();
            let last = Outgoing { is_last: true, ..outgoing(&frames, false) };
            assert_eq!(ledger.enter(&last, backlog), accepted);
            assert_eq!(ledger.enter(&outgoing(&frames, false), 0), Err(Rejected::Ended));
        }
    }

    #[test]
    fn packets_of_an_earlier_generation_are_not_accepted() {
        let frames = [Bytes::from_static(b"a")];
        let mut ledger = Ledger::default();
        drop(ledger.end());
        let generation = ledger.reopen();
        let late = Outgoing { is_last: true, ..outgoing(&frames, false) };
        assert_eq!(ledger.enter(&late, 0), Err(Rejected::Ended));
        assert_eq!(ledger.enter(&Outgoing { generation, ..outgoing(&frames, false) }, 0), Ok(()));
    }

    #[test]
    fn nobody_has_proven_what_has_ended() {
        let unproven: Arc<dyn Unproven> = Arc::new(Never);
        let mut ledger = Ledger::default();
        drop(ledger.end());
        assert_eq!(ledger.want_proof(0, &unproven), Err(Rejected::Ended), "it was sealed");
        let generation = ledger.reopen();
        assert_eq!(ledger.want_proof(0, &unproven), Err(Rejected::Ended), "it is another's");
        assert_eq!(ledger.want_proof(generation + 1, &unproven), Err(Rejected::Ended));
        assert!(!ledger.needs_ping());
    }

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    #[test]
    fn a_task_that_waits_for_room_is_woken_once_when_there_is_some() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut ledger = Ledger::default();
        ledger.await_room(&waker, BOUNDS);
        ledger.drained(26);
        assert_eq!(woken.take(), 0, "more than a quarter of the bound waits");
        ledger.await_room(&waker, BOUNDS);
        assert_eq!(woken.take(), 0, "it is the same task");
        ledger.drained(25);
        ledger.drained(0);
        assert_eq!(woken.take(), 1);
    }

    #[test]
    fn a_task_that_waits_for_room_is_woken_when_the_ledger_ends_or_is_lost_or_another_task_waits() {
        let frames = [Bytes::from_static(b"a")];
        let last = Outgoing { is_last: true, ..outgoing(&frames, false) };
        let ends: [fn(&mut Ledger, &Outgoing<'_>); 5] = [
            |ledger, _| drop(ledger.end()),
            |ledger, last| ledger.enter(last, 0).unwrap(),
            |ledger, _| *ledger = Ledger::default(),
            |ledger, _| _ = ledger.reopen(),
            |ledger, _| ledger.await_room(Waker::noop(), BOUNDS),
        ];
        for end in ends {
            let woken = Arc::new(Woken::default());
            let mut ledger = Ledger::default();
            ledger.await_room(&Waker::from(woken.clone()), BOUNDS);
            end(&mut ledger, &last);
            assert_eq!(woken.take(), 1);
        }
    }

    #[test]
    fn a_task_that_waits_for_proofs_is_woken_by_the_one_that_makes_room() {
        let (woken, unproven): (_, Arc<dyn Unproven>) = (Arc::new(Woken::default()), Arc::new(Silent));
        let (frames, mut ledger, mut sent) = ([Bytes::from_static(b"a")], Ledger::default(), 0);
        while ledger.has_room(0, BOUNDS) {
            ledger.enter(&Outgoing { unproven: Some(&unproven), ..outgoing(&frames, false) }, 0).unwrap();
            sent += 1;
        }
        ledger.await_room(&Waker::from(woken.clone()), BOUNDS);
        ledger.drained(0);
        assert_eq!(woken.take(), 0, "as many as may be are in flight");
        ledger.prove(1);
        assert_eq!((woken.take(), ledger.has_room(0, BOUNDS)), (1, true), "after {sent}");
    }

    struct Silent;

    impl Unproven for Silent {
        fn sent(&self) {}

        fn proven(&self) {}

        fn lost(&self) {}
    }

    struct Never;

    impl Unproven for Never {
        fn sent(&self) {
            panic!("it was registered");
        }

        fn proven(&self) {}

        fn lost(&self) {}
    }
}
