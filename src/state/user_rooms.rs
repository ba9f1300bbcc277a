use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::shares::Shares;
use crate::message::{RoomName, UserId};

/// The most rooms that are noted of one user at one time: each connection may be in all of them.
pub(super) const MAX_PER_USER: usize = 1_000;

/// How many one sweep forgets.
const SWEEP_STEP: usize = 1_000;
/// How soon the ended ones are swept away.
pub(super) const SWEPT_WITHIN: Duration = Duration::from_secs(1);

/// Users and rooms that a backend has put together for some time, for connections that are yet to come, too: those in which the user is,
/// or those that the user may join.
pub struct UserRooms {
    max_entries: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    rooms_by_user: HashMap<UserId, HashMap<RoomName, Entry>>,
    /// All of them, in the order of their ends.
    by_end: BTreeSet<(Instant, UserId, RoomName)>,
    shares: Shares,
}

struct Entry {
    until: Instant,
    /// The API key that has put the two together last.
    caller: Arc<str>,
}

/// No more can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// When one of them ends.
    pub retry_after: Duration,
}

impl UserRooms {
    /// Keeps up to so many, counted per user and room.
    pub fn new(max_entries: usize) -> Self {
        Self { max_entries, entries: Mutex::default() }
    }

    /// Puts a user and a room together for some time from now on, for an API key.
    pub fn put(&self, caller: &Arc<str>, user: &UserId, room: &RoomName, ttl: Duration) -> Result<(), TooMany> {
        let mut entries = self.entries.lock();
        let known = entries.rooms_by_user.get(user).is_some_and(|rooms| rooms.contains_key(room));
        if !known && entries.is_full(user, self.max_entries) {
            return Err(TooMany { retry_after: entries.first_end().max(SWEPT_WITHIN) });
        }
        entries.remove(user, room);
        let until = Instant::now() + ttl;
        let entry = Entry { until, caller: caller.clone() };
        entries.rooms_by_user.entry(user.clone()).or_default().insert(room.clone(), entry);
        entries.by_end.insert((until, user.clone(), room.clone()));
        entries.shares.add(caller, 1);
        Ok(())
    }

    /// How many an API key holds.
    pub fn held_by(&self, caller: &str) -> usize {
        self.entries.lock().shares.of(caller)
    }

    /// Takes them apart.
    pub fn take(&self, user: &UserId, room: &RoomName) {
        self.entries.lock().remove(user, room);
    }

    /// The rooms of a user.
    pub fn rooms(&self, user: &UserId) -> Vec<RoomName> {
        let now = Instant::now();
        let entries = self.entries.lock();
        let rooms = entries.rooms_by_user.get(user).into_iter().flatten();
        rooms.filter(|(_, entry)| entry.until > now).map(|(room, _)| room.clone()).collect()
    }

    /// Whether the two are together.
    pub fn has(&self, user: &UserId, room: &RoomName) -> bool {
        let now = Instant::now();
        let entries = self.entries.lock();
        entries.rooms_by_user.get(user).and_then(|rooms| rooms.get(room)).is_some_and(|entry| entry.until > now)
    }

    /// Forgets some of those that have ended, and says which. Empty: all that have ended are forgotten.
    pub fn sweep(&self) -> Vec<(UserId, RoomName)> {
        let (mut entries, now) = (self.entries.lock(), Instant::now());
        let mut ended = Vec::new();
        while ended.len() < SWEEP_STEP
            && let Some((until, user, room)) = entries.by_end.first().cloned()
            && until <= now
        {
            entries.remove(&user, &room);
            ended.push((user, room));
        }
        ended
    }
}

impl Entries {
    fn is_full(&self, user: &UserId, max: usize) -> bool {
        self.by_end.len() >= max || self.rooms_by_user.get(user).is_some_and(|rooms| rooms.len() >= MAX_PER_USER)
    }

    fn remove(&mut self, user: &UserId, room: &RoomName) {
        let Some(rooms) = self.rooms_by_user.get_mut(user) else { return };
        let Some(Entry { until, caller }) = rooms.remove(room) else { return };
        if rooms.is_empty() {
            self.rooms_by_user.remove(user);
        }
        self.by_end.remove(&(until, user.clone(), room.clone()));
        self.shares.remove(&caller, 1);
    }

    fn first_end(&self) -> Duration {
        let first = self.by_end.first();
        first.map_or(Duration::ZERO, |(until, ..)| until.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn caller() -> Arc<str> {
        "test".into()
    }

    fn user(id: &str) -> UserId {
        UserId::new(id).unwrap()
    }

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_ends_with_its_time() {
        let user_rooms = UserRooms::new(9);
        user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).unwrap();
        assert_eq!(user_rooms.rooms(&user("1")), [room("a")]);
        assert_eq!(user_rooms.rooms(&user("2")), []);
        tokio::time::advance(HOUR).await;
        assert_eq!(user_rooms.rooms(&user("1")), []);
        assert!(!user_rooms.has(&user("1"), &room("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_bounded_and_those_that_ended_make_room() {
        let user_rooms = UserRooms::new(2);
        user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).unwrap();
        user_rooms.put(&caller(), &user("1"), &room("b"), 2 * HOUR).unwrap();
        user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).expect("it is kept already");
        assert_eq!(user_rooms.put(&caller(), &user("2"), &room("a"), HOUR), Err(TooMany { retry_after: HOUR }));
        tokio::time::advance(HOUR).await;
        assert_eq!(user_rooms.sweep(), [(user("1"), room("a"))]);
        user_rooms.put(&caller(), &user("2"), &room("a"), HOUR).unwrap();
    }

    #[test]
    fn what_is_taken_leaves_nothing() {
        let user_rooms = UserRooms::new(1);
        user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).unwrap();
        user_rooms.take(&user("1"), &room("a"));
        user_rooms.take(&user("1"), &room("a"));
        assert!(user_rooms.entries.lock().rooms_by_user.is_empty());
        user_rooms.put(&caller(), &user("2"), &room("b"), HOUR).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_key_holds_what_it_has_put_last_until_that_ends() {
        let (user_rooms, other) = (UserRooms::new(9), Arc::from("other"));
        let held = || (user_rooms.held_by("test"), user_rooms.held_by("other"));
        user_rooms.put(&caller(), &user("1"), &room("a"), HOUR).unwrap();
        user_rooms.put(&caller(), &user("1"), &room("b"), HOUR).unwrap();
        user_rooms.put(&other, &user("1"), &room("b"), 2 * HOUR).unwrap();
        assert_eq!(held(), (1, 1));
        tokio::time::advance(HOUR).await;
        user_rooms.sweep();
        assert_eq!(held(), (0, 1));
        user_rooms.take(&user("1"), &room("b"));
        assert_eq!(held(), (0, 0));
    }
}
