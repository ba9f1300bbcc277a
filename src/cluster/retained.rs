use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::message::{EventName, Payload, RoomName, UserId};

/// The last payload of each event in each room that was to be retained. Kept in memory: it ends with the process.
pub struct Retained {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_room: HashMap<RoomName, BTreeMap<EventName, Value>>,
    count: usize,
}

/// A retained payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// As it was sent.
    pub payload: Payload,
    /// Users who were excepted, and are so from what is sent later too.
    pub except_users: Vec<UserId>,
}

/// No more values can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedFull;

impl Retained {
    /// Keeps up to so many values.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// Keeps a value in place of the one before. A payload of nothing takes it away.
    pub fn put(&self, room: &RoomName, event: &EventName, value: Value) -> Result<(), RetainedFull> {
        let mut kept = self.kept.lock();
        if matches!(value.payload, Payload::None) {
            kept.take(room, event);
            return Ok(());
        }
        let known = kept.by_room.get(room).is_some_and(|events| events.contains_key(event));
        if !known && kept.count >= self.most {
            return Err(RetainedFull);
        }
        kept.by_room.entry(room.clone()).or_default().insert(event.clone(), value);
        kept.count += usize::from(!known);
        Ok(())
    }

    /// Whether a value for this event in this room can be kept.
    pub fn has_room_for(&self, room: &RoomName, event: &EventName) -> bool {
        let kept = self.kept.lock();
        kept.count < self.most || kept.by_room.get(room).is_some_and(|events| events.contains_key(event))
    }

    /// The value of an event in a room.
    pub fn get(&self, room: &RoomName, event: &str) -> Option<Value> {
        self.kept.lock().by_room.get(room)?.get(event).cloned()
    }

    /// The values of a room, ordered by event.
    pub fn of_room(&self, room: &RoomName) -> Vec<(EventName, Value)> {
        let kept = self.kept.lock();
        let events = kept.by_room.get(room).into_iter().flatten();
        events.map(|(event, value)| (event.clone(), value.clone())).collect()
    }
}

impl Kept {
    fn take(&mut self, room: &RoomName, event: &EventName) {
        let Some(events) = self.by_room.get_mut(room) else {
            return;
        };
        self.count -= usize::from(events.remove(event).is_some());
        if events.is_empty() {
            self.by_room.remove(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn event(name: &str) -> EventName {
        EventName::new(name).unwrap()
    }

    fn value(json: &str) -> Value {
        Value { payload: Payload::json(json.into()).unwrap(), except_users: Vec::new() }
    }

    #[test]
    fn the_last_value_of_each_event_and_room_is_kept() {
        let retained = Retained::new(9);
        for (in_room, name, json) in [("a", "x", "1"), ("a", "x", "2"), ("a", "b", "3"), ("c", "x", "4")] {
            retained.put(&room(in_room), &event(name), value(json)).unwrap();
        }
        assert_eq!(retained.get(&room("a"), "x"), Some(value("2")));
        assert_eq!(retained.of_room(&room("a")), [(event("b"), value("3")), (event("x"), value("2"))]);
        assert_eq!(retained.get(&room("none"), "x"), None);
    }

    #[test]
    fn values_are_bounded_replaced_and_taken_away() {
        let retained = Retained::new(1);
        retained.put(&room("a"), &event("x"), value("1")).unwrap();
        retained.put(&room("a"), &event("x"), value("2")).expect("it takes the place of the other");
        assert_eq!(retained.put(&room("b"), &event("x"), value("1")), Err(RetainedFull));
        assert!(!retained.has_room_for(&room("b"), &event("x")) && retained.has_room_for(&room("a"), &event("x")));
        retained.put(&room("a"), &event("x"), Value { payload: Payload::None, except_users: Vec::new() }).unwrap();
        assert!(retained.kept.lock().by_room.is_empty());
        retained.put(&room("b"), &event("x"), value("1")).unwrap();
    }
}
