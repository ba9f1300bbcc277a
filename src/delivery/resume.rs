use std::collections::HashMap;

use crate::message::{Position, RoomName};

/// What a device that comes back says it has seen: of each room the last position. A device that resumes for the first time has
/// seen nothing.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    seen: HashMap<RoomName, Position>,
    /// Names that no room can have: they are answered, and that is all.
    nameless: Vec<Box<str>>,
}

/// The most rooms that are looked at.
const MAX_ROOMS: usize = 1_000;

impl Resume {
    /// Takes what a device has said, room by room. What is no position is one of no sequence.
    pub fn new(said: impl IntoIterator<Item = (String, Option<Position>)>) -> Self {
        let mut resume = Self::default();
        for (name, position) in said.into_iter().take(MAX_ROOMS) {
            match RoomName::new(&name) {
                Ok(room) => {
                    resume.seen.insert(room, position.unwrap_or_else(|| Position::new("".into(), 0)));
                }
                Err(_) => resume.nameless.push(name.into()),
            }
        }
        resume
    }

    /// The rooms that it has named.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.seen.keys()
    }

    /// What was said of a room, if anything was.
    pub(super) fn of(&self, room: &RoomName) -> Option<&Position> {
        self.seen.get(room)
    }

    /// All that was named.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.seen.keys().map(RoomName::as_str).chain(self.nameless.iter().map(|name| &**name))
    }
}
