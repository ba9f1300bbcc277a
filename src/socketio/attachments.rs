use std::time::Duration;

use transport::Part;

/// Attachments that one packet may announce. Bugle has no use for them: an event with attachments is handled without its argument.
const MAX_ATTACHMENTS: usize = 16;
/// The time in which all attachments of a packet have to arrive.
pub(super) const COMPLETE_WITHIN: Duration = Duration::from_mins(1);

/// The attachments of a binary packet that have not arrived.
#[derive(Default)]
pub(super) struct Attachments {
    left: usize,
    bytes: usize,
    /// Counts them among what has not arrived whole.
    pub(super) part: Option<Part>,
}

/// What is next after a packet or an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More attachments follow.
    Incomplete,
    /// The packet is complete.
    Complete,
    /// The packet has too many attachments, or too large ones.
    TooMuch,
    /// The attachment was not announced.
    Unannounced,
}

impl Attachments {
    /// Begins a packet of `bytes` bytes that announces attachments.
    pub(super) fn announce(&mut self, count: usize, bytes: usize) -> Progress {
        // What is left of an earlier packet ends with it.
        (self.left, self.bytes) = (count, bytes);
        match count {
            0 => Progress::Complete,
            count if count > MAX_ATTACHMENTS => Progress::TooMuch,
            _ => Progress::Incomplete,
        }
    }

    /// Takes how many bytes there are of a packet whose attachments have not all arrived, and what counts them.
    pub(super) fn held(&mut self) -> (usize, Option<Part>) {
        (if self.left == 0 { 0 } else { self.bytes }, self.part.take())
    }

    /// Takes an attachment. `max_bytes`: of the packet with all its attachments.
    pub(super) fn take(&mut self, bytes: usize, max_bytes: usize) -> Progress {
        if self.left == 0 {
            return Progress::Unannounced;
        }
        self.left -= 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > max_bytes {
            Progress::TooMuch
        } else if self.left == 0 {
            Progress::Complete
        } else {
            Progress::Incomplete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_and_its_attachments_have_one_bound_together() {
        let mut attachments = Attachments::default();
        assert_eq!(attachments.announce(3, 100), Progress::Incomplete);
        assert_eq!(attachments.take(400, 1_000), Progress::Incomplete);
        assert_eq!(attachments.take(500, 1_000), Progress::Incomplete);
        assert_eq!(attachments.take(1, 1_000), Progress::TooMuch);
        assert_eq!(attachments.announce(1, 0), Progress::Incomplete);
        assert_eq!(attachments.take(1_000, 1_000), Progress::Complete);
        assert_eq!(attachments.take(1, 1_000), Progress::Unannounced);
    }

    #[test]
    fn the_number_of_attachments_is_bounded_when_they_are_announced() {
        let mut attachments = Attachments::default();
        assert_eq!(attachments.announce(MAX_ATTACHMENTS, 0), Progress::Incomplete);
        assert_eq!(attachments.announce(MAX_ATTACHMENTS + 1, 0), Progress::TooMuch);
        assert_eq!(attachments.announce(usize::MAX, 0), Progress::TooMuch);
        assert_eq!(attachments.announce(0, 0), Progress::Complete);
    }
}
