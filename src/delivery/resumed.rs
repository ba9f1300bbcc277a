use serde::Serialize;

use crate::message::Position;

/// From where on a connection has missed what was kept.
pub(super) enum ReplayFrom {
    /// What was given to none of the user's connections.
    Watermark,
    /// What came after the last position that the device has seen.
    Position(Position),
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

    /// The device has been sent the message at `sent` already. It is after this position, unless only this one is of the sequence of now.
    pub(super) fn move_on(&mut self, sent: &Position, is_current: impl FnOnce(&Position) -> bool) {
        let Some(position) = self.parsed() else { return };
        let is_later =
            if sent.epoch == position.epoch { sent.number > position.number } else { !is_current(&position) };
        if is_later {
            self.position = Some(sent.to_string());
        }
    }

    pub(super) fn parsed(&self) -> Option<Position> {
        self.position.as_ref().and_then(|text| text.parse().ok())
    }
}
