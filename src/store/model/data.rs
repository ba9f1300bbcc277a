//! What the database in memory holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::super::{
    Appended, Error, IdempotencyKey, Mailbox, NewMessage, Window,
    epochs::Generation,
    lookups::{Lookup, Written},
};
use crate::message::{LogEntry, MessageId, Position, RoomName, UserId};

/// A lease that no node has renewed for so long is over.
const LEASE: Duration = Duration::from_secs(4);

#[derive(Clone, Default)]
pub(in crate::store) struct Data {
    /// As the rows of `store` have it: the generations, and the database's process in which the last one began.
    generations: Vec<(i64, Arc<str>)>,
    instance: u64,
    renewed: Option<Instant>,
    rooms: BTreeMap<RoomName, Vec<Stored>>,
    keys: HashMap<Scope, (IdempotencyKey, u64, MessageId)>,
    watermarks: HashMap<UserId, u64>,
    skipped: BTreeSet<(UserId, u64)>,
    damaged: BTreeSet<RoomName>,
}

/// Caller, room and key.
type Scope = (Arc<str>, RoomName, Arc<str>);

#[derive(Clone)]
struct Stored {
    entry: LogEntry,
    generation: i64,
    at: Instant,
}

impl Data {
    /// Holds the store for one more node, which gets all generations: the last one, or the next one if the database is another process than it
    /// was, or nobody holds the store.
    pub(in crate::store) fn join(&mut self, instance: u64) -> Vec<Generation> {
        let is_held = self.renewed.is_some_and(|renewed| renewed.elapsed() < LEASE);
        if self.instance != instance || !is_held {
            let number = self.generations.last().map_or(0, |(number, _)| *number) + 1;
            self.generations.push((number, super::super::schema::new_epoch().into()));
            self.instance = instance;
        }
        self.renewed = Some(Instant::now());
        self.generations.iter().map(|(number, epoch)| Generation { number: *number, epoch: epoch.clone() }).collect()
    }

    /// Whether a transaction of this epoch may go on.
    pub(in crate::store) fn renew(&mut self, instance: u64, epoch: &str) -> bool {
        let is_held = self.instance == instance && self.epoch().is_some_and(|current| **current == *epoch);
        if is_held {
            self.renewed = Some(Instant::now());
        }
        is_held
    }

    /// Whether the last generation began in this process of the database.
    pub(in crate::store) fn is_of(&self, instance: u64) -> bool {
        self.instance == instance
    }

    pub(in crate::store) fn epoch(&self) -> Option<&Arc<str>> {
        self.generations.last().map(|(_, epoch)| epoch)
    }

    pub(in crate::store) fn append(&mut self, messages: &[NewMessage], began: Instant) -> Vec<Appended> {
        messages.iter().map(|message| self.append_one(message, began)).collect()
    }

    fn append_one(&mut self, message: &NewMessage, at: Instant) -> Appended {
        let (generation, epoch) = self.generations.last().cloned().unwrap_or_default();
        let position = |number| Position::new(epoch.clone(), number);
        let key = message.idempotency.as_ref();
        let scope = key.map(|key| (key.caller.clone(), message.room.clone(), key.key.clone()));
        if let Some((known, number, id)) = scope.as_ref().and_then(|scope| self.keys.get(scope)) {
            let is_same = key.is_some_and(|key| key.request_hash == known.request_hash);
            return if is_same {
                Appended::Known { position: position(*number), id: *id }
            } else {
                Appended::KeyReused
            };
        }
        let room = self.rooms.entry(message.room.clone()).or_default();
        let number = room.len() as u64 + 1;
        let entry = LogEntry {
            number,
            id: message.id,
            event: message.event.clone(),
            payload: message.payload.clone(),
            except_users: message.except_users.clone(),
            stored_at_ms: 0,
        };
        room.push(Stored { entry, generation, at });
        if let Some((scope, key)) = scope.zip(key) {
            self.keys.insert(scope, (key.clone(), number, message.id));
        }
        Appended::New { position: position(number), direct: None }
    }

    pub(in crate::store) fn last(&self, room: &RoomName) -> u64 {
        self.rooms.get(room).map_or(0, |stored| stored.len() as u64)
    }

    /// All messages of a room.
    pub(in crate::store) fn all(&self, room: &RoomName) -> Vec<LogEntry> {
        self.rooms.get(room).into_iter().flatten().map(|stored| stored.entry.clone()).collect()
    }

    pub(in crate::store) fn list(&self, room: &RoomName, Window { after, max }: Window) -> (Vec<LogEntry>, bool) {
        let mut messages = self.all(room).split_off(usize::try_from(after.min(self.last(room))).unwrap_or_default());
        let has_more = messages.len() > max as usize;
        messages.truncate(max as usize);
        (messages, has_more)
    }

    pub(in crate::store) fn at(&self, room: &RoomName, positions: &[u64]) -> Vec<LogEntry> {
        self.all(room).into_iter().filter(|entry| positions.contains(&entry.number)).collect()
    }

    pub(in crate::store) fn first_stored_within(&self, room: &RoomName, period: Duration) -> Option<u64> {
        let mut stored = self.rooms.get(room).into_iter().flatten();
        stored.find(|stored| stored.at.elapsed() <= period).map(|stored| stored.entry.number)
    }

    pub(in crate::store) fn stored_within(&self, period: Duration) -> Vec<(RoomName, u64)> {
        let is_recent = |stored: &Vec<Stored>| stored.iter().any(|stored| stored.at.elapsed() <= period);
        let recent = self.rooms.iter().filter(|(_, stored)| is_recent(stored));
        recent.map(|(room, stored)| (room.clone(), stored.len() as u64)).collect()
    }

    pub(in crate::store) fn damage(&mut self, room: &RoomName) {
        self.damaged.insert(room.clone());
    }

    pub(in crate::store) fn answer(&self, lookup: Lookup) {
        // Who asked may be gone.
        match lookup {
            Lookup::Mailbox(room, answer) if self.damaged.contains(&room) => {
                drop(answer.send(Err(Error::Broken("a test has damaged it"))));
            }
            Lookup::Mailbox(room, answer) => {
                let last = self.last(&room);
                drop(answer.send(Ok((last > 0).then_some(Mailbox { last, trimmed: 0 }))));
            }
            Lookup::Watermark(user, answer) => drop(answer.send(Ok(self.written(&user)))),
            Lookup::Generation((room, number), answer) => {
                let stored = self.rooms.get(&room).into_iter().flatten();
                let last = stored.take_while(|stored| stored.entry.number <= number).last();
                drop(answer.send(Ok(last.map_or(0, |last| last.generation))));
            }
        }
    }

    fn written(&self, user: &UserId) -> Written {
        let watermark = self.watermarks.get(user).copied().unwrap_or_default();
        Written { watermark, has_skipped: !self.skipped_of(user).is_empty() }
    }

    pub(in crate::store) fn skipped_of(&self, user: &UserId) -> Vec<u64> {
        self.skipped.iter().filter(|(other, _)| other == user).map(|(_, number)| *number).collect()
    }

    /// Notes the messages between these positions as skipped.
    pub(in crate::store) fn skip(&mut self, user: &UserId, after: u64, to: u64) {
        let last = self.last(&RoomName::of_user(user));
        self.skipped.extend((after + 1..=to.min(last)).map(|number| (user.clone(), number)));
    }

    pub(in crate::store) fn write_watermarks(
        &mut self,
        skipped: &[(UserId, u64)],
        positions: &[(UserId, u64)],
        cleared: &[(UserId, u64)],
    ) {
        for (user, number) in skipped {
            if self.watermarks.get(user).is_none_or(|position| position < number) {
                self.skipped.insert((user.clone(), *number));
            }
        }
        for (user, number) in positions {
            let position = self.watermarks.entry(user.clone()).or_default();
            *position = (*position).max(*number);
        }
        self.skipped.retain(|skipped| !cleared.contains(skipped));
    }

    pub(in crate::store) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.rooms.keys()
    }
}
