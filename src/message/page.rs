use std::collections::BinaryHeap;

use super::UserId;

/// A part of a list that is ordered by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<K> {
    /// The keys of this part, each with its number of connections.
    pub items: Vec<(K, usize)>,
    /// Whether more follow.
    pub more: bool,
}

/// A part of a room's users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomUsers {
    /// The users of this part.
    pub page: Page<UserId>,
    /// How many users are in the room.
    pub users: usize,
    /// How many connections are in the room.
    pub connections: usize,
}

impl<K: Ord> Page<K> {
    /// The first `size` of what is greater than `after`.
    pub fn of(items: impl Iterator<Item = (K, usize)>, after: &str, size: usize) -> Self
    where
        K: std::borrow::Borrow<str>,
    {
        let mut smallest = BinaryHeap::with_capacity(size + 2);
        for item in items.filter(|(key, _)| after.is_empty() || key.borrow() > after) {
            smallest.push(item);
            if smallest.len() > size + 1 {
                smallest.pop();
            }
        }
        let mut items = smallest.into_sorted_vec();
        let more = items.len() > size;
        items.truncate(size);
        Self { items, more }
    }
}
