use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::hub::Member;
use crate::message::RoomName;

/// Keeps a room's values and its frames together among several nodes. A connection that joins reads the values first, and frames with changes
/// may come before and after that.
#[derive(Default)]
pub(super) struct RetainedChanges {
    rooms: Mutex<HashMap<RoomName, Changes>>,
    /// Connections that joined while the values could not be read.
    pub(super) owed: Mutex<Vec<(Weak<Member>, RoomName)>>,
}

#[derive(Default)]
struct Changes {
    /// The last change whose frame came here, and when.
    last: Option<(u64, Instant)>,
    read: Vec<Read>,
}

impl Changes {
    fn note(&mut self, number: u64) {
        let last = self.last.map_or(number, |(last, _)| last.max(number));
        self.last = Some((last, Instant::now()));
    }
}

/// A connection that has read the values up to a change.
struct Read {
    member: Weak<Member>,
    number: u64,
    /// The changes of which it was given the values.
    given: Vec<u64>,
    at: Instant,
}

/// Frames that are older are not executed, so what they would meet can be forgotten. More than two of the longest deadlines.
const REMEMBERED: Duration = Duration::from_secs(30);

impl RetainedChanges {
    /// Notes a change that is executed with the room locked. Returns the connections that have read a state of the room with it, and whether they
    /// were given its value: in the others the value was replaced or taken away already.
    pub(super) fn executed(&self, room: &RoomName, number: u64) -> Vec<(Arc<Member>, bool)> {
        let mut rooms = self.rooms.lock();
        let changes = rooms.entry(room.clone()).or_default();
        changes.note(number);
        let have_it = changes.read.iter().filter(|read| read.number >= number);
        have_it.filter_map(|read| Some((read.member.upgrade()?, read.given.contains(&number)))).collect()
    }

    /// Notes a change that is not executed here.
    pub(super) fn missed(&self, room: &RoomName, number: u64) {
        self.rooms.lock().entry(room.clone()).or_default().note(number);
    }

    pub(super) fn last(&self, room: &RoomName) -> u64 {
        self.rooms.lock().get(room).and_then(|changes| changes.last).map_or(0, |(last, _)| last)
    }

    /// Forgets the last change of a room: the engine has lost it.
    pub(super) fn forget(&self, room: &RoomName) {
        if let Some(changes) = self.rooms.lock().get_mut(room) {
            changes.last = None;
        }
    }

    /// Notes that a connection was given the values of these changes, and has read all changes up to a number.
    pub(super) fn read(&self, room: &RoomName, member: &Arc<Member>, number: u64, given: Vec<u64>) {
        if number > 0 {
            let read = Read { member: Arc::downgrade(member), number, given, at: Instant::now() };
            self.rooms.lock().entry(room.clone()).or_default().read.push(read);
        }
    }

    /// Forgets what no frame can meet any more.
    pub(super) fn sweep(&self) {
        self.rooms.lock().retain(|_, changes| {
            changes.last.take_if(|(_, at)| at.elapsed() >= REMEMBERED);
            changes.read.retain(|read| read.at.elapsed() < REMEMBERED);
            changes.last.is_some() || !changes.read.is_empty()
        });
        self.owed.lock().retain(|(member, _)| member.strong_count() > 0);
    }
}
