//! Rooms whose mailboxes refuse what is appended, as they are damaged. Their emits are written alone, and seldom: in a transaction with those of others
//! they would have all of them written again.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Error;
use crate::message::RoomName;

/// Rooms that are remembered. Of more, emits disturb others each time.
const MAX_ROOMS: usize = 100;
/// How often something is appended to such a mailbox, to see whether it is whole again. What comes in between is refused at once.
const TRIED_EVERY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct SetAside(HashMap<RoomName, Refused>);

struct Refused {
    tried: Instant,
    error: Error,
}

impl SetAside {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, room: &RoomName) -> bool {
        self.0.contains_key(room)
    }

    /// Why nothing is appended to a room now; none: it is to be tried.
    pub(super) fn refusal(&self, room: &RoomName) -> Option<Error> {
        self.0.get(room).filter(|refused| refused.tried.elapsed() < TRIED_EVERY).map(|refused| refused.error.clone())
    }

    /// Nothing can be appended to a room. `error`: nothing was kept.
    pub(super) fn insert(&mut self, room: RoomName, error: Error) {
        if self.0.len() >= MAX_ROOMS && !self.has(&room) {
            let oldest = self.0.iter().min_by_key(|(_, refused)| refused.tried).map(|(room, _)| room.clone());
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(room, Refused { tried: Instant::now(), error });
    }

    /// Something was appended to a room.
    pub(super) fn remove(&mut self, room: &RoomName) {
        self.0.remove(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(number: usize) -> RoomName {
        RoomName::new(&format!("r:{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_is_tried_now_and_then_and_the_one_that_was_tried_first_is_forgotten_first() {
        let mut aside = SetAside::default();
        for number in 0..=MAX_ROOMS {
            aside.insert(room(number), Error::Broken("x"));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(!aside.has(&room(0)) && aside.has(&room(1)) && aside.0.len() == MAX_ROOMS);
        assert!(aside.refusal(&room(1)).is_some() && aside.refusal(&room(0)).is_none());
        tokio::time::advance(TRIED_EVERY).await;
        assert!(aside.refusal(&room(1)).is_none() && aside.has(&room(1)), "it is tried alone");
        aside.insert(room(1), Error::Broken("x"));
        assert!(aside.refusal(&room(1)).is_some());
        aside.remove(&room(1));
        assert!(!aside.has(&room(1)));
    }
}
