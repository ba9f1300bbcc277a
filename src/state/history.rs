use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::shares::Shares;
use crate::message::{
    EventName, LogEntry, MessageId, Payload, Position, RoomName, RoomPattern, UserId, bytes_of_users,
};

/// How long the history of a room is.
#[derive(Clone, Debug)]
pub struct HistoryRule {
    /// Which rooms have one.
    pub rooms: RoomPattern,
    /// Messages of one room.
    pub size: usize,
    /// How long each is kept.
    pub age: Duration,
}

/// The last messages of rooms, in memory: they end with the process, and so do the sequences.
pub struct History {
    rules: Vec<HistoryRule>,
    max_bytes: usize,
    /// No other process has it.
    epoch: String,
    sequences: Mutex<Sequences>,
}

/// A message for a history.
pub struct NewEntry<'a> {
    /// The API key that sends it.
    pub caller: &'a Arc<str>,
    /// Its id.
    pub id: MessageId,
    /// Its event.
    pub event: &'a EventName,
    /// Its payload.
    pub payload: &'a Payload,
    /// Users who are not to get it.
    pub except_users: &'a [UserId],
    /// How long it is of use; none: as long as it is kept.
    pub ttl: Option<Duration>,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
}

/// Sequences without messages that go on: a device that lost its connection in a silent room has missed nothing.
const MAX_SILENT: usize = 100_000;
/// What a message takes up besides its event's name and its payload.
const ENTRY_BYTES: usize = 160;
/// Rooms that one sweep looks through.
const SWEEP_STEP: usize = 256;

#[derive(Default)]
struct Sequences {
    by_room: HashMap<RoomName, Sequence>,
    /// The rooms with messages, and those without, each by when anything happened there last.
    talking: BTreeMap<u64, RoomName>,
    silent: BTreeMap<u64, RoomName>,
    happened: u64,
    begun: u64,
    held: Held,
}

/// The bytes of all messages, and of those of each API key.
#[derive(Default)]
struct Held {
    bytes: usize,
    shares: Shares,
}

impl Held {
    fn add(&mut self, entry: &Entry) {
        self.bytes += size(&entry.message);
        self.shares.add(&entry.caller, size(&entry.message));
    }

    fn remove(&mut self, entry: &Entry) {
        self.bytes -= size(&entry.message);
        self.shares.remove(&entry.caller, size(&entry.message));
    }
}

struct Sequence {
    epoch: Arc<str>,
    last: u64,
    /// Up to here messages were taken away before they had expired.
    floor: u64,
    messages: VecDeque<Entry>,
    happened: u64,
    age_ms: i64,
}

struct Entry {
    message: LogEntry,
    caller: Arc<str>,
    expires_at_ms: i64,
}

impl History {
    /// Of the rooms that these rules name, the first that matches each; up to so many bytes in all.
    pub fn new(rules: Vec<HistoryRule>, max_bytes: usize) -> Self {
        let epoch = Uuid::new_v4().simple().to_string()[..12].to_owned();
        Self { rules, max_bytes, epoch, sequences: Mutex::default() }
    }

    /// Whether a room has a history.
    pub fn keeps(&self, room: &RoomName) -> bool {
        self.rule(room).is_some()
    }

    fn rule(&self, room: &RoomName) -> Option<&HistoryRule> {
        self.rules.iter().find(|rule| rule.rooms.matches(room.as_str()))
    }

    /// Keeps a message, and says where it stands. None: the room has no history.
    pub fn append(&self, room: &RoomName, entry: &NewEntry<'_>) -> Option<Position> {
        let rule = self.rule(room)?;
        let mut sequences = self.sequences.lock();
        let sequences = &mut *sequences;
        sequences.touch(room, rule, &self.epoch);
        let sequence = sequences.by_room.get_mut(room)?;
        sequence.last += 1;
        let message = LogEntry {
            number: sequence.last,
            id: entry.id,
            event: entry.event.clone(),
            payload: entry.payload.clone(),
            except_users: entry.except_users.to_vec(),
            stored_at_ms: entry.now_ms,
        };
        let position = Position::new(sequence.epoch.clone(), sequence.last);
        let ttl = entry.ttl.map_or(i64::MAX, |ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        let expires_at_ms = entry.now_ms.saturating_add(ttl);
        let entry = Entry { message, caller: entry.caller.clone(), expires_at_ms };
        sequences.held.add(&entry);
        sequence.messages.push_back(entry);
        while sequence.messages.len() > rule.size {
            sequence.take_oldest(&mut sequences.held);
        }
        sequences.make_room(room, self.max_bytes);
        Some(position)
    }

    /// The bytes of messages that an API key holds.
    pub fn held_by(&self, caller: &str) -> usize {
        self.sequences.lock().held.shares.of(caller)
    }

    /// Where a room's sequence stands; it begins with this if need be. None: the room has no history.
    pub fn position(&self, room: &RoomName) -> Option<Position> {
        let rule = self.rule(room)?;
        let mut sequences = self.sequences.lock();
        if !sequences.by_room.contains_key(room) {
            sequences.touch(room, rule, &self.epoch);
        }
        let sequence = sequences.by_room.get(room)?;
        Some(Position::new(sequence.epoch.clone(), sequence.last))
    }

    /// What came after a position, at most so many messages in order. None: that cannot be told whole.
    pub fn after(&self, room: &RoomName, position: &Position, max: usize, now_ms: i64) -> Option<Vec<LogEntry>> {
        let mut sequences = self.sequences.lock();
        sequences.trim(room, now_ms);
        let sequence = sequences.by_room.get(room)?;
        if sequence.epoch != position.epoch || !(sequence.floor..=sequence.last).contains(&position.number) {
            return None;
        }
        let of_use = |entry: &&Entry| entry.message.number > position.number && entry.expires_at_ms > now_ms;
        Some(sequence.messages.iter().filter(of_use).take(max).map(|entry| entry.message.clone()).collect())
    }

    /// Takes away what is too old in some of the rooms: those in which something happened last after `after` (0: all). Returns where to go on;
    /// `None`: these were the last ones.
    pub fn sweep(&self, now_ms: i64, after: u64) -> Option<u64> {
        let mut sequences = self.sequences.lock();
        let next = sequences.talking.range(after + 1..).take(SWEEP_STEP);
        let rooms: Vec<_> = next.map(|(happened, room)| (*happened, room.clone())).collect();
        for (_, room) in &rooms {
            sequences.trim(room, now_ms);
        }
        rooms.last().map(|(happened, _)| *happened).filter(|_| rooms.len() == SWEEP_STEP)
    }
}

impl Sequences {
    /// Notes that something happened in a room, whose sequence begins now if there is none.
    fn touch(&mut self, room: &RoomName, rule: &HistoryRule, epoch: &str) {
        self.happened += 1;
        if let Some(sequence) = self.by_room.get_mut(room) {
            self.talking.remove(&sequence.happened);
            self.silent.remove(&sequence.happened);
            sequence.happened = self.happened;
        } else {
            self.begun += 1;
            let sequence = Sequence {
                epoch: format!("{epoch}{}", self.begun).into(),
                last: 0,
                floor: 0,
                messages: VecDeque::new(),
                happened: self.happened,
                age_ms: i64::try_from(rule.age.as_millis()).unwrap_or(i64::MAX),
            };
            self.by_room.insert(room.clone(), sequence);
        }
        self.talking.insert(self.happened, room.clone());
    }

    /// Takes messages away until the rest fits: those of the rooms that have been silent longest, at last those of this one.
    fn make_room(&mut self, room: &RoomName, max: usize) {
        while self.held.bytes > max {
            let Some(oldest) = self.talking.values().next().cloned() else {
                return;
            };
            let Some(sequence) = self.by_room.get_mut(&oldest) else {
                return;
            };
            sequence.take_oldest(&mut self.held);
            if sequence.messages.is_empty() && oldest != *room {
                self.fall_silent(&oldest);
            } else if sequence.messages.is_empty() {
                return;
            }
        }
    }

    fn trim(&mut self, room: &RoomName, now_ms: i64) {
        let Some(sequence) = self.by_room.get_mut(room) else {
            return;
        };
        let too_old = now_ms.saturating_sub(sequence.age_ms);
        while sequence.messages.front().is_some_and(|entry| entry.message.stored_at_ms <= too_old) {
            sequence.take_oldest(&mut self.held);
        }
        if sequence.messages.is_empty() {
            self.fall_silent(room);
        }
    }

    fn fall_silent(&mut self, room: &RoomName) {
        if let Some(sequence) = self.by_room.get_mut(room) {
            // A long queue of the past is given back.
            sequence.messages = VecDeque::new();
            self.talking.remove(&sequence.happened);
            self.silent.insert(sequence.happened, room.clone());
        }
        while self.silent.len() > MAX_SILENT
            && let Some((_, forgotten)) = self.silent.pop_first()
        {
            self.by_room.remove(&forgotten);
        }
    }
}

impl Sequence {
    fn take_oldest(&mut self, held: &mut Held) {
        if let Some(entry) = self.messages.pop_front() {
            self.floor = entry.message.number;
            held.remove(&entry);
        }
    }
}

fn size(message: &LogEntry) -> usize {
    message.event.as_str().len() + message.payload.len() + bytes_of_users(&message.except_users) + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_mins(2);

    fn history(size: usize, max_bytes: usize) -> History {
        let rule = |rooms: &str, size| HistoryRule { rooms: RoomPattern::new(rooms).unwrap(), size, age: AGE };
        History::new(vec![rule("listing:*", size), rule("*", 1_000)], max_bytes)
    }

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn append(history: &History, name: &str, now_ms: i64, ttl: Option<Duration>) -> Position {
        let entry = NewEntry {
            caller: &"test".into(),
            id: MessageId::at(jiff::Timestamp::UNIX_EPOCH),
            event: &EventName::new("e").unwrap(),
            payload: &Payload::json("1").unwrap(),
            except_users: &[],
            ttl,
            now_ms,
        };
        history.append(&room(name), &entry).unwrap()
    }

    fn numbers(history: &History, name: &str, position: &Position, now_ms: i64) -> Option<Vec<u64>> {
        let messages = history.after(&room(name), position, 1_000, now_ms)?;
        Some(messages.iter().map(|message| message.number).collect())
    }

    #[test]
    fn what_came_after_a_position_is_given_in_order() {
        let history = history(10, usize::MAX);
        let begin = history.position(&room("listing:1")).unwrap();
        let positions = [1, 2, 3].map(|now| append(&history, "listing:1", now, None));
        assert_eq!(numbers(&history, "listing:1", &begin, 3), Some(vec![1, 2, 3]));
        assert_eq!(numbers(&history, "listing:1", &positions[1], 3), Some(vec![3]));
        assert_eq!(numbers(&history, "listing:1", &positions[2], 3), Some(vec![]));
        assert_eq!(history.position(&room("listing:1")), Some(positions[2].clone()));
        assert!(history.after(&room("listing:2"), &begin, 9, 3).is_none(), "another room");
    }

    #[test]
    fn what_cannot_be_told_whole_is_not_told() {
        let history = history(2, usize::MAX);
        let begin = history.position(&room("listing:1")).unwrap();
        let positions = [1, 2, 3].map(|now| append(&history, "listing:1", now, None));
        assert_eq!(numbers(&history, "listing:1", &begin, 3), None, "one is gone for its number");
        assert_eq!(numbers(&history, "listing:1", &positions[0], 3), Some(vec![2, 3]));
        assert_eq!(numbers(&history, "listing:1", &positions[0], 120_002), None, "one is gone for its age");
        assert_eq!(numbers(&history, "listing:1", &positions[1], 120_002), Some(vec![3]));
        let later = Position::new(begin.epoch.clone(), 4);
        assert_eq!(numbers(&history, "listing:1", &later, 3), None, "not given yet");
        let other = Position::new("other".into(), 3);
        assert_eq!(numbers(&history, "listing:1", &other, 3), None, "another epoch");
    }

    #[test]
    fn what_has_expired_leaves_a_hole_that_counts_as_whole() {
        let history = history(10, usize::MAX);
        let begin = history.position(&room("listing:1")).unwrap();
        append(&history, "listing:1", 0, Some(Duration::from_secs(1)));
        append(&history, "listing:1", 0, None);
        assert_eq!(numbers(&history, "listing:1", &begin, 1_000), Some(vec![2]));
    }

    #[test]
    fn a_silent_room_continues_its_sequence() {
        let history = history(10, usize::MAX);
        let first = append(&history, "listing:1", 0, None);
        assert_eq!(history.sweep(200_000, 0), None);
        assert_eq!(history.sequences.lock().held.bytes, 0);
        assert_eq!(numbers(&history, "listing:1", &first, 200_000), Some(vec![]), "nothing came since");
        assert_eq!(append(&history, "listing:1", 200_000, None), Position::new(first.epoch, 2));
    }

    #[test]
    fn bytes_are_bounded_and_taken_from_whoever_was_silent_longest() {
        let history = history(100, 3 * (ENTRY_BYTES + 2));
        let quiet = history.position(&room("listing:1")).unwrap();
        append(&history, "listing:1", 0, None);
        let talking = history.position(&room("listing:2")).unwrap();
        for _ in 0..3 {
            append(&history, "listing:2", 0, None);
        }
        assert_eq!(numbers(&history, "listing:1", &quiet, 0), None);
        assert_eq!(numbers(&history, "listing:2", &talking, 0), Some(vec![1, 2, 3]));
        append(&history, "listing:2", 0, None);
        assert_eq!(numbers(&history, "listing:2", &talking, 0), None);
        let bytes = history.sequences.lock().held.bytes;
        assert!(bytes <= history.max_bytes && history.held_by("test") == bytes);
    }
}
