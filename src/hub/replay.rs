use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Frame, Hub, Member, QueueError, Reason, RoomGuard, WriteMode,
    catching_up::{CatchingUp, SentLive, Waiting},
    member::Phase,
};
use crate::message::{CloseCode, Position, RoomName};

pub use super::catching_up::PlainFrames;

/// What became of a message that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The connection's queue accepted it.
    Given,
    /// The device does not listen for it, or cannot receive it.
    NotForIt,
    /// Too much waits for the device now.
    Later,
}

impl Hub {
    /// Sends a connection a message that it has missed in a room that is being replayed, and before it the plain frames that came there in
    /// between. `None`: it is gone, or has left the room.
    pub fn replay(&self, member: &Arc<Member>, room: &RoomName, frame: &Frame) -> Option<Replayed> {
        match member.replay(room, frame) {
            Ok(replayed) => Some(replayed),
            Err(error) => {
                // A connection that has only left the room stays.
                if error == QueueError::Full {
                    self.give_up(member, error);
                }
                None
            }
        }
    }

    /// Tells a connection how catching up went, by a frame that is made of what was sent live meanwhile, by room.
    pub fn send_resumed(&self, member: &Arc<Member>, frame: impl FnOnce(&HashMap<RoomName, SentLive>) -> Frame) {
        if let Err(error) = member.send_resumed(frame) {
            self.give_up(member, error);
        }
    }

    /// Has plain frames to a room that is being replayed wait for what was kept before the connection joined.
    pub fn let_plain_wait(&self, member: &Member, room: &RoomName) {
        member.catching_up(|missing| missing.let_plain_wait(room));
    }

    /// Has plain frames to a room that is being replayed not wait any more for what was kept before the connection joined.
    pub fn let_plain_pass(&self, member: &Arc<Member>, room: &RoomName) {
        if let Err(error) = member.give_waiting(|missing| missing.let_plain_pass(room)) {
            self.give_up(member, error);
        }
    }

    /// Lets plain frames to all rooms pass, because the log of this room cannot be read for now.
    pub fn log_unreadable(&self, member: &Arc<Member>, room: &RoomName) {
        if let Err(error) = member.give_waiting(|missing| missing.log_unreadable(room)) {
            self.give_up(member, error);
        }
    }

    /// Lets plain frames to all rooms pass, because a read of a log takes long.
    pub fn reading_stalls(&self, member: &Arc<Member>) {
        if let Err(error) = member.give_waiting(CatchingUp::reading_stalls) {
            self.give_up(member, error);
        }
    }

    /// Adds the duration of a read of a log. Once the sum exceeds a limit, plain frames pass until the connection has caught up.
    pub fn note_read(&self, member: &Arc<Member>, time: Duration) {
        if let Err(error) = member.give_waiting(|missing| missing.note_read(time)) {
            self.give_up(member, error);
        }
    }

    /// Lets plain frames wait again after a read of a log has succeeded, unless the reads exceed their limit.
    pub fn reading_goes_on(&self, member: &Member) {
        member.catching_up(CatchingUp::reading_goes_on);
    }

    fn give_up(&self, member: &Arc<Member>, error: QueueError) {
        match error {
            QueueError::Full => self.close(member, &CloseCode::Slow.into()),
            QueueError::Ended => self.ended(member, "transport_close"),
            QueueError::Unsupported => false,
        };
    }
}

impl RoomGuard<'_> {
    /// Puts a connection that has not gone live into the room, as `join` does; what was kept there is replayed first.
    pub fn join_replaying(&self, member: &Arc<Member>, reason: Reason) -> bool {
        self.hub().enter(member, self.room(), reason, Some(PlainFrames::Wait), usize::MAX)
    }

    /// Ends a connection's replay of the room: what has waited there is sent.
    pub fn end_replay(&self, member: &Arc<Member>) {
        if let Err(error) = member.give_waiting(|missing| missing.caught_up(self.room())) {
            self.hub().give_up(member, error);
        }
    }

    /// Has kept frames wait for a connection from now on, up to the bound in bytes, rather than be left to replaying.
    pub fn begin_buffering(&self, member: &Member) {
        member.catching_up(|missing| missing.begin_buffering(self.room()));
    }

    /// Notes that a connection which has caught up in the room is told of a gap there now, up to this position.
    pub fn note_gap(&self, member: &Member, position: &Position) {
        member.catching_up(|missing| missing.note_gap(self.room(), position));
    }

    /// Leaves kept frames to replaying again: something before the next one is not published.
    pub fn stop_buffering(&self, member: &Member) {
        member.catching_up(|missing| missing.stop_buffering(self.room()));
    }

    /// Whether all kept frames that were published since `begin_buffering` wait for the connection.
    pub fn is_buffering(&self, member: &Member) -> bool {
        member.catching_up(|missing| missing.is_buffering(self.room()))
    }
}

impl Member {
    fn replay(&self, room: &RoomName, frame: &Frame) -> Result<Replayed, QueueError> {
        let mut state = self.state.lock();
        let is_there = state.rooms.contains(room);
        let Phase::CatchingUp(missing) = &mut state.phase else {
            return Err(QueueError::Ended);
        };
        if !is_there || !missing.is_replaying(room) {
            return Err(QueueError::Ended);
        }
        if !self.connection.has_room() {
            return Ok(Replayed::Later);
        }
        let number = frame.entry.as_ref().map_or(0, |entry| entry.position.number);
        let earlier = missing.before(room, number);
        let ack = missing.ack_of(room, number);
        earlier.into_iter().try_for_each(|earlier| self.give(earlier))?;
        if !self.connection.listens_to(&frame.event) {
            return Ok(Replayed::NotForIt);
        }
        match self.enqueue(frame, WriteMode::Batched, ack) {
            Ok(()) => Ok(Replayed::Given),
            Err(QueueError::Unsupported) => Ok(Replayed::NotForIt),
            Err(QueueError::Full) => Ok(Replayed::Later),
            Err(QueueError::Ended) => Err(QueueError::Ended),
        }
    }

    /// Sends what waits and is due by this change. The connection goes live if that was all.
    fn give_waiting(&self, due: impl FnOnce(&mut CatchingUp) -> Vec<Waiting>) -> Result<(), QueueError> {
        let mut state = self.state.lock();
        let Phase::CatchingUp(missing) = &mut state.phase else {
            return Ok(());
        };
        let given = due(missing).into_iter().try_for_each(|waiting| self.give(waiting));
        state.settle(&self.is_live);
        given
    }

    /// Notes that the device is to be told how catching up went before the connection counts as live.
    pub fn expect_resumed(&self) {
        self.catching_up(CatchingUp::expect_resumed);
    }

    /// The positions in the frame must not be behind what was sent live meanwhile.
    fn send_resumed(&self, frame: impl FnOnce(&HashMap<RoomName, SentLive>) -> Frame) -> Result<(), QueueError> {
        let mut state = self.state.lock();
        let Phase::CatchingUp(missing) = &mut state.phase else {
            return Ok(());
        };
        let frame = frame(&missing.resumed_sent());
        let is_for_it = self.connection.listens_to(&frame.event);
        let sent = if is_for_it { self.connection.enqueue(&frame, WriteMode::Batched) } else { Ok(()) };
        state.settle(&self.is_live);
        sent
    }

    /// Whether kept messages of a room are being replayed to the connection.
    pub fn is_replaying(&self, room: &RoomName) -> bool {
        self.catching_up(|missing| missing.is_replaying(room))
    }

    fn catching_up<T: Default>(&self, act: impl FnOnce(&mut CatchingUp) -> T) -> T {
        match &mut self.state.lock().phase {
            Phase::CatchingUp(missing) => act(missing),
            Phase::Live | Phase::Gone => T::default(),
        }
    }
}
