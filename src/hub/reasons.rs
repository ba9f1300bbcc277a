use crate::message::RoomName;

/// Why a connection is in a room. It leaves the room when its last reason ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its token gives it the room, as `user:{id}`, `role:{role}`, `everyone` and `auth.rooms`.
    Token = 1,
    /// A backend has put its user there, by `JoinRoom`.
    Backend = 2,
    /// Its device has joined by a client event.
    Device = 4,
}

/// The reasons for which a connection is in one room: a set of [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reasons(u8);

/// The rooms that a connection is in, in no particular order, each with at least one reason.
#[derive(Debug)]
pub(super) struct JoinedRooms(Vec<(RoomName, Reasons)>);

impl JoinedRooms {
    /// No rooms. Most connections are in two: their user's, and everyone.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(2))
    }

    /// Adds a reason to a room that the connection is in. False if it is not there.
    pub(super) fn add_reason(&mut self, room: &RoomName, reason: Reason) -> bool {
        let entry = self.0.iter_mut().find(|(name, _)| name == room);
        entry.map(|(_, reasons)| reasons.0 |= reason as u8).is_some()
    }

    /// Adds a room that the connection is not in.
    pub(super) fn insert(&mut self, room: RoomName, reason: Reason) {
        self.0.push((room, Reasons(reason as u8)));
    }

    /// Takes a reason away. Returns the room if that was the last one: it is removed.
    pub(super) fn remove_reason(&mut self, room: &RoomName, reason: Reason) -> Option<RoomName> {
        let index = self.0.iter().position(|(name, _)| name == room)?;
        let reasons = &mut self.0[index].1;
        let had_it = reasons.0 & reason as u8 != 0;
        reasons.0 &= !(reason as u8);
        (had_it && reasons.0 == 0).then(|| self.0.swap_remove(index).0)
    }

    pub(super) fn contains(&self, room: &RoomName) -> bool {
        self.0.iter().any(|(name, _)| name == room)
    }

    pub(super) fn names(&self) -> Vec<RoomName> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The rooms that the connection is in for this reason, among others.
    pub(super) fn with_reason(&self, reason: Reason) -> Vec<RoomName> {
        self.0.iter().filter(|(_, reasons)| reasons.0 & reason as u8 != 0).map(|(name, _)| name.clone()).collect()
    }

    /// The number of rooms that the connection is in for this reason alone.
    pub(super) fn count_only(&self, reason: Reason) -> usize {
        self.0.iter().filter(|(_, reasons)| reasons.0 == reason as u8).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_room_is_left_when_its_last_reason_ends_and_not_before(
            steps in prop::collection::vec((any::<bool>(), 0..3_usize, 0..3_usize), 0..60)
        ) {
            let reasons = [Reason::Token, Reason::Backend, Reason::Device];
            let (mut rooms, mut model) = (JoinedRooms::new(), BTreeMap::<usize, BTreeSet<usize>>::new());
            for (adds, room, reason) in steps {
                let name = RoomName::new(&format!("r{room}")).unwrap();
                if adds {
                    let was_there = rooms.add_reason(&name, reasons[reason]);
                    prop_assert_eq!(was_there, model.contains_key(&room));
                    if !was_there {
                        rooms.insert(name, reasons[reason]);
                    }
                    model.entry(room).or_default().insert(reason);
                } else {
                    let left = rooms.remove_reason(&name, reasons[reason]).is_some();
                    let had_it = model.get_mut(&room).is_some_and(|of_room| of_room.remove(&reason));
                    let is_last = had_it && model[&room].is_empty();
                    prop_assert_eq!(left, is_last);
                    model.retain(|_, of_room| !of_room.is_empty());
                }
                let names: BTreeSet<_> = rooms.names().iter().map(ToString::to_string).collect();
                prop_assert_eq!(names, model.keys().map(|room| format!("r{room}")).collect::<BTreeSet<_>>());
                for (index, reason) in reasons.into_iter().enumerate() {
                    let with = model.values().filter(|of_room| of_room.contains(&index)).count();
                    let only = model.values().filter(|of_room| of_room.iter().eq([&index])).count();
                    prop_assert_eq!((rooms.with_reason(reason).len(), rooms.count_only(reason)), (with, only));
                }
            }
        }
    }
}
