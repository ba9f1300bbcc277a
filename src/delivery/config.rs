use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::RoomPattern;
use crate::state::HistoryRule;

/// `[retain]`: the last payload per room and event, for those who join later.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetainConfig {
    /// Payloads kept at one time.
    pub max_entries: usize,
    /// Bytes of one room's payloads, each with its event's name and 64 more: a connection that joins is sent all of them.
    pub max_room_bytes: usize,
}

/// `[collapse]`: of emits that follow each other quickly under one key, the first goes at once and then the last of each window.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CollapseConfig {
    /// How long a window is.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Keys with an open window at one time.
    pub max_keys: usize,
}

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

/// The histories that are configured.
pub(super) fn history_rules(rooms: &[RoomConfig]) -> Vec<HistoryRule> {
    let rule =
        |room: &RoomConfig| HistoryRule { rooms: room.matches.clone(), size: room.history.size, age: room.history.age };
    rooms.iter().map(rule).collect()
}
