use std::collections::BTreeMap;

use super::Hub;
use crate::message::{Page, RoomName, RoomUsers, UserId};

impl Hub {
    /// The users with a connection, ordered by id, from the first one after `after`.
    pub fn list_users(&self, after: &str, size: usize) -> Page<UserId> {
        let after = if after.is_empty() { String::new() } else { format!("{}{after}", RoomName::USER) };
        let rooms = self.list_rooms(RoomName::USER, &after, size);
        let user = |(room, connections): (RoomName, usize)| Some((UserId::new(room.user()?).ok()?, connections));
        Page { items: rooms.items.into_iter().filter_map(user).collect(), more: rooms.more }
    }

    /// The rooms with a connection whose names begin with `prefix`, ordered by name, from the first one after `after`.
    pub fn list_rooms(&self, prefix: &str, after: &str, size: usize) -> Page<RoomName> {
        let rooms = self.rooms.iter().filter(|room| room.key().as_str().starts_with(prefix));
        let rooms = rooms.map(|room| (room.key().clone(), room.len()));
        Page::of(rooms.filter(|(_, connections)| *connections > 0), after, size)
    }

    /// The names of all rooms with a connection. The map is locked in parts meanwhile.
    pub fn for_each_room(&self, mut see: impl FnMut(&RoomName)) {
        self.rooms.iter().filter(|room| !room.is_empty()).for_each(|room| see(room.key()));
    }

    /// The users in a room, ordered by id, from the first one after `after`; none if nobody is in it.
    pub fn list_room(&self, name: &RoomName, after: &str, size: usize) -> Option<RoomUsers> {
        let members = self.members(name);
        let mut users = BTreeMap::<UserId, usize>::new();
        for member in &members {
            *users.entry(member.user().clone()).or_default() += 1;
        }
        (!members.is_empty()).then(|| RoomUsers {
            users: users.len(),
            connections: members.len(),
            page: Page::of(users.into_iter(), after, size),
        })
    }
}
