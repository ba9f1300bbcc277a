use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use redis::Cmd;

use super::{
    keys::{SWEEP_STEP, millis, share, sweep, time_ms},
    user_rooms::{MAX_PER_USER, SWEPT_WITHIN, TooMany},
};
use crate::cluster::{BusError, Engine, Shards};
use crate::message::{RoomName, UserId};

/// Users whose rooms are read in one round trip.
const USERS_PER_READ: usize = 128;

/// Users and rooms that a backend has put together for some time: [`UserRooms`](super::UserRooms), shared by all nodes. What a user has is at
/// the engine of the user's room. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SharedUserRooms {
    shards: Shards,
    kind: &'static str,
    max_entries: usize,
}

/// Why a user and a room were not put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// There are as many as there may be.
    #[error("no more users and rooms can be kept together")]
    TooMany(TooMany),
    /// The engine did not do it, or did not answer.
    #[error(transparent)]
    Bus(#[from] BusError),
}

fn too_many(first_end_ms: u64) -> TooMany {
    TooMany { retry_after: Duration::from_millis(first_end_ms).max(SWEPT_WITHIN) }
}

type Rooms = Vec<(RoomName, Duration)>;

impl SharedUserRooms {
    /// Keeps up to so many, counted per user and room: one engine keeps its part of them. `kind` is in the names of the keys: `j` for
    /// memberships, `g` for grants.
    pub fn new(shards: Shards, kind: &'static str, max_entries: usize) -> Self {
        let max_entries = share(max_entries, &shards);
        Self { shards, kind, max_entries }
    }

    /// Puts a user and a room together for some time from now on, for an API key.
    pub async fn put(&self, caller: &Arc<str>, user: &UserId, room: &RoomName, ttl: Duration) -> Result<(), PutError> {
        let call = self.put_call("put_user_room", caller, (user, room), ttl);
        match u64::try_from(self.place(user).0.run::<i64>(&call).await?) {
            Err(_) => Ok(()),
            Ok(first_end) => Err(PutError::TooMany(too_many(first_end))),
        }
    }

    fn put_call(&self, name: &str, caller: &Arc<str>, (user, room): (&UserId, &RoomName), ttl: Duration) -> Cmd {
        let (engine, key) = self.place(user);
        let mut call = Engine::function(name, &[&key, &self.ends(engine), &self.shares(engine)]);
        call.arg(room.as_str()).arg(millis(ttl)).arg(self.max_entries).arg(MAX_PER_USER).arg(&**caller);
        call
    }

    /// A call that does the same and publishes a frame: notes and frames have one order. Its answer is a number of receivers, or one for
    /// [`SharedUserRooms::rejected`].
    pub fn put_command(
        &self,
        caller: &Arc<str>,
        (user, room): (&UserId, &RoomName),
        ttl: Duration,
        (channel, head, tail): (&str, &[u8], &[u8]),
    ) -> Cmd {
        let mut call = self.put_call("put_and_publish", caller, (user, room), ttl);
        call.arg(channel).arg(head).arg(tail);
        call
    }

    /// Why a call was rejected with this number.
    pub fn rejected(number: i64) -> TooMany {
        too_many((number + 1).unsigned_abs())
    }

    /// A call that takes a user and a room apart, and publishes a frame.
    pub fn take_command(&self, user: &UserId, room: &RoomName, (channel, head, tail): (&str, &[u8], &[u8])) -> Cmd {
        let (engine, key) = self.place(user);
        let mut call = Engine::function("take_and_publish", &[&key, &self.ends(engine), &self.shares(engine)]);
        call.arg(room.as_str()).arg(channel).arg(head).arg(tail);
        call
    }

    /// The rooms of a user, each with what is left of its time.
    pub async fn rooms(&self, user: &UserId) -> Result<Rooms, BusError> {
        let (engine, key) = self.place(user);
        let mut read = redis::pipe();
        read.cmd("TIME").hgetall(key);
        let (time, rooms): (_, HashMap<String, String>) = engine.query_all(&read).await?;
        Ok(rooms_at(time_ms(time), rooms))
    }

    /// The same for several users, in their order: few round trips, for a node that catches up.
    pub async fn rooms_of_many(&self, users: &[UserId]) -> Result<Vec<Rooms>, BusError> {
        let places: Vec<_> = users.iter().map(|user| self.place(user)).collect();
        let reads = self.shards.all().iter().map(|engine| {
            let is_there = |(_, (place, _)): &(usize, &(&Engine, String))| std::ptr::eq(*place, engine);
            let there = places.iter().enumerate().filter(is_there);
            rooms_at_engine(engine, there.map(|(index, (_, key))| (index, key.as_str())).collect())
        });
        let mut all = vec![Rooms::new(); users.len()];
        for (index, rooms) in try_join_all(reads).await?.into_iter().flatten() {
            all[index] = rooms;
        }
        Ok(all)
    }

    /// Whether the two are together.
    pub async fn has(&self, user: &UserId, room: &RoomName) -> Result<bool, BusError> {
        let (engine, key) = self.place(user);
        let mut read = redis::pipe();
        read.cmd("TIME").hget(key, room.as_str());
        let (time, value): (_, Option<String>) = engine.query_all(&read).await?;
        Ok(value.and_then(|value| left_at(time_ms(time), &value)).is_some())
    }

    /// How many an API key holds.
    pub async fn held_by(&self, caller: &str) -> Result<usize, BusError> {
        let read = async |engine: &Engine| {
            let mut read = redis::cmd("HGET");
            engine.query::<Option<usize>>(read.arg(self.shares(engine)).arg(caller)).await
        };
        let held = try_join_all(self.shards.all().iter().map(read)).await?;
        Ok(held.into_iter().flatten().sum())
    }

    /// Forgets some of those that have ended. True if more may be left. Any node may call this at any time.
    pub async fn sweep(&self) -> Result<bool, BusError> {
        sweep(&self.shards, |engine| {
            let mut call = Engine::function("sweep_user_rooms", &[&self.ends(engine), &self.shares(engine)]);
            call.arg(SWEEP_STEP);
            call
        })
        .await
    }

    /// The engine of a user, and the key there.
    fn place(&self, user: &UserId) -> (&Engine, String) {
        let room = RoomName::of_user(user);
        let engine = self.shards.of(&room);
        (engine, engine.name(self.kind, &["{", room.as_str(), "}"].concat()))
    }

    fn ends(&self, engine: &Engine) -> String {
        engine.name("ends", self.kind)
    }

    fn shares(&self, engine: &Engine) -> String {
        engine.name("shares", self.kind)
    }
}

async fn rooms_at_engine(engine: &Engine, users: Vec<(usize, &str)>) -> Result<Vec<(usize, Rooms)>, BusError> {
    let mut all = Vec::with_capacity(users.len());
    for users in users.chunks(USERS_PER_READ) {
        let mut read = redis::pipe();
        for (_, key) in users {
            read.hgetall(*key);
        }
        read.cmd("TIME");
        let mut answers: Vec<redis::Value> = engine.query_all(&read).await?;
        let time = answers.pop().and_then(|time| redis::from_redis_value(time).ok()).ok_or(BusError::Refused)?;
        for ((index, _), rooms) in users.iter().zip(answers) {
            let rooms = redis::from_redis_value(rooms).map_err(|_| BusError::Refused)?;
            all.push((*index, rooms_at(time_ms(time), rooms)));
        }
    }
    Ok(all)
}

fn rooms_at(now: u64, rooms: HashMap<String, String>) -> Rooms {
    let room = |(room, value): (String, String)| Some((RoomName::new(&room).ok()?, left_at(now, &value)?));
    rooms.into_iter().filter_map(room).collect()
}

/// What is left of the time of an entry, which is its end and the caller. `None`: it has ended.
fn left_at(now: u64, value: &str) -> Option<Duration> {
    let (end, _) = value.split_once(' ')?;
    let end: u64 = end.parse().ok()?;
    (end > now).then(|| Duration::from_millis(end - now))
}
