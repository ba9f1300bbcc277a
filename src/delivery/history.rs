use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Delivery;
use crate::message::{RoomName, RoomPattern};
use crate::state::{History, HistoryRule};

/// `[[rooms]]`: what is special about rooms with such names.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoomConfig {
    /// Which rooms.
    #[serde(rename = "match")]
    pub matches: RoomPattern,
    /// Their last messages are kept.
    pub history: RoomHistory,
}

/// How long a history is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoomHistory {
    /// Messages of one room.
    pub size: usize,
    /// How long each is kept.
    #[serde(with = "humantime_serde")]
    pub age: Duration,
}

/// `[history]`: of all rooms together.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// Bytes of the messages.
    pub max_bytes: usize,
}

impl Delivery {
    /// Whether a room's last messages are kept.
    pub fn has_history(&self, room: &RoomName) -> bool {
        self.inner.history.keeps(room)
    }
}

/// The history that is configured.
pub(super) fn history(rooms: &[RoomConfig], config: HistoryConfig) -> History {
    let rule =
        |room: &RoomConfig| HistoryRule { rooms: room.matches.clone(), size: room.history.size, age: room.history.age };
    History::new(rooms.iter().map(rule).collect(), config.max_bytes)
}
