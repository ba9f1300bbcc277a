use std::{collections::HashMap, sync::Arc};

use super::{AckSink, Frame};
use crate::message::RoomName;

/// What a connection has not been given yet.
#[derive(Default)]
pub(super) struct CatchingUp {
    /// The transport takes frames.
    pub(super) is_open: bool,
    /// What came before it did, but for the rooms below.
    waiting: Vec<Waiting>,
    /// The rooms of which kept messages are being replayed: what is live there comes after those.
    replaying: HashMap<RoomName, Replaying>,
    /// What waits takes up so much.
    bytes: usize,
    /// The device is to be told how catching up went.
    is_to_be_told: bool,
    /// The last kept message that went out live meanwhile, by room.
    sent: HashMap<RoomName, u64>,
}

/// A room of which kept messages are being replayed.
#[derive(Default)]
struct Replaying {
    waiting: Vec<Waiting>,
    /// Who waits for an acknowledgement of a message that is still to be replayed, by its number.
    acks: HashMap<u64, AckSink>,
    /// What is kept cannot be read for now, so what is not kept does not wait for it.
    is_log_unreadable: bool,
}

/// A frame that waits.
pub(super) struct Waiting {
    pub(super) frame: Arc<Frame>,
    pub(super) ack: Option<AckSink>,
    /// In a room that is being replayed: the number of the first message that was kept after it.
    before: Option<u64>,
}

/// What is to become of a frame.
pub(super) enum Fate {
    /// It goes to the transport.
    Send(Option<AckSink>),
    /// It waits here.
    Waits,
    /// It is kept: replaying comes to it.
    Replayed,
    /// Too much waits already.
    Full,
}

impl CatchingUp {
    /// Takes a frame for a room, or for the connection alone.
    pub(super) fn take(
        &mut self,
        frame: &Arc<Frame>,
        room: Option<&RoomName>,
        ack: Option<AckSink>,
        max_bytes: usize,
    ) -> Fate {
        let is_full = self.bytes > max_bytes && !frame.on_join;
        let replaying = room.and_then(|room| self.replaying.get_mut(room)).filter(|_| !frame.on_join);
        match (replaying, &frame.entry) {
            (Some(replaying), Some(entry)) => {
                let open_ended = replaying.waiting.iter_mut().rev().take_while(|waiting| waiting.before.is_none());
                open_ended.for_each(|waiting| waiting.before = Some(entry.number));
                replaying.acks.extend(ack.map(|ack| (entry.number, ack)));
                return Fate::Replayed;
            }
            (Some(Replaying { is_log_unreadable: true, .. }) | None, entry) if self.is_open => {
                if let (Some(room), Some(entry)) = (room, entry) {
                    self.sent.insert(room.clone(), entry.number);
                }
                return Fate::Send(ack);
            }
            (Some(_) | None, _) if is_full => return Fate::Full,
            (Some(replaying), None) => replaying.waiting.push(Waiting { frame: frame.clone(), ack, before: None }),
            (None, _) => self.waiting.push(Waiting { frame: frame.clone(), ack, before: None }),
        }
        self.bytes += if frame.on_join { 0 } else { frame.size() };
        Fate::Waits
    }

    /// From now on what is live in a room waits.
    pub(super) fn begin_replay(&mut self, room: &RoomName) {
        self.replaying.entry(room.clone()).or_default();
    }

    /// What has waited for the transport.
    pub(super) fn open(&mut self) -> Vec<Waiting> {
        self.is_open = true;
        let waiting = std::mem::take(&mut self.waiting);
        self.given(waiting)
    }

    /// What came in a room before the kept message with this number.
    pub(super) fn before(&mut self, room: &RoomName, number: u64) -> Vec<Waiting> {
        let Some(Replaying { waiting, .. }) = self.replaying.get_mut(room) else {
            return Vec::new();
        };
        let count = waiting.iter().take_while(|w| w.before.is_some_and(|before| before <= number)).count();
        let due = waiting.drain(..count).collect();
        self.given(due)
    }

    /// Who waits for the acknowledgement of a message that is to be replayed now.
    pub(super) fn ack_of(&mut self, room: &RoomName, number: u64) -> Option<AckSink> {
        self.replaying.get_mut(room)?.acks.remove(&number)
    }

    /// All that waits in a room, which is replayed.
    pub(super) fn caught_up(&mut self, room: &RoomName) -> Vec<Waiting> {
        let Replaying { waiting, .. } = self.replaying.remove(room).unwrap_or_default();
        self.given(waiting)
    }

    /// What waits in a room, of which what is kept cannot be read for now.
    pub(super) fn log_unreadable(&mut self, room: &RoomName) -> Vec<Waiting> {
        let Some(replaying) = self.replaying.get_mut(room) else {
            return Vec::new();
        };
        replaying.is_log_unreadable = true;
        let waiting = std::mem::take(&mut replaying.waiting);
        self.given(waiting)
    }

    /// What is kept in a room can be read again.
    pub(super) fn log_readable(&mut self, room: &RoomName) {
        if let Some(replaying) = self.replaying.get_mut(room) {
            replaying.is_log_unreadable = false;
        }
    }

    /// Whether nothing is missing any more.
    pub(super) fn is_done(&self) -> bool {
        self.is_open && self.replaying.is_empty() && !self.is_to_be_told
    }

    /// The device is to be told how catching up went.
    pub(super) fn will_be_told(&mut self) {
        self.is_to_be_told = true;
    }

    /// It is told now: what went out live since it caught up, by room.
    pub(super) fn told(&mut self) -> HashMap<RoomName, u64> {
        self.is_to_be_told = false;
        std::mem::take(&mut self.sent)
    }

    pub(super) fn is_replaying(&self, room: &RoomName) -> bool {
        self.replaying.contains_key(room)
    }

    fn given(&mut self, waiting: Vec<Waiting>) -> Vec<Waiting> {
        let size = |waiting: &Waiting| if waiting.frame.on_join { 0 } else { waiting.frame.size() };
        self.bytes -= waiting.iter().map(size).sum::<usize>();
        waiting
    }
}
