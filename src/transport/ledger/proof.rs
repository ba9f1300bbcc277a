/// What is known of what a device has received, by the pongs of pings that were sent behind it. Packets are counted from 1, in the order in which they were queued.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Packets that were queued.
    queued: u64,
    /// The device has all packets up to this one.
    proven: u64,
    /// The last packet that its sender wants proven.
    wanted: u64,
    ping: Option<Ping>,
    /// Numbers the pings of a WebSocket.
    pings: u64,
    /// Bytes of the stream that the kernel had taken when that was noted last.
    taken: u64,
}

/// A ping that waits for its pong. There is one at most, whatever it was sent for.
#[derive(Clone, Copy, Debug)]
struct Ping {
    id: u64,
    /// Its pong proves the packets up to this one.
    covers: u64,
    /// Where it ends in the bytes that were ever queued on the stream.
    end: u64,
}

impl Proof {
    /// Counts packets that were queued, and gives the number of the last one.
    pub(super) fn queue(&mut self, count: usize) -> u64 {
        self.queued += count as u64;
        self.queued
    }

    /// The device has all packets up to this one.
    pub(super) fn proven(&self) -> u64 {
        self.proven
    }

    /// Packets that were queued.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// The last packet that was queued is to be proven.
    pub(super) fn want(&mut self) {
        self.wanted = self.queued;
    }

    /// Whether a ping is to be sent for what is wanted.
    pub(super) fn needs_ping(&self) -> bool {
        self.wanted > self.proven && self.ping.is_none()
    }

    /// Whether a ping waits for its pong.
    pub(super) fn has_ping(&self) -> bool {
        self.ping.is_some()
    }

    /// Registers a ping that is queued next, and gives its id.
    pub(super) fn ping(&mut self) -> u64 {
        self.pings += 1;
        self.ping = Some(Ping { id: self.pings, covers: self.queued, end: u64::MAX });
        self.pings
    }

    /// The ping has been queued on a stream: it ends there in the bytes that were ever queued.
    pub(super) fn ping_queued(&mut self, end: u64) {
        if let Some(ping) = &mut self.ping {
            ping.end = end;
        }
    }

    /// Notes how many bytes of the stream the kernel has taken. True: more than when this was noted last, and the ping had not left then, or
    /// `was_unread`, and its pong may wait to be read. Then the device may be slow, and is not gone.
    pub(super) fn note_progress(&mut self, taken: u64, was_unread: bool) -> bool {
        let before = std::mem::replace(&mut self.taken, taken);
        let had_left = self.ping.is_none_or(|ping| ping.end <= before);
        taken > before && (was_unread || !had_left)
    }

    /// Takes the pong of the ping with this id; of any if the pong names none. Gives what is newly proven.
    pub(super) fn pong(&mut self, id: Option<u64>) -> Option<u64> {
        let ping = self.ping.take_if(|ping| id.is_none_or(|id| id == ping.id))?;
        self.prove(ping.covers)
    }

    /// The device has the packets up to this one.
    pub(super) fn prove(&mut self, upto: u64) -> Option<u64> {
        (upto > self.proven).then(|| {
            self.proven = upto;
            upto
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_proves_what_was_queued_before_its_ping_and_no_more() {
        let mut proof = Proof::default();
        assert_eq!(proof.queue(2), 2);
        proof.want();
        assert!(proof.needs_ping());
        let first = proof.ping();
        assert_eq!(proof.queue(1), 3, "behind the ping");
        proof.want();
        assert!(!proof.needs_ping(), "one ping is on its way");
        assert_eq!(proof.pong(Some(first)), Some(2));
        assert!(proof.needs_ping(), "the third packet is not proven");
        proof.ping();
        assert_eq!(proof.pong(None), Some(3));
        assert!(!proof.needs_ping());
    }

    #[test]
    fn a_pong_that_answers_no_ping_proves_nothing() {
        let mut proof = Proof::default();
        proof.queue(1);
        proof.want();
        assert_eq!(proof.pong(None), None);
        let id = proof.ping();
        assert_eq!(proof.pong(Some(id + 1)), None);
        assert!(proof.has_ping());
        assert_eq!(proof.pong(Some(id)), Some(1));
        assert_eq!(proof.pong(Some(id)), None);
    }

    #[test]
    fn a_ping_that_waits_in_the_queue_has_its_time_from_when_it_left() {
        let mut proof = Proof::default();
        proof.ping();
        proof.ping_queued(100);
        // As after the ping was queued.
        proof.note_progress(20, false);
        assert!(proof.note_progress(60, false), "it is on its way");
        assert!(!proof.note_progress(60, false), "nothing moves");
        assert!(proof.note_progress(100, false), "it has left since the last look");
        assert!(!proof.note_progress(200, false), "it had left by then");
    }

    #[test]
    fn what_is_not_read_is_not_silent_while_something_moves() {
        let mut proof = Proof::default();
        proof.ping();
        proof.ping_queued(10);
        proof.note_progress(10, false);
        assert!(!proof.note_progress(20, false));
        assert!(proof.note_progress(30, true));
        assert!(!proof.note_progress(30, true), "nothing moves");
        proof.pong(None);
        assert!(proof.note_progress(40, true), "Engine.IO 3 has no ping of the server");
    }

    #[test]
    fn a_heartbeat_is_a_ping_for_the_proof_too() {
        let mut proof = Proof::default();
        proof.ping();
        proof.queue(1);
        proof.want();
        assert!(!proof.needs_ping());
        assert_eq!(proof.pong(None), None, "the heartbeat went before the packet");
        assert!(proof.needs_ping());
    }

    #[test]
    fn a_poll_proves_what_earlier_answers_carried() {
        let mut proof = Proof::default();
        proof.queue(5);
        assert_eq!(proof.prove(3), Some(3));
        assert_eq!(proof.prove(3), None);
        assert_eq!(proof.prove(2), None);
        assert_eq!(proof.prove(5), Some(5));
    }
}
