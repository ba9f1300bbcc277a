use std::collections::{BTreeMap, BinaryHeap};

use super::UserId;

/// The longest page.
pub const LARGEST_PAGE: usize = 1_000;

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

impl<K: ToString> Page<K> {
    /// The same with the keys as texts.
    pub fn into_texts(self) -> Page<String> {
        let items = self.items.into_iter().map(|(key, count)| (key.to_string(), count));
        Page { items: items.collect(), more: self.more }
    }
}

impl Page<String> {
    /// One page of several nodes' pages from the same place: counts of one name are added.
    pub fn merged(pages: Vec<Self>, size: usize) -> Self {
        let more = pages.iter().any(|page| page.more);
        // What is after the end of a page that has more may lack that node's count.
        let end = pages
            .iter()
            .filter(|page| page.more)
            .filter_map(|page| page.items.last())
            .map(|(name, _)| name.clone())
            .min();
        let mut merged = BTreeMap::<String, usize>::new();
        for (name, count) in pages.into_iter().flat_map(|page| page.items) {
            *merged.entry(name).or_default() += count;
        }
        let mut items: Vec<_> =
            merged.into_iter().filter(|(name, _)| end.as_ref().is_none_or(|end| name <= end)).collect();
        let more = more || items.len() > size;
        items.truncate(size);
        Self { items, more }
    }

    /// The same with the texts as names. `None`: one of them is none.
    pub fn named<K>(self, name: impl Fn(&str) -> Option<K>) -> Option<Page<K>> {
        let items = self.items.iter().map(|(text, count)| Some((name(text)?, *count)));
        Some(Page { items: items.collect::<Option<_>>()?, more: self.more })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &str, more: bool) -> Page<String> {
        Page { items: names.chars().map(|name| (name.to_string(), 1)).collect(), more }
    }

    #[test]
    fn pages_of_several_nodes_are_one_up_to_where_all_of_them_have_told() {
        let merged = Page::merged(vec![page("ace", true), page("abz", false)], 10);
        let items: Vec<_> = merged.items.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!((items, merged.more), (vec![("a", 2), ("b", 1), ("c", 1), ("e", 1)], true));
        let merged = Page::merged(vec![page("ab", false), page("cd", false)], 3);
        assert_eq!((merged.items.len(), merged.more), (3, true));
        let merged = Page::merged(vec![page("ab", false)], 2);
        assert_eq!((merged.items.len(), merged.more), (2, false));
    }
}
