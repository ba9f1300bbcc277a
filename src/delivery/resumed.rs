use serde::Serialize;
use tokio::time::Instant;

use crate::hub::SentLive;
use crate::message::Position;

/// From where on a connection has missed what was kept.
pub(super) enum ReplayFrom {
    /// What was given to none of the user's connections, and what came since it joined.
    Watermark(Joined),
    /// What came after the last position that the device has seen.
    Position(Position),
}

/// When a connection joined its room.
#[derive(Clone, Copy)]
pub(super) enum Joined {
    /// When the room was published up to there.
    At(u64),
    /// At this time: it was not known where the room stands.
    Unknown(Instant),
}

/// Where the log of a room stands.
pub(super) enum Standing {
    /// The room has no log.
    NoLog,
    /// It is in the store, and was not read yet.
    Unknown,
    /// All up to there was published.
    At(Position),
}

/// How catching up in one room went, as a device is told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Resumed {
    /// Nothing is missing.
    pub(super) recovered: bool,
    /// Messages that were replayed.
    pub(super) count: u64,
    /// Where the room stands now: from there on the device resumes the next time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<String>,
}

impl Resumed {
    /// The room's log cannot be read, nor where it stands.
    pub(super) fn unreadable() -> Self {
        Self { recovered: false, count: 0, position: None }
    }

    /// What the device was sent since it caught up is after this position: a gap that it was told of, and a message, unless only this position is of
    /// the sequence of now.
    pub(super) fn move_on(&mut self, SentLive { last, gap }: &SentLive, is_current: impl Fn(&Position) -> bool) {
        self.recovered &= gap.is_none();
        for later in [gap, last].into_iter().flatten() {
            let Some(position) = self.parsed() else { return };
            let is_later =
                if later.epoch == position.epoch { later.number > position.number } else { !is_current(&position) };
            if is_later {
                self.position = Some(later.to_string());
            }
        }
    }

    pub(super) fn parsed(&self) -> Option<Position> {
        self.position.as_ref().and_then(|text| text.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_that_it_stands_at_the_last_message_that_it_was_given_or_at_a_gap_if_that_was_later() {
        let at = |epoch: &str, number| Some(Position::new(epoch.into(), number));
        for (sent, current, recovered, position) in [
            (SentLive { last: at("a", 7), gap: None }, "a", true, "a.7"),
            (SentLive { last: at("a", 3), gap: None }, "a", true, "a.5"),
            (SentLive { last: at("b", 6), gap: None }, "b", true, "b.6"),
            (SentLive { last: at("z", 9), gap: None }, "a", true, "a.5"),
            (SentLive { last: None, gap: at("z", 9) }, "a", false, "a.5"),
            (SentLive { last: None, gap: at("b", 0) }, "b", false, "b.0"),
            (SentLive { last: at("b", 2), gap: at("b", 0) }, "b", false, "b.2"),
        ] {
            let mut resumed = Resumed { recovered: true, count: 1, position: Some("a.5".to_owned()) };
            resumed.move_on(&sent, |position| *position.epoch == *current);
            assert_eq!((resumed.recovered, resumed.position.as_deref()), (recovered, Some(position)), "{sent:?}");
        }
    }
}
