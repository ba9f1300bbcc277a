use std::{collections::HashSet, sync::Arc};

use super::{
    AckWaiter, Frame, Hub, Member, RoomGuard, WriteMode,
    ack::AckTicket,
    member::{DeliveryOutcome, Target, is_fatal},
    room::Snapshot,
};
use crate::message::{CloseCode, ConnectionId, Exceptions, UserId};

/// Deliveries between two yields, some 100 µs. With fewer, a flusher that runs in between writes one frame at a time where it could write
/// several.
const STRETCH: usize = 512;
/// The same for frames that ask for acknowledgements, each of which is encoded by itself.
const ACK_STRETCH: usize = 64;

/// A publisher writes to this many connections itself: to wake a flusher takes longer. For more, flushers share the work.
const FEW: usize = 8;

/// A connection's memory is touched this many deliveries before its own.
const AHEAD: usize = 4;

/// What became of a frame at a room's connections: each counts once as matched, and once as enqueued or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were in the room and listen for the event, not excepted and not gone.
    pub matched: u64,
    /// Of those, the ones whose queue accepted the frame, or that replay earlier ones and come to it.
    pub enqueued: u64,
    /// Of those, the ones whose queue rejected it.
    pub dropped: u64,
    /// Of the enqueued, the ones that replay earlier messages of the room and come to this one.
    pub replaying: u64,
}

/// A frame on its way to the connections of a locked room, in stretches: after each, other tasks are to get a chance to run.
pub struct FanOut<'a> {
    guard: &'a RoomGuard<'a>,
    frame: Arc<Frame>,
    excepted: Excepted,
    members: Snapshot,
    /// Connections that had left the room when `members` was listed.
    departures: u64,
    mode: WriteMode,
    next: usize,
    counts: Counts,
    /// Of a frame that asks for acknowledgements: the connections that were asked.
    waiters: Option<Vec<AckWaiter>>,
}

impl<'a> FanOut<'a> {
    pub(super) fn new(guard: &'a RoomGuard<'a>, frame: Frame, except: Exceptions, asks: bool) -> Self {
        let (departures, members) = guard.departures_and_members();
        Self {
            mode: guard.write_mode(frame.mode, members.len()),
            frame: Arc::new(frame),
            excepted: Excepted::new(guard.hub(), except),
            members,
            departures,
            next: 0,
            counts: Counts::default(),
            waiters: asks.then(Vec::new),
            guard,
        }
    }

    /// Delivers to the next connections. True if more are left.
    pub fn step(&mut self) -> bool {
        let end = self.members.len().min(self.next + stretch(self.waiters.is_some()));
        for index in self.next..end {
            self.touch_ahead(index);
            if !self.excepted.contains(&self.members[index]) {
                self.deliver(index);
            }
        }
        self.next = end;
        end < self.members.len()
    }

    /// Delivers to all connections, and yields after each stretch.
    pub async fn run(&mut self) {
        while self.step() {
            tokio::task::yield_now().await;
        }
    }

    /// Returns what became of the frame so far, and the connections that were asked for an acknowledgement.
    pub fn finish(self) -> (Counts, Vec<AckWaiter>) {
        (self.counts, self.waiters.unwrap_or_default())
    }

    fn deliver(&mut self, index: usize) {
        let (hub, member, target) = (self.guard.hub(), &self.members[index], self.target());
        let Some(waiters) = &mut self.waiters else {
            self.counts.add(hub.deliver(member, &self.frame, target, self.mode, None));
            return;
        };
        let (ticket, waiter) = AckWaiter::new(member);
        let delivery = hub.deliver(member, &self.frame, target, self.mode, Some(ticket));
        match delivery {
            DeliveryOutcome::Enqueued | DeliveryOutcome::Replayed => waiters.push(waiter),
            DeliveryOutcome::Dropped(_) => waiters.push(waiter.dropped()),
            DeliveryOutcome::Gone | DeliveryOutcome::Ended | DeliveryOutcome::NotListening => {}
        }
        self.counts.add(delivery);
    }

    /// Connections that have left since they were listed do not get the frame.
    fn target(&self) -> Target<'a> {
        let room = self.guard.room();
        if self.guard.departures() == self.departures { Target::Room(room) } else { Target::Members(room) }
    }

    /// Loads what the next deliveries need while others are under way: a connection's memory is in four places, each of which is only known
    /// from the one before.
    fn touch_ahead(&self, index: usize) {
        if let Some(far) = self.members.get(index + 2 * AHEAD) {
            far.touch();
        }
        if let Some(near) = self.members.get(index + AHEAD) {
            near.connection().touch();
        }
    }
}

impl Hub {
    /// Sends a frame to one connection, which is closed as slow if it cannot accept it, unless the frame is volatile.
    pub fn send(&self, member: &Arc<Member>, frame: Frame) {
        let mode = frame.mode;
        self.deliver(member, &Arc::new(frame), Target::Connection, mode, None);
    }

    fn deliver(
        &self,
        member: &Arc<Member>,
        frame: &Arc<Frame>,
        target: Target<'_>,
        mode: WriteMode,
        ticket: Option<AckTicket>,
    ) -> DeliveryOutcome {
        let delivery = member.deliver(frame, target, mode, ticket);
        match delivery {
            DeliveryOutcome::Dropped(error) if is_fatal(Err(error), frame) => {
                self.close(member, &CloseCode::Slow.into());
            }
            DeliveryOutcome::Ended => {
                self.ended(member, "transport_close");
            }
            DeliveryOutcome::Enqueued
            | DeliveryOutcome::Replayed
            | DeliveryOutcome::Dropped(_)
            | DeliveryOutcome::Gone
            | DeliveryOutcome::NotListening => {}
        }
        delivery
    }
}

impl RoomGuard<'_> {
    /// Begins to send a frame to the room's connections. Those that cannot accept it are closed as slow, unless the frame is volatile. `asks`:
    /// they are asked for acknowledgements.
    pub fn fan_out(&self, frame: Frame, except: Exceptions, asks: bool) -> FanOut<'_> {
        FanOut::new(self, frame, except, asks)
    }

    /// Whether a frame is sent to all of the room's connections in one stretch. `asks`: they are asked for acknowledgements.
    pub fn is_small(&self, asks: bool) -> bool {
        self.connections() <= stretch(asks)
    }

    /// Sends a frame to one of the room's connections, under the same conditions. True if its queue accepted the frame.
    pub fn send(&self, member: &Arc<Member>, frame: Frame) -> bool {
        let mode = frame.mode;
        let delivery = self.hub().deliver(member, &Arc::new(frame), Target::Members(self.room()), mode, None);
        matches!(delivery, DeliveryOutcome::Enqueued | DeliveryOutcome::Replayed)
    }

    /// Returns how a frame of the room is written to this number of connections. `wanted`: the mode for at most [`FEW`].
    fn write_mode(&self, wanted: WriteMode, connections: usize) -> WriteMode {
        match wanted {
            WriteMode::Inline if connections <= FEW => WriteMode::Inline,
            WriteMode::Inline | WriteMode::Batched | WriteMode::Gathered => {
                let more_follows = self.waiting_emits() > 0;
                if more_follows { WriteMode::Gathered } else { WriteMode::Batched }
            }
        }
    }
}

fn stretch(asks: bool) -> usize {
    if asks { ACK_STRETCH } else { STRETCH }
}

impl Counts {
    fn add(&mut self, delivery: DeliveryOutcome) {
        match delivery {
            DeliveryOutcome::Gone | DeliveryOutcome::Ended | DeliveryOutcome::NotListening => return,
            DeliveryOutcome::Enqueued => self.enqueued += 1,
            DeliveryOutcome::Replayed => {
                self.enqueued += 1;
                self.replaying += 1;
            }
            DeliveryOutcome::Dropped(_) => self.dropped += 1,
        }
        self.matched += 1;
    }
}

struct Excepted {
    connections: HashSet<ConnectionId>,
    users: HashSet<UserId>,
}

impl Excepted {
    fn new(hub: &Hub, except: Exceptions) -> Self {
        let in_rooms = except.rooms.iter().flat_map(|room| hub.members(room)).map(|member| member.id());
        Self {
            connections: except.connections.into_iter().chain(in_rooms).collect(),
            users: except.users.into_iter().collect(),
        }
    }

    fn contains(&self, member: &Member) -> bool {
        (!self.connections.is_empty() && self.connections.contains(&member.id()))
            || (!self.users.is_empty() && self.users.contains(member.user()))
    }
}
