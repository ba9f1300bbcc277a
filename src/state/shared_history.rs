use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use redis::Cmd;

use super::{
    HistoryRule,
    keys::{SWEEP_STEP, histories, history, millis, shard_of, share, sweep},
};
use crate::cluster::{BusError, Engine, Kept, Shards, decode_kept, encode_kept};
use crate::message::{EventName, LogEntry, MessageId, Payload, RoomName, UserId};

/// The last messages of rooms: [`History`](super::History), shared by all nodes. Those of a room are at the room's engine. A sequence begins anew when
/// the engine has restarted or failed over: what was published last may be lost then. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SharedHistory {
    shards: Shards,
    rules: Arc<[HistoryRule]>,
    max_bytes: usize,
}

/// A message for a history, for a function at the engine.
#[derive(Clone, Debug)]
pub struct NewMessage {
    message: Vec<u8>,
    ttl: Option<Duration>,
    size: usize,
    age: Duration,
    max_bytes: usize,
}

/// Messages of a history, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Those that are of use.
    pub messages: Vec<LogEntry>,
    /// All up to this number are among them, or have expired.
    pub up_to: u64,
    /// The last number that there is.
    pub last: u64,
}

/// Rooms that are asked for in one round trip.
const ROOMS: usize = 128;
/// Round trips to one engine that are under way. The time that a command waits for those before it counts for its deadline, and one that exceeds it
/// closes the connection of all.
const ROUND_TRIPS: usize = 2;
/// The most bytes of a page that has more than one message.
const PAGE_BYTES: usize = 1 << 20;

impl SharedHistory {
    /// Of the rooms that these rules name, the first that matches each; up to so many bytes in all, of which one engine has its part.
    pub fn new(shards: Shards, rules: Vec<HistoryRule>, max_bytes: usize) -> Self {
        let max_bytes = share(max_bytes, &shards);
        Self { shards, rules: rules.into(), max_bytes }
    }

    fn rule(&self, room: &RoomName) -> Option<&HistoryRule> {
        self.rules.iter().find(|rule| rule.rooms.matches(room.as_str()))
    }

    /// A message for a room's history. `None`: the room has none. `ttl`: how long it is of use.
    pub fn message(
        &self,
        room: &RoomName,
        (id, event): (MessageId, &EventName),
        (payload, except_users): (&Payload, &[UserId]),
        ttl: Option<Duration>,
    ) -> Option<NewMessage> {
        let &HistoryRule { size, age, .. } = self.rule(room)?;
        let message = encode_kept(id, event, payload, except_users);
        Some(NewMessage { message, ttl, size, age, max_bytes: self.max_bytes })
    }

    /// Where a room stands. `None`: it has no history.
    pub async fn position(&self, room: &RoomName) -> Result<Option<Kept>, BusError> {
        let mut positions = self.positions(std::slice::from_ref(room)).await;
        positions.pop().map(|(_, position)| position).transpose()
    }

    /// The same of several rooms, those that have a history, in few round trips.
    pub async fn positions(&self, rooms: &[RoomName]) -> Vec<(RoomName, Result<Kept, BusError>)> {
        let mut by_shard = vec![Vec::new(); self.shards.all().len()];
        for room in rooms.iter().filter(|room| self.rule(room).is_some()) {
            by_shard[shard_of(&self.shards, room)].push(room.clone());
        }
        let engines = self.shards.all().iter().zip(&by_shard);
        let read = engines.map(async |(engine, rooms)| {
            let chunks: Vec<_> = rooms.chunks(ROOMS).map(|rooms| Self::positions_at(engine, rooms)).collect();
            stream::iter(chunks).buffered(ROUND_TRIPS).concat().await
        });
        join_all(read).await.into_iter().flatten().collect()
    }

    async fn positions_at(engine: &Engine, rooms: &[RoomName]) -> Vec<(RoomName, Result<Kept, BusError>)> {
        let (mut positions, mut to_begin) = (Vec::with_capacity(rooms.len()), Vec::new());
        for (room, position) in rooms.iter().zip(Self::ask(engine, "stand", rooms).await) {
            match position.transpose() {
                Some(position) => positions.push((room.clone(), position)),
                None => to_begin.push(room.clone()),
            }
        }
        if !to_begin.is_empty() {
            let begun = Self::ask(engine, "begin", &to_begin).await;
            let begun = begun.into_iter().map(|position| position.and_then(|begun| begun.ok_or(BusError::Refused)));
            positions.extend(to_begin.into_iter().zip(begun));
        }
        positions
    }

    /// What a function says of where rooms stand. `None`: that is to begin.
    async fn ask(engine: &Engine, function: &str, rooms: &[RoomName]) -> Vec<Result<Option<Kept>, BusError>> {
        let call = |room| Engine::function(function, &history(engine, room).each_ref().map(String::as_str));
        let calls: Vec<_> = rooms.iter().map(call).collect();
        let kept = |(sequence, number): (Vec<u8>, u64)| {
            let sequence = sequence.try_into().map_err(|_| BusError::Refused)?;
            Ok(Kept { sequence: u64::from_be_bytes(sequence), number })
        };
        match engine.run_all::<Option<(Vec<u8>, u64)>>(&calls).await {
            Ok(answers) => answers.into_iter().map(|answer| answer?.map(kept).transpose()).collect(),
            Err(error) => vec![Err(error); rooms.len()],
        }
    }

    /// What came after a position, up to so many messages. `None`: that cannot be told whole.
    pub async fn after(&self, room: &RoomName, after: Kept, max: usize) -> Result<Option<Page>, BusError> {
        let Some(rule) = self.rule(room) else { return Ok(None) };
        let engine = self.shards.of(room);
        let mut call = Engine::function("read_messages", &history(engine, room).each_ref().map(String::as_str));
        call.arg(&after.sequence.to_be_bytes()[..]).arg(after.number).arg(max).arg(PAGE_BYTES).arg(millis(rule.age));
        let answer: Vec<redis::Value> = engine.run(&call).await?;
        let mut answer = answer.into_iter();
        let mut number = || -> Option<u64> { redis::from_redis_value(answer.next()?).ok() };
        let Some((up_to, last)) = number().zip(number()) else {
            return Ok(None);
        };
        let mut messages = Vec::new();
        while let [Some(number), Some(message), Some(time)] = [answer.next(), answer.next(), answer.next()] {
            let entry = entry(number, message, time).ok_or(BusError::Refused)?;
            messages.push(entry);
        }
        Ok(Some(Page { messages, up_to, last }))
    }

    /// Takes away some of what is too old. True if more may be left. Any node may call this at any time.
    pub async fn sweep(&self) -> Result<bool, BusError> {
        if self.rules.is_empty() {
            return Ok(false);
        }
        sweep(&self.shards, |engine| {
            let mut call = Engine::function("sweep_histories", &histories(engine).each_ref().map(String::as_str));
            call.arg(SWEEP_STEP);
            call
        })
        .await
    }
}

impl NewMessage {
    /// Adds it to the arguments of a function that publishes an emit.
    pub(super) fn add_to(&self, call: &mut Cmd) {
        let Self { message, ttl, size, age, max_bytes } = self;
        call.arg(message).arg(ttl.map_or(0, millis)).arg(*size).arg(millis(*age)).arg(*max_bytes);
    }
}

fn entry(number: redis::Value, message: redis::Value, time: redis::Value) -> Option<LogEntry> {
    let number = redis::from_redis_value(number).ok()?;
    let message: Vec<u8> = redis::from_redis_value(message).ok()?;
    let stored_at_ms = redis::from_redis_value(time).ok()?;
    let (id, event, payload, except_users) = decode_kept(Bytes::from(message))?;
    Some(LogEntry { number, id, event, payload, except_users, stored_at_ms })
}
