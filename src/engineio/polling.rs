use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::time::Instant;
use transport::{Bounds, FRAME_COST, Ledger, Outgoing, QueuedBytes, Rejected};

/// The queue of a session that polls.
pub(crate) struct Polling {
    pub(crate) ledger: Ledger,
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// A poll is being answered.
    pub(crate) is_answering: bool,
    /// Wakes the poll that waits for packets.
    pub(crate) held: Option<Waker>,
    /// What the last poll was answered, until it is known whether the kernel has taken it.
    answer: Option<Answer>,
    answers: u64,
    /// Wakes an upgrade that waits for the fate of the answer, or for the end of a POST.
    pub(crate) switching: Option<Waker>,
    /// The last packet of the answers that the kernel has taken.
    pub(crate) fetched: u64,
    /// A POST is being received.
    pub(crate) is_posting: bool,
    /// The held poll is to be answered though nothing waits.
    pub(crate) is_released: bool,
    /// When the last poll ended, or the session began.
    pub(crate) last_polled: Instant,
    total: Arc<QueuedBytes>,
}

struct Answer {
    id: u64,
    frames: Vec<Bytes>,
    /// The number of the last packet in it.
    last: u64,
}

impl Polling {
    pub(crate) fn new(total: Arc<QueuedBytes>) -> Self {
        Self {
            ledger: Ledger::default(),
            waiting: VecDeque::new(),
            bytes: 0,
            is_answering: false,
            held: None,
            answer: None,
            answers: 0,
            switching: None,
            fetched: 0,
            is_posting: false,
            is_released: false,
            last_polled: Instant::now(),
            total,
        }
    }

    /// Bytes that the device has not fetched.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether so little waits that the device can be given what it has missed, and fewer than `max_packets`.
    pub(crate) fn has_room(&self, bounds: Bounds, max_packets: usize) -> bool {
        self.waiting.len() < max_packets && self.ledger.has_room(self.bytes, bounds)
    }

    /// Waits for that, or for the ledger's end.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>, bounds: Bounds, max_packets: usize) -> Poll<()> {
        if self.ledger.is_sealed() || self.has_room(bounds, max_packets) {
            return Poll::Ready(());
        }
        self.ledger.await_room(cx.waker(), bounds);
        Poll::Pending
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Queues packets. Returns the number of the last one.
    pub(crate) fn send(&mut self, frames: &[Bytes]) -> u64 {
        self.push(frames);
        self.ledger.count(frames.len())
    }

    /// Queues a packet, if the ledger accepts it.
    pub(crate) fn deliver(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Rejected> {
        self.ledger.enter(outgoing, self.bytes)?;
        self.push(outgoing.frames);
        Ok(())
    }

    fn push(&mut self, frames: &[Bytes]) {
        for frame in frames {
            self.bytes += frame.len();
            self.total.add(frame.len() + FRAME_COST);
            self.waiting.push_back(frame.clone());
        }
        self.wake();
    }

    /// Whether an answer is on its way whose fate is not known.
    pub(crate) fn is_settling(&self) -> bool {
        self.answer.is_some()
    }

    /// Takes packets for an answer: one at least, and no more than `max_bytes` of several. Gives the answer's id with
    /// them.
    pub(crate) fn take(&mut self, max_bytes: usize) -> (u64, Vec<Bytes>) {
        let mut sum = 0;
        let fits = |frame: &&Bytes| {
            sum += frame.len();
            sum <= max_bytes
        };
        let count = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        let frames: Vec<_> = self.waiting.drain(..count).collect();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        self.answers += 1;
        let last = self.ledger.queued() - self.waiting.len() as u64;
        self.answer = Some(Answer { id: self.answers, frames: frames.clone(), last });
        (self.answers, frames)
    }

    /// An answer was taken by the kernel whole, or was lost: then its packets go back to the front. False: it is not the last answer.
    pub(crate) fn settle(&mut self, id: u64, is_taken: bool) -> bool {
        let Some(answer) = self.answer.take_if(|answer| answer.id == id) else {
            return false;
        };
        if is_taken {
            self.fetched = answer.last;
            self.forget(&answer.frames);
        } else {
            answer.frames.into_iter().rev().for_each(|frame| self.waiting.push_front(frame));
        }
        self.wake();
        self.wake_switching();
        true
    }

    /// Takes all that was not fetched, in order.
    pub(crate) fn drain(&mut self) -> Vec<Bytes> {
        let frames: Vec<_> = std::mem::take(&mut self.waiting).into();
        self.forget(&frames);
        frames
    }

    fn forget(&mut self, frames: &[Bytes]) {
        let bytes = frames.iter().map(Bytes::len).sum::<usize>();
        self.bytes -= bytes;
        self.total.remove(bytes + frames.len() * FRAME_COST);
        self.ledger.drained(self.bytes);
    }

    pub(crate) fn wake_switching(&mut self) {
        if let Some(switching) = self.switching.take() {
            switching.wake();
        }
    }

    /// Wakes the held poll.
    pub(crate) fn wake(&mut self) {
        if let Some(held) = self.held.take() {
            held.wake();
        }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let answered = self.answer.as_ref().map_or(0, |answer| answer.frames.len());
        self.total.remove(self.bytes + (self.waiting.len() + answered) * FRAME_COST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polling(frames: &[&'static str]) -> Polling {
        let mut polling = Polling::new(QueuedBytes::new(u64::MAX));
        for frame in frames {
            polling.send(&[Bytes::from_static(frame.as_bytes())]);
        }
        polling
    }

    #[test]
    fn an_answer_holds_what_fits_and_one_packet_at_least() {
        let mut polling = polling(&["aaaa", "bb", "cc", "dd"]);
        assert_eq!(polling.take(3).1, ["aaaa"]);
        assert!(polling.settle(1, true));
        assert_eq!(polling.take(4).1, ["bb", "cc"]);
        assert_eq!(polling.bytes(), 6, "what is on its way is not fetched");
        assert!(polling.settle(2, true));
        assert_eq!((polling.fetched, polling.bytes()), (3, 2));
    }

    #[test]
    fn a_lost_answer_goes_back_to_the_front() {
        let mut polling = polling(&["a", "b", "c"]);
        let (id, _) = polling.take(2);
        polling.send(&[Bytes::from_static(b"d")]);
        assert!(polling.settle(id, false) && !polling.settle(id, true));
        assert_eq!(polling.fetched, 0);
        assert_eq!(polling.drain(), ["a", "b", "c", "d"]);
        assert_eq!(polling.total.total(), 0);
    }
}
