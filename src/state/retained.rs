use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::shares::Shares;
use crate::message::{EventName, Payload, RoomName, UserId, bytes_of_users};

/// The last payload of each event in each room that was to be retained. Values in memory: it ends with the process.
pub struct Retained {
    max_entries: usize,
    max_room_bytes: usize,
    values: Mutex<Values>,
}

#[derive(Default)]
struct Values {
    by_room: HashMap<RoomName, Events>,
    count: usize,
    /// Those that expire, in the order of their ends.
    by_end: BTreeSet<(Timestamp, RoomName, EventName)>,
    shares: Shares,
}

#[derive(Default)]
struct Events {
    values: BTreeMap<EventName, (Value, Arc<str>)>,
    bytes: usize,
}

/// What an entry takes up besides its event's name and its payload.
const ENTRY_BYTES: usize = 64;
/// How many values one sweep takes away.
const SWEEP_STEP: usize = 1_000;

/// A retained payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// As it was sent.
    pub payload: Payload,
    /// Users who were excepted, and are so from what is sent later too.
    pub except_users: Vec<UserId>,
    /// From then on it is of no use; none: it is until it is replaced or taken away.
    pub expires_at: Option<Timestamp>,
}

/// No more values can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainedFull {
    /// There are as many as there may be.
    Entries,
    /// Those of one room have as many bytes as they may have.
    RoomBytes,
}

impl Retained {
    /// Keeps up to so many values, and so many bytes of one room.
    pub fn new(max_entries: usize, max_room_bytes: usize) -> Self {
        Self { max_entries, max_room_bytes, values: Mutex::default() }
    }

    /// Keeps a value of an API key in place of the one before. A payload of nothing takes it away.
    pub fn put(&self, caller: &Arc<str>, room: &RoomName, event: &EventName, value: Value) -> Result<(), RetainedFull> {
        let mut values = self.values.lock();
        if matches!(value.payload, Payload::None) {
            values.take(room, event);
            return Ok(());
        }
        self.check(&values, [room], event, &value.payload, &value.except_users)?;
        values.take(room, event);
        values.by_end.extend(value.expires_at.map(|end| (end, room.clone(), event.clone())));
        values.count += 1;
        let events = values.by_room.entry(room.clone()).or_default();
        events.bytes += value.bytes(event);
        events.values.insert(event.clone(), (value, caller.clone()));
        values.shares.add(caller, 1);
        Ok(())
    }

    /// How many values an API key holds.
    pub fn held_by(&self, caller: &str) -> usize {
        self.values.lock().shares.of(caller)
    }

    /// Whether a value for this event can be kept in each of these rooms.
    pub fn has_room_for<'a>(
        &self,
        rooms: impl IntoIterator<Item = &'a RoomName>,
        event: &EventName,
        payload: &Payload,
        except_users: &[UserId],
    ) -> Result<(), RetainedFull> {
        self.check(&self.values.lock(), rooms, event, payload, except_users)
    }

    fn check<'a>(
        &self,
        values: &Values,
        rooms: impl IntoIterator<Item = &'a RoomName>,
        event: &EventName,
        payload: &Payload,
        except_users: &[UserId],
    ) -> Result<(), RetainedFull> {
        if matches!(payload, Payload::None) {
            return Ok(());
        }
        let mut count = values.count;
        for room in rooms {
            let events = values.by_room.get(room);
            let before = events.and_then(|events| events.values.get(event));
            count += usize::from(before.is_none());
            if count > self.max_entries {
                return Err(RetainedFull::Entries);
            }
            let others = events.map_or(0, |events| events.bytes) - before.map_or(0, |(before, _)| before.bytes(event));
            if others + bytes(event, payload, except_users) > self.max_room_bytes {
                return Err(RetainedFull::RoomBytes);
            }
        }
        Ok(())
    }

    /// The value of an event in a room, if it is of use.
    pub fn get(&self, room: &RoomName, event: &str, now: Timestamp) -> Option<Value> {
        let values = self.values.lock();
        values
            .by_room
            .get(room)?
            .values
            .get(event)
            .map(|(value, _)| value)
            .filter(|value| value.is_of_use(now))
            .cloned()
    }

    /// Takes away some of what has expired. True if more may be left.
    pub fn sweep(&self, now: Timestamp) -> bool {
        let mut values = self.values.lock();
        for _ in 0..SWEEP_STEP {
            match values.by_end.first().cloned() {
                Some((end, room, event)) if end <= now => values.take(&room, &event),
                Some(_) | None => return false,
            }
        }
        true
    }

    /// The values of a room that are of use, ordered by event.
    pub fn of_room(&self, room: &RoomName, now: Timestamp) -> Vec<(EventName, Value)> {
        let values = self.values.lock();
        let values = values.by_room.get(room).into_iter().flat_map(|events| &events.values);
        values
            .filter(|(_, (value, _))| value.is_of_use(now))
            .map(|(event, (value, _))| (event.clone(), value.clone()))
            .collect()
    }
}

impl Value {
    fn is_of_use(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| end > now)
    }
}

impl Values {
    fn take(&mut self, room: &RoomName, event: &EventName) {
        let Some(events) = self.by_room.get_mut(room) else {
            return;
        };
        if let Some((before, caller)) = events.values.remove(event) {
            self.shares.remove(&caller, 1);
            events.bytes -= before.bytes(event);
            self.count -= 1;
            if let Some(end) = before.expires_at {
                self.by_end.remove(&(end, room.clone(), event.clone()));
            }
        }
        if events.values.is_empty() {
            self.by_room.remove(room);
        }
    }
}

impl Value {
    fn bytes(&self, event: &EventName) -> usize {
        bytes(event, &self.payload, &self.except_users)
    }
}

pub(super) fn bytes(event: &EventName, payload: &Payload, except_users: &[UserId]) -> usize {
    event.as_str().len() + payload.len() + bytes_of_users(except_users) + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn caller() -> Arc<str> {
        "test".into()
    }

    fn event(name: &str) -> EventName {
        EventName::new(name).unwrap()
    }

    fn value(json: &str) -> Value {
        Value { payload: Payload::json(json).unwrap(), except_users: Vec::new(), expires_at: None }
    }

    #[test]
    fn the_last_value_of_each_event_and_room_is_kept() {
        let retained = Retained::new(9, 1_000);
        for (in_room, name, json) in [("a", "x", "1"), ("a", "x", "2"), ("a", "b", "3"), ("c", "x", "4")] {
            retained.put(&caller(), &room(in_room), &event(name), value(json)).unwrap();
        }
        assert_eq!(retained.get(&room("a"), "x", Timestamp::UNIX_EPOCH), Some(value("2")));
        assert_eq!(
            retained.of_room(&room("a"), Timestamp::UNIX_EPOCH),
            [(event("b"), value("3")), (event("x"), value("2"))]
        );
        assert_eq!(retained.get(&room("none"), "x", Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn values_are_bounded_replaced_and_taken_away() {
        let retained = Retained::new(1, 1_000);
        retained.put(&caller(), &room("a"), &event("x"), value("1")).unwrap();
        retained.put(&caller(), &room("a"), &event("x"), value("2")).expect("it takes the place of the other");
        assert_eq!(retained.put(&caller(), &room("b"), &event("x"), value("1")), Err(RetainedFull::Entries));
        let one = value("1").payload;
        assert_eq!(retained.has_room_for([&room("b")], &event("x"), &one, &[]), Err(RetainedFull::Entries));
        assert_eq!(retained.has_room_for([&room("a")], &event("x"), &one, &[]), Ok(()));
        retained
            .put(
                &caller(),
                &room("a"),
                &event("x"),
                Value { payload: Payload::None, except_users: Vec::new(), expires_at: None },
            )
            .unwrap();
        assert!(retained.values.lock().by_room.is_empty() && retained.held_by("test") == 0);
        retained.put(&caller(), &room("b"), &event("x"), value("1")).unwrap();
    }

    #[test]
    fn the_bytes_of_a_room_are_bounded_and_given_back() {
        let retained = Retained::new(9, 200);
        let long = value(&format!("\"{}\"", "a".repeat(100)));
        retained.put(&caller(), &room("a"), &event("x"), long.clone()).unwrap();
        assert_eq!(retained.put(&caller(), &room("a"), &event("y"), long.clone()), Err(RetainedFull::RoomBytes));
        retained.put(&caller(), &room("b"), &event("y"), long.clone()).expect("another room has its own bytes");
        retained.put(&caller(), &room("a"), &event("x"), value("1")).unwrap();
        retained.put(&caller(), &room("a"), &event("x"), long.clone()).expect("it takes the place of the other");
        retained
            .put(
                &caller(),
                &room("a"),
                &event("x"),
                Value { payload: Payload::None, except_users: Vec::new(), expires_at: None },
            )
            .unwrap();
        retained.put(&caller(), &room("a"), &event("y"), long).unwrap();
    }

    #[test]
    fn room_for_several_is_counted_together() {
        let retained = Retained::new(2, 1_000);
        let (rooms, one) = ([room("a"), room("b"), room("c")], value("1").payload);
        assert_eq!(retained.has_room_for(&rooms[..2], &event("x"), &one, &[]), Ok(()));
        assert_eq!(retained.has_room_for(&rooms, &event("x"), &one, &[]), Err(RetainedFull::Entries));
    }
}
