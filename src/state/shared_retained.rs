use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use redis::{Cmd, Value};

use super::{
    NewMessage,
    keys::{SWEEP_STEP, history, millis, shard_of, share, sums, sweep, time_ms, topic},
    retained::{RetainedFull, Value as RetainedValue, bytes},
};
use crate::cluster::{BusError, Engine, Shards, decode_retained, encode_retained};
use crate::message::{EventName, MessageId, Payload, RoomName, UserId};

/// The last payload of each event in each room that was to be retained: [`Retained`](super::Retained), shared by all nodes. The values of a room
/// are at the room's engine. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SharedRetained {
    shards: Shards,
    max_entries: usize,
    max_room_bytes: usize,
}

/// A value that is to be retained.
#[derive(Clone, Copy, Debug)]
pub struct RetainedPut<'a> {
    /// The API key whose value it is.
    pub caller: &'a Arc<str>,
    /// As it is sent. [`Payload::None`] takes the value away that is there.
    pub payload: &'a Payload,
    /// Users who are excepted, and are so from what is sent later too.
    pub except_users: &'a [UserId],
    /// How long it is of use; none: until it is replaced or taken away.
    pub ttl: Option<Duration>,
}

/// An emit, for a function at the engine that publishes it, with three numbers of 8 bytes (big-endian) in the middle of the frame: that of the change
/// of what the room retains, and the sequence and the number of the message in the room's history. All is kept and the frame published, or nothing.
#[derive(Clone, Debug)]
pub struct EmitCall<'a> {
    /// The audience's room.
    pub room: &'a RoomName,
    /// The emit's event.
    pub event: &'a EventName,
    /// What is retained of it.
    pub retained: Option<RetainedPut<'a>>,
    /// Its message for the room's history.
    pub kept: Option<NewMessage>,
    /// The message id, if it may come again with the same one. While its value is there it is not changed then, and the numbers are the same.
    pub once: Option<MessageId>,
    /// The room's channel.
    pub channel: &'a str,
    /// The frame before the numbers.
    pub start: &'a [u8],
    /// The frame after the numbers.
    pub rest: &'a [u8],
}

impl EmitCall<'_> {
    /// Whether something is to be kept of it.
    pub(super) fn keeps(&self) -> bool {
        self.kept.is_some() || self.keeps_value()
    }

    fn keeps_value(&self) -> bool {
        self.retained.as_ref().is_some_and(|put| !matches!(put.payload, Payload::None))
    }
}

/// What is retained of an event, and the number of the change that brought it.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedValue {
    /// Its event.
    pub event: EventName,
    /// The value.
    pub value: RetainedValue,
    /// The number of the change; 0: this node is alone.
    pub change: u64,
}

impl SharedRetained {
    /// Keeps up to so many values, of which one engine has its part, and so many bytes of one room.
    pub fn new(shards: Shards, max_entries: usize, max_room_bytes: usize) -> Self {
        let max_entries = share(max_entries, &shards);
        Self { shards, max_entries, max_room_bytes }
    }

    /// A call, for the room's engine, that keeps what is to be kept of an emit and publishes the emit. It returns the number of receivers, or one for
    /// [`SharedRetained::rejected`].
    pub fn put_command(&self, emit: &EmitCall<'_>) -> Cmd {
        let keys = self.keys(emit.room, emit.event);
        let function = if emit.keeps() { "keep" } else { "take_retained" };
        let mut call = Engine::function(function, &keys.each_ref().map(String::as_str));
        self.add_emit(&mut call, emit);
        call
    }

    /// The keys that a function needs to publish an emit.
    pub(super) fn keys(&self, room: &RoomName, event: &EventName) -> [String; 11] {
        let engine = self.shards.of(room);
        let [messages, stands, by_end, talking, silent, bytes] = history(engine, room);
        let (values, topic, waiting) = (room_key(engine, room), topic(engine, room, event), sums(engine));
        let (ends, shares) = (ends(engine), shares(engine));
        [values, ends, shares, topic, waiting, messages, stands, by_end, talking, silent, bytes]
    }

    /// Adds an emit to the arguments of a function.
    pub(super) fn add_emit(&self, call: &mut Cmd, emit: &EmitCall<'_>) {
        let EmitCall { event, retained, kept, once, channel, start, rest, .. } = emit;
        call.arg(channel).arg(start).arg(rest);
        if let Some(RetainedPut { caller, payload, except_users, ttl }) = *retained {
            let is_kept = emit.keeps_value();
            call.arg(event.as_str()).arg(u8::from(is_kept)).arg(ttl.map_or(0, millis));
            call.arg(bytes(event, payload, except_users)).arg(self.max_entries).arg(self.max_room_bytes);
            let value = if is_kept { encode_retained(payload, except_users) } else { Vec::new() };
            call.arg(&**caller).arg(value);
        } else if kept.is_some() {
            const NO_VALUE: [&str; 8] = [""; 8];
            call.arg(&NO_VALUE);
        } else {
            return;
        }
        call.arg(once.as_ref().map_or(&[][..], |id| id.as_bytes()));
        if let Some(message) = kept {
            message.add_to(call);
        }
    }

    /// Why a value was rejected with this number.
    pub fn rejected(number: i64) -> RetainedFull {
        if number == -2 { RetainedFull::RoomBytes } else { RetainedFull::Entries }
    }

    /// The number of a room's last change (0: it has no values, and had none for some minutes), and the values that are of use, ordered by event.
    /// All changes up to that number are in the values.
    pub async fn of_room(&self, room: &RoomName) -> Result<(u64, Vec<SharedValue>), BusError> {
        let engine = self.shards.of(room);
        let mut read = redis::pipe();
        read.cmd("TIME").hgetall(room_key(engine, room));
        let (time, fields): (_, HashMap<String, Vec<u8>>) = engine.query_all(&read).await?;
        let (now, mut fields) = (time_ms(time), fields);
        let number = fields.get("n").and_then(|number| str::from_utf8(number).ok()?.parse().ok()).unwrap_or_default();
        let events: Vec<_> = fields.keys().filter_map(|field| Some(field.strip_prefix('h')?.to_owned())).collect();
        let mut values: Vec<_> = events
            .into_iter()
            .filter_map(|event| {
                let head = fields.remove(&["h", &event].concat())?;
                let value = fields.remove(&["v", &event].concat())?;
                let (change, value) = value_at(now, &head, value)?;
                Some(SharedValue { event: EventName::new(&event).ok()?, value, change })
            })
            .collect();
        values.sort_by(|a, b| a.event.cmp(&b.event));
        Ok((number, values))
    }

    /// The value of an event in a room, if it is of use.
    pub async fn get(&self, room: &RoomName, event: &str) -> Result<Option<RetainedValue>, BusError> {
        let engine = self.shards.of(room);
        let mut read = redis::pipe();
        read.cmd("TIME").hmget(room_key(engine, room), &[["h", event].concat(), ["v", event].concat()][..]);
        let (time, [head, value]): (_, [Option<Vec<u8>>; 2]) = engine.query_all(&read).await?;
        let value = head.zip(value);
        Ok(value.and_then(|(head, value)| Some(value_at(time_ms(time), &head, value)?.1)))
    }

    /// Whether a value for this event can be kept in each of these rooms.
    pub async fn can_retain(
        &self,
        rooms: &[&RoomName],
        event: &EventName,
        payload: &Payload,
        except_users: &[UserId],
    ) -> Result<Result<(), RetainedFull>, BusError> {
        if matches!(payload, Payload::None) {
            return Ok(Ok(()));
        }
        let bytes = bytes(event, payload, except_users);
        let checks = self.shards.all().iter().enumerate().map(|(shard, engine)| {
            let there = rooms.iter().copied().filter(|room| shard_of(&self.shards, room) == shard);
            self.check_at(engine, there.collect(), event, bytes)
        });
        Ok(try_join_all(checks).await?.into_iter().collect())
    }

    async fn check_at(
        &self,
        engine: &Engine,
        rooms: Vec<&RoomName>,
        event: &EventName,
        bytes: usize,
    ) -> Result<Result<(), RetainedFull>, BusError> {
        if rooms.is_empty() {
            return Ok(Ok(()));
        }
        let mut read = redis::pipe();
        for room in &rooms {
            read.hmget(room_key(engine, room), &["b".to_owned(), ["h", event.as_str()].concat()][..]);
        }
        read.zcard(ends(engine));
        let mut answers: Vec<Value> = engine.query_all(&read).await?;
        let count = answers.pop().and_then(|count| redis::from_redis_value(count).ok());
        let mut count: usize = count.ok_or(BusError::Refused)?;
        for answer in answers {
            let (all, head): (Option<usize>, Option<String>) =
                redis::from_redis_value(answer).map_err(|_| BusError::Refused)?;
            let before = head.and_then(|head| head.split(' ').nth(1)?.parse::<usize>().ok());
            count += usize::from(before.is_none());
            if count > self.max_entries {
                return Ok(Err(RetainedFull::Entries));
            }
            if all.unwrap_or_default().saturating_sub(before.unwrap_or_default()) + bytes > self.max_room_bytes {
                return Ok(Err(RetainedFull::RoomBytes));
            }
        }
        Ok(Ok(()))
    }

    /// How many values an API key holds.
    pub async fn held_by(&self, caller: &str) -> Result<usize, BusError> {
        let read = async |engine: &Engine| {
            let mut read = redis::cmd("HGET");
            engine.query::<Option<usize>>(read.arg(shares(engine)).arg(caller)).await
        };
        let held = try_join_all(self.shards.all().iter().map(read)).await?;
        Ok(held.into_iter().flatten().sum())
    }

    /// Takes away some of what has expired. True if more may be left. Any node may call this at any time.
    pub async fn sweep(&self) -> Result<bool, BusError> {
        sweep(&self.shards, |engine| {
            let mut call = Engine::function("sweep_retained", &[&ends(engine), &shares(engine)]);
            call.arg(SWEEP_STEP);
            call
        })
        .await
    }
}

fn room_key(engine: &Engine, room: &RoomName) -> String {
    engine.name("v", &["{", room.as_str(), "}"].concat())
}

fn ends(engine: &Engine) -> String {
    engine.name("ends", "v")
}

fn shares(engine: &Engine) -> String {
    engine.name("shares", "v")
}

/// A value whose head is its end in milliseconds or 0, its bytes, the number of its change and its caller. Returns the number and the value; `None`: it has ended.
fn value_at(now: u64, head: &[u8], value: Vec<u8>) -> Option<(u64, RetainedValue)> {
    let mut head = str::from_utf8(head).ok()?.split(' ');
    let end: u64 = head.next()?.parse().ok()?;
    let change = head.nth(1)?.parse().ok()?;
    if end != 0 && end <= now {
        return None;
    }
    let expires_at = (end != 0).then(|| Timestamp::from_millisecond(i64::try_from(end).unwrap_or(i64::MAX)));
    let expires_at = expires_at.map(|end| end.unwrap_or(Timestamp::MAX));
    let (payload, except_users) = decode_retained(Bytes::from(value))?;
    Some((change, RetainedValue { payload, except_users, expires_at }))
}
