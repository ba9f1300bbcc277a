use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use super::{AckSink, Frame};
use crate::message::{Position, RoomName};

/// What a connection has not been given yet.
#[derive(Default)]
pub(super) struct CatchingUp {
    /// The transport takes frames.
    pub(super) is_open: bool,
    /// What came before it did, but for the rooms below.
    waiting: Vec<Waiting>,
    /// The rooms of which kept messages are being replayed: what is live there comes after those.
    replaying: HashMap<RoomName, ReplayingRoom>,
    /// What waits takes up so much.
    bytes: usize,
    /// Plain frames to all rooms pass: a log cannot be read, or a read takes long.
    is_stalled: bool,
    /// Total duration of the reads of logs.
    read_time: Duration,
    /// The device is to be told how catching up went.
    awaits_resumed: bool,
    /// What went out live meanwhile.
    sent: HashMap<RoomName, SentLive>,
}

/// Maximum total duration of the reads that plain frames wait for: a slow store delays kept messages only.
const MAX_READ_TIME: Duration = Duration::from_secs(2);

/// What of a room went out live before its device is told how catching up went.
#[derive(Clone, Debug, Default)]
pub struct SentLive {
    /// Where the last kept message stands.
    pub last: Option<Position>,
    /// The last gap that the device was told of: that message came after it.
    pub gap: Option<Position>,
}

/// What becomes of plain frames to a room that is being replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainFrames {
    /// They wait for what was kept before them.
    Wait,
    /// They wait only for what was kept since the connection joined.
    PassOlder,
    /// They do not wait: what is kept cannot be read for now.
    Pass,
}

/// A room of which kept messages are being replayed.
struct ReplayingRoom {
    waiting: Vec<Waiting>,
    /// Acknowledgements of messages that are still to be replayed, by number.
    acks: HashMap<u64, AckSink>,
    plain_frames: PlainFrames,
    /// Plain frames have waited for what was kept before the connection joined, and do not again.
    has_waited: bool,
    /// A message was kept since the connection joined: later plain frames wait for it.
    has_new_entry: bool,
    /// Kept frames wait here in their order, as replaying ends before them.
    is_buffering: bool,
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
        let size = if frame.on_join { 0 } else { frame.size() };
        let replaying = room.and_then(|room| self.replaying.get_mut(room)).filter(|_| !frame.on_join);
        let replaying = replaying.filter(|replaying| frame.entry.is_some() || !replaying.lets_pass());
        let waiting = match (replaying, &frame.entry) {
            (Some(replaying), Some(entry)) => {
                replaying.kept(entry.position.number);
                if replaying.is_buffering && is_full {
                    self.bytes -= replaying.stop_buffering();
                }
                if !replaying.is_buffering {
                    replaying.acks.extend(ack.map(|ack| (entry.position.number, ack)));
                    return Fate::Replayed;
                }
                replaying.waiting.push(Waiting { frame: frame.clone(), ack, before: Some(entry.position.number) });
                self.bytes += size;
                return Fate::Replayed;
            }
            (None, entry) if self.is_open => {
                if let (Some(room), Some(entry)) = (room, entry) {
                    self.sent.entry(room.clone()).or_default().last = Some(entry.position.clone());
                }
                return Fate::Send(ack);
            }
            (Some(_) | None, _) if is_full => return Fate::Full,
            (Some(replaying), None) => &mut replaying.waiting,
            (None, _) => &mut self.waiting,
        };
        waiting.push(Waiting { frame: frame.clone(), ack, before: None });
        self.bytes += size;
        Fate::Waits
    }

    /// Begins to replay a room: kept frames are left to replaying from now on.
    pub(super) fn begin_replay(&mut self, room: &RoomName, plain_frames: PlainFrames) {
        let replaying = ReplayingRoom {
            waiting: Vec::new(),
            acks: HashMap::new(),
            plain_frames,
            has_waited: false,
            has_new_entry: false,
            is_buffering: false,
        };
        self.replaying.entry(room.clone()).or_insert(replaying);
    }

    /// The connection has left a room: what waits there is dropped.
    pub(super) fn leave(&mut self, room: &RoomName) {
        if let Some(replaying) = self.replaying.remove(room) {
            self.bytes -= replaying.waiting.iter().map(Waiting::bytes).sum::<usize>();
        }
    }

    /// Kept frames of a room wait from now on, up to the bound in bytes, rather than be left to replaying.
    pub(super) fn begin_buffering(&mut self, room: &RoomName) {
        if let Some(replaying) = self.replaying.get_mut(room) {
            replaying.is_buffering = true;
        }
    }

    /// Kept frames of a room are left to replaying again, those that have waited, too: they are not all that came.
    pub(super) fn stop_buffering(&mut self, room: &RoomName) {
        if let Some(replaying) = self.replaying.get_mut(room) {
            self.bytes -= replaying.stop_buffering();
        }
    }

    /// Whether all kept frames of a room have waited since `begin_buffering`.
    pub(super) fn is_buffering(&self, room: &RoomName) -> bool {
        self.replaying.get(room).is_some_and(|replaying| replaying.is_buffering)
    }

    /// What has waited for the transport.
    pub(super) fn open(&mut self) -> Vec<Waiting> {
        self.is_open = true;
        let waiting = mem::take(&mut self.waiting);
        self.given(waiting)
    }

    /// What came in a room before the kept message with this number.
    pub(super) fn before(&mut self, room: &RoomName, number: u64) -> Vec<Waiting> {
        let Some(ReplayingRoom { waiting, .. }) = self.replaying.get_mut(room) else {
            return Vec::new();
        };
        let is_due = |waiting: &&Waiting| waiting.is_plain() && waiting.before.is_some_and(|before| before <= number);
        let count = waiting.iter().take_while(is_due).count();
        let due = waiting.drain(..count).collect();
        self.given(due)
    }

    /// The acknowledgement of a message that is to be replayed now.
    pub(super) fn ack_of(&mut self, room: &RoomName, number: u64) -> Option<AckSink> {
        self.replaying.get_mut(room)?.acks.remove(&number)
    }

    /// Ends replaying a room. Returns all that waits there.
    pub(super) fn caught_up(&mut self, room: &RoomName) -> Vec<Waiting> {
        let waiting = self.replaying.remove(room).map(|replaying| replaying.waiting).unwrap_or_default();
        if let Some(entry) = waiting.iter().rev().find_map(|waiting| waiting.frame.entry.as_ref()) {
            self.sent.entry(room.clone()).or_default().last = Some(entry.position.clone());
        }
        self.given(waiting)
    }

    /// Lets plain frames to all rooms pass, because the log of this room cannot be read for now. Returns those that wait.
    pub(super) fn log_unreadable(&mut self, room: &RoomName) -> Vec<Waiting> {
        self.stop_buffering(room);
        self.reading_stalls()
    }

    /// Lets plain frames to all rooms pass, because a read takes long. Returns those that wait.
    pub(super) fn reading_stalls(&mut self) -> Vec<Waiting> {
        self.is_stalled = true;
        let mut given = Vec::new();
        for replaying in self.replaying.values_mut() {
            replaying.plain_frames = PlainFrames::Pass;
            let (plain, kept) = mem::take(&mut replaying.waiting).into_iter().partition(Waiting::is_plain);
            replaying.waiting = kept;
            given.extend::<Vec<_>>(plain);
        }
        self.given(given)
    }

    /// Adds the duration of a read. Returns the plain frames that wait if the sum exceeds its limit.
    pub(super) fn note_read(&mut self, time: Duration) -> Vec<Waiting> {
        self.read_time += time;
        if self.is_too_slow() && !self.is_stalled { self.reading_stalls() } else { Vec::new() }
    }

    /// Lets plain frames wait again after a successful read, unless they have waited before.
    pub(super) fn reading_goes_on(&mut self) {
        if !self.is_too_slow() && mem::take(&mut self.is_stalled) {
            self.replaying.values_mut().for_each(ReplayingRoom::let_plain_wait);
        }
    }

    /// There is something to replay in a room: plain frames wait for it, unless they have waited before.
    pub(super) fn let_plain_wait(&mut self, room: &RoomName) {
        let is_stalled = self.is_stalled;
        if let Some(replaying) = self.replaying.get_mut(room).filter(|_| !is_stalled) {
            replaying.let_plain_wait();
        }
    }

    /// Plain frames to a room do not wait any more for what was kept before the connection joined. Returns those that wait, unless a message
    /// was kept since: then they wait for that.
    pub(super) fn let_plain_pass(&mut self, room: &RoomName) -> Vec<Waiting> {
        let Some(replaying) = self.replaying.get_mut(room) else {
            return Vec::new();
        };
        replaying.has_waited = true;
        if replaying.plain_frames == PlainFrames::Wait {
            replaying.plain_frames = PlainFrames::PassOlder;
        }
        let waiting = if replaying.has_new_entry { Vec::new() } else { mem::take(&mut replaying.waiting) };
        self.given(waiting)
    }

    /// Whether nothing is missing any more.
    pub(super) fn is_done(&self) -> bool {
        self.is_open && self.replaying.is_empty() && !self.awaits_resumed
    }

    /// Notes that the device is to be told how catching up went.
    pub(super) fn expect_resumed(&mut self) {
        self.awaits_resumed = true;
    }

    /// Notes that the device is told now. Returns what was sent live since it caught up, by room.
    pub(super) fn resumed_sent(&mut self) -> HashMap<RoomName, SentLive> {
        self.awaits_resumed = false;
        mem::take(&mut self.sent)
    }

    /// Notes that the device is told of a gap in a room now.
    pub(super) fn note_gap(&mut self, room: &RoomName, position: &Position) {
        self.sent.insert(room.clone(), SentLive { last: None, gap: Some(position.clone()) });
    }

    pub(super) fn is_replaying(&self, room: &RoomName) -> bool {
        self.replaying.contains_key(room)
    }

    fn is_too_slow(&self) -> bool {
        self.read_time >= MAX_READ_TIME
    }

    fn given(&mut self, waiting: Vec<Waiting>) -> Vec<Waiting> {
        self.bytes -= waiting.iter().map(Waiting::bytes).sum::<usize>();
        waiting
    }
}

impl ReplayingRoom {
    fn lets_pass(&self) -> bool {
        match self.plain_frames {
            PlainFrames::Wait => false,
            PlainFrames::PassOlder => !self.has_new_entry,
            PlainFrames::Pass => true,
        }
    }

    fn let_plain_wait(&mut self) {
        self.plain_frames = if self.has_waited { PlainFrames::PassOlder } else { PlainFrames::Wait };
    }

    /// A message was kept: the plain frames that came before it are sent before it, and later ones after it.
    fn kept(&mut self, number: u64) {
        self.has_new_entry = true;
        let open_ended = self.waiting.iter_mut().rev().take_while(|waiting| waiting.before.is_none());
        open_ended.for_each(|waiting| waiting.before = Some(number));
    }

    /// Leaves the kept frames that wait to replaying. Returns their bytes.
    fn stop_buffering(&mut self) -> usize {
        self.is_buffering = false;
        let (buffered, plain): (Vec<_>, _) =
            mem::take(&mut self.waiting).into_iter().partition(|waiting| !waiting.is_plain());
        self.waiting = plain;
        let mut bytes = 0;
        for Waiting { frame, ack, before } in buffered {
            bytes += frame.size();
            self.acks.extend(before.zip(ack));
        }
        bytes
    }
}

impl Waiting {
    fn is_plain(&self) -> bool {
        self.frame.entry.is_none()
    }

    fn bytes(&self) -> usize {
        if self.frame.on_join { 0 } else { self.frame.size() }
    }
}
