use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// How far the messages of one user's own mailbox were given to their devices: what is in flight now, and what the database does not
/// hold yet.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    /// Each message up to here was proven by a connection, is skipped, or is not for the user. 0: only the database knows.
    pub(super) position: u64,
    /// The position that the database holds, as far as is known.
    written: u64,
    /// Messages that connections were sent and that no connection has proven, by number. As many as `transport::InFlight` allows each.
    in_flight: BTreeMap<u64, Flight>,
    settling: Option<Settling>,
    /// Skipped messages that are not in the database yet.
    pub(super) skipped: BTreeSet<u64>,
    /// Proven messages that the database may still hold as skipped.
    pub(super) cleared: BTreeSet<u64>,
    /// Until then the database keeps its position.
    frozen_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Flight {
    connections: u32,
    /// The message is, or may be, noted as skipped: a proof clears that.
    may_be_skipped: bool,
    /// A connection that was live when the message was published was not sent it. That connection could prove later messages, so once all
    /// others have lost the message it is skipped.
    is_partial: bool,
}

/// Messages up to `to` need no proof of their own: the watermark moves there once it has reached `after` and nothing before `to` is in
/// flight.
#[derive(Debug)]
struct Settling {
    after: u64,
    to: u64,
}

impl Watermark {
    /// A connection was sent a message.
    pub(super) fn sent(&mut self, number: u64, may_be_skipped: bool) {
        let may_be_skipped = may_be_skipped || number <= self.position || self.skipped.contains(&number);
        let flight = self.in_flight.entry(number).or_default();
        flight.connections += 1;
        flight.may_be_skipped |= may_be_skipped;
    }

    /// A connection has proven a message.
    pub(super) fn proven(&mut self, number: u64) {
        if self.in_flight.remove(&number).is_some_and(|flight| flight.may_be_skipped) {
            self.skipped.remove(&number);
            self.cleared.insert(number);
        }
        self.advance(number);
    }

    /// A connection has lost a message.
    pub(super) fn lost(&mut self, number: u64) {
        let Some(flight) = self.in_flight.get_mut(&number) else {
            return;
        };
        flight.connections = flight.connections.saturating_sub(1);
        if flight.connections == 0 {
            let is_partial = flight.is_partial;
            self.in_flight.remove(&number);
            // A connection that joined later was sent the message when it caught up.
            if is_partial {
                self.skip(number);
            }
        }
    }

    /// The publisher, which counts as a connection so far, has sent a message to all who were there, or not.
    pub(super) fn published(&mut self, number: u64, is_partial: bool) {
        if let Some(flight) = self.in_flight.get_mut(&number) {
            flight.is_partial |= is_partial;
        }
        self.lost(number);
    }

    /// A message was sent to no connection, though later ones may be.
    pub(super) fn skip(&mut self, number: u64) {
        if let Some(flight) = self.in_flight.get_mut(&number) {
            flight.may_be_skipped = true;
        }
        // Up to the watermark it is skipped or proven already.
        if number > self.position {
            self.skipped.insert(number);
        }
    }

    /// All messages up to here may become skipped in the database: proofs that come from now on clear that.
    pub(super) fn expect_skips(&mut self, to: u64) {
        self.in_flight.range_mut(..=to).for_each(|(_, flight)| flight.may_be_skipped = true);
    }

    /// The watermark moves on. Messages in flight that it passes are skipped until a proof clears that.
    pub(super) fn advance(&mut self, to: u64) {
        if to > self.position {
            for (number, flight) in self.in_flight.range_mut(self.position + 1..to) {
                flight.may_be_skipped = true;
                self.skipped.insert(*number);
            }
            self.position = to;
        }
        self.try_to_settle();
    }

    /// Messages up to `to` need no proof of their own: they are not for the user, or are gone, or the device has seen them. `after` is the
    /// last message before them that the connection was sent and has not proven; 0: none.
    pub(super) fn settle(&mut self, after: u64, to: u64) {
        let was_lost = after > self.position && !self.in_flight.contains_key(&after);
        if to > self.position && !was_lost {
            self.settling = Some(Settling { after, to });
            self.try_to_settle();
        }
    }

    fn try_to_settle(&mut self) {
        let Some(Settling { after, to }) = self.settling else {
            return;
        };
        let is_free = || self.in_flight.range(self.position + 1..=to).next().is_none();
        if to <= self.position || (after <= self.position && is_free()) {
            self.position = self.position.max(to);
            self.settling = None;
        }
    }

    /// Keeps the database's position as it is for a while.
    pub(super) fn freeze(&mut self, how_long: Duration) {
        self.frozen_until = Some(Instant::now() + how_long);
    }

    /// The position that is to be written, if any.
    pub(super) fn unwritten(&self, now: Instant) -> Option<u64> {
        (self.position > self.written && !self.is_frozen(now)).then_some(self.position)
    }

    /// The database holds this position.
    pub(super) fn written(&mut self, position: u64) {
        self.written = self.written.max(position);
    }

    /// Whether the database knows everything.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let is_written = self.position <= self.written && self.skipped.is_empty() && self.cleared.is_empty();
        is_written && self.in_flight.is_empty() && !self.is_frozen(now)
    }

    fn is_frozen(&self, now: Instant) -> bool {
        self.frozen_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(watermark: &Watermark) -> Vec<u64> {
        watermark.skipped.iter().copied().collect()
    }

    #[test]
    fn what_one_connection_has_proven_another_cannot_lose() {
        let mut watermark = Watermark::default();
        watermark.sent(1, false);
        watermark.sent(1, false);
        watermark.proven(1);
        watermark.lost(1);
        watermark.sent(1, true);
        watermark.sent(2, false);
        watermark.proven(2);
        watermark.lost(1);
        assert_eq!((watermark.position, skipped(&watermark)), (2, vec![]));
    }

    #[test]
    fn a_lost_message_is_skipped_if_a_live_connection_was_not_sent_it() {
        for is_partial in [false, true] {
            let mut watermark = Watermark::default();
            watermark.sent(1, false);
            watermark.sent(1, false);
            watermark.published(1, is_partial);
            assert!(skipped(&watermark).is_empty());
            watermark.lost(1);
            assert_eq!(skipped(&watermark), if is_partial { vec![1] } else { vec![] });
            assert_eq!(watermark.position, 0);
        }
    }

    #[test]
    fn a_tail_is_settled_by_the_proof_of_what_came_before_and_never_past_what_was_lost() {
        let mut watermark = Watermark::default();
        watermark.settle(0, 3);
        assert_eq!(watermark.position, 3, "nothing was in flight");
        watermark.sent(4, true);
        watermark.settle(4, 6);
        assert_eq!(watermark.position, 3);
        watermark.proven(4);
        assert_eq!(watermark.position, 6);
        watermark.sent(7, true);
        watermark.settle(7, 8);
        watermark.lost(7);
        watermark.settle(7, 9);
        assert_eq!(watermark.position, 6, "7 is undelivered");
        watermark.sent(7, true);
        watermark.proven(7);
        assert_eq!(watermark.position, 8);
    }

    #[test]
    fn it_is_idle_once_all_is_written_and_nothing_is_in_flight() {
        let (mut watermark, now) = (Watermark::default(), Instant::now());
        watermark.sent(1, false);
        assert!(!watermark.is_idle(now));
        watermark.proven(1);
        assert_eq!(watermark.unwritten(now), Some(1));
        watermark.written(1);
        assert!(watermark.is_idle(now));
        watermark.freeze(Duration::from_secs(1));
        assert!(!watermark.is_idle(now) && watermark.is_idle(now + Duration::from_mins(1)));
        watermark.advance(2);
        assert_eq!((watermark.unwritten(now), watermark.unwritten(now + Duration::from_mins(1))), (None, Some(2)));
    }
}
