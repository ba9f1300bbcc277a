use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

#[cfg(test)]
use crate::store::broken::{Rule, is_broken};

/// How soon a device that resumes for the first time comes back if its connection breaks before it is told a position.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// The watermark of one user: what is in flight now, and what the database does not hold yet.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    /// Other nodes write the user's row, too: each proof is written, since another node may note the message as skipped.
    is_shared: bool,
    /// Each message up to here is proven, settled, skipped or gone. 0: only the database knows.
    position: u64,
    /// The position that the database holds, as far as is known.
    written: u64,
    /// Messages that connections were sent and that no connection has proven, by number. As many as `transport::InFlight` allows each.
    in_flight: BTreeMap<u64, Flight>,
    settling: Option<Settling>,
    /// Skipped messages that are not in the database yet.
    skipped: BTreeSet<u64>,
    /// Proven messages that the database may still hold as skipped.
    cleared: BTreeSet<u64>,
    first_resume: Option<FirstResume>,
}

/// The grace of devices that have resumed for the first time lately.
#[derive(Clone, Copy, Debug)]
struct FirstResume {
    /// Where such a device begins.
    begin: u64,
    until: Instant,
}

/// What the database does not hold of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unwritten {
    pub(super) skipped: Vec<u64>,
    /// All skipped messages up to it are in `skipped`, or in the database.
    pub(super) position: Option<u64>,
    pub(super) cleared: Vec<u64>,
    /// There is more.
    pub(super) has_more: bool,
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
    /// Nothing is known of the user. `is_shared`: other nodes write the user's row, too.
    pub(super) fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    /// A connection was sent a message.
    pub(super) fn sent(&mut self, number: u64, may_be_skipped: bool) {
        let may_be_skipped = may_be_skipped || number <= self.position || self.skipped.contains(&number);
        let flight = self.in_flight.entry(number).or_default();
        flight.connections += 1;
        flight.may_be_skipped |= may_be_skipped;
        #[cfg(test)]
        if is_broken(Rule::ProofMovesWatermark) {
            self.advance(number);
        }
    }

    /// A connection has proven a message.
    pub(super) fn proven(&mut self, number: u64) {
        let may_be_skipped_here = self.in_flight.remove(&number).is_some_and(|flight| flight.may_be_skipped);
        if may_be_skipped_here || self.may_be_skipped_elsewhere() {
            self.skipped.remove(&number);
            self.cleared.insert(number);
        }
        self.advance(number);
    }

    fn may_be_skipped_elsewhere(&self) -> bool {
        #[cfg(test)]
        if is_broken(Rule::EachSharedProofIsWritten) {
            return false;
        }
        self.is_shared
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
        #[cfg(test)]
        if is_broken(Rule::SkippedIsNoted) {
            return;
        }
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
        // A range that follows the one before extends it.
        let after = self.settling.as_ref().filter(|settling| settling.to == after).map_or(after, |known| known.after);
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

    /// A device resumes for the first time: begins the grace, or prolongs it. `after`: the watermark. Returns the position after which the
    /// device is given messages, which is the same for all such devices of the grace.
    pub(super) fn begin_first_resume(&mut self, after: u64, now: Instant) -> u64 {
        let begin = match self.first_resume {
            Some(FirstResume { begin, until }) if now < until => begin.min(after),
            Some(_) | None => after,
        };
        self.first_resume = Some(FirstResume { begin, until: now + GRACE });
        begin
    }

    /// Ends the grace if its time has come.
    pub(super) fn end_first_resume(&mut self, now: Instant) {
        self.first_resume = self.first_resume.filter(|grace| now < grace.until);
    }

    /// The position, the skipped messages and the cleared ones, as far as the database may not hold them.
    pub(super) fn known(&self) -> (u64, BTreeSet<u64>, BTreeSet<u64>) {
        (self.position, self.skipped.clone(), self.cleared.clone())
    }

    pub(super) fn cleared(&self) -> &BTreeSet<u64> {
        &self.cleared
    }

    /// At most `max` rows of what is to be written, and one more for the position.
    pub(super) fn unwritten(&self, max: usize) -> Unwritten {
        let skipped: Vec<_> = self.skipped.iter().copied().take(max).collect();
        let has_all_skipped = skipped.len() == self.skipped.len();
        #[cfg(test)]
        let has_all_skipped = has_all_skipped || is_broken(Rule::PositionFollowsSkipped);
        let position = self.has_unwritten_position().then_some(self.position).filter(|_| has_all_skipped);
        let cleared: Vec<_> = self.cleared.iter().copied().take(max - skipped.len()).collect();
        let has_more = !has_all_skipped || cleared.len() < self.cleared.len();
        Unwritten { skipped, position, cleared, has_more }
    }

    /// The database holds this.
    pub(super) fn written(&mut self, unwritten: &Unwritten) {
        for number in &unwritten.skipped {
            self.skipped.remove(number);
        }
        self.written = self.written.max(unwritten.position.unwrap_or_default());
        for number in &unwritten.cleared {
            self.cleared.remove(number);
        }
    }

    /// Whether something is to be written now.
    pub(super) fn is_unwritten(&self) -> bool {
        self.has_unwritten_position() || !self.skipped.is_empty() || !self.cleared.is_empty()
    }

    /// Whether the database knows everything.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_unwritten() && self.in_flight.is_empty() && self.first_resume.is_none()
    }

    /// During the grace the database keeps its position.
    fn has_unwritten_position(&self) -> bool {
        self.position > self.written && self.first_resume.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(watermark: &Watermark) -> Vec<u64> {
        watermark.skipped.iter().copied().collect()
    }

    #[test]
    fn what_is_settled_after_what_is_not_settled_yet_follows_it() {
        let mut watermark = Watermark::default();
        watermark.proven(1);
        watermark.sent(2, false);
        // The user's own messages 3 to 5, before 2 is proven.
        for number in 3..=5 {
            watermark.settle(number - 1, number);
        }
        assert_eq!(watermark.position, 1);
        watermark.proven(2);
        assert_eq!((watermark.position, skipped(&watermark)), (5, vec![]));
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
        let mut watermark = Watermark::default();
        watermark.sent(1, false);
        assert!(!watermark.is_idle() && !watermark.is_unwritten());
        watermark.proven(1);
        let unwritten = watermark.unwritten(10);
        assert_eq!(unwritten, Unwritten { position: Some(1), ..Unwritten::default() });
        watermark.written(&unwritten);
        assert!(watermark.is_idle());
    }

    #[test]
    fn devices_that_resume_for_the_first_time_begin_at_one_place_and_freeze_the_written_position_for_the_grace() {
        let (mut watermark, now) = (Watermark::default(), Instant::now());
        watermark.advance(3);
        assert_eq!(watermark.begin_first_resume(3, now), 3);
        watermark.advance(9);
        assert_eq!(watermark.begin_first_resume(9, now + GRACE / 2), 3);
        assert!(!watermark.is_unwritten() && !watermark.is_idle());
        watermark.end_first_resume(now + GRACE);
        assert!(!watermark.is_unwritten(), "the second one has prolonged it");
        assert_eq!(watermark.begin_first_resume(9, now + GRACE * 2), 9, "the grace is over");
        watermark.end_first_resume(now + GRACE * 3);
        assert_eq!(watermark.unwritten(1).position, Some(9));
    }

    #[test]
    fn the_position_is_written_with_the_last_of_the_skipped_messages_that_it_has_passed() {
        let mut watermark = Watermark::default();
        (1..=5).for_each(|number| watermark.sent(number, false));
        watermark.proven(5);
        let first = watermark.unwritten(3);
        assert_eq!((&*first.skipped, first.position, first.has_more), (&[1, 2, 3][..], None, true));
        watermark.written(&first);
        watermark.proven(2);
        let second = watermark.unwritten(3);
        assert_eq!((&*second.skipped, second.position, &*second.cleared), (&[4][..], Some(5), &[2][..]));
        assert!(!second.has_more);
    }
}
