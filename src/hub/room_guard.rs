use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::mapref::entry::Entry;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    AckWaiter, Frame, Hub, Member, QueueError, WriteMode,
    ack::AckTicket,
    member::{Delivery, Replayed, Target, is_fatal},
    room::Room,
    vacate,
};
use crate::message::{CloseCode, ConnectionId, Exceptions, RoomName, UserId};

/// After this many deliveries, some 100 µs, others get a chance to run. With fewer, a flusher that runs in between writes one frame at
/// a time where it could write several.
const STRETCH: usize = 512;
/// The same for those that ask for an acknowledgement, each of which is encoded by itself.
const ACK_STRETCH: usize = 64;

/// To so many a frame is written by whoever sends it: to wake another for that takes longer. For more, others share the work.
const FEW: usize = 8;

/// How many deliveries before its own a connection's memory is touched.
const AHEAD: usize = 4;

/// What became of a frame at a room's connections: each counts once as matched, and once as enqueued or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were in the room and listen for the event, not excepted and not gone.
    pub matched: u64,
    /// Of those, the ones whose queue took the frame, or which have missed earlier ones and come to it.
    pub enqueued: u64,
    /// Of those, the ones whose queue did not.
    pub dropped: u64,
    /// Of the enqueued, the ones that have missed earlier messages of the room and come to this one.
    pub replaying: u64,
}

/// The lock of a room. Its holder publishes to the room or joins a connection to it.
pub struct RoomGuard<'a> {
    held: HeldRoom<'a>,
}

impl Hub {
    /// Locks a room for a join.
    pub async fn lock_room(&self, name: &RoomName) -> RoomGuard<'_> {
        self.hold(name).lock().await
    }

    /// Locks a room for an emit. Emits acquire the lock in FIFO order; joins go first.
    pub async fn lock_room_for_emit(&self, name: &RoomName) -> RoomGuard<'_> {
        self.hold(name).lock_for_emit().await
    }

    /// The same, if anybody is in the room.
    pub async fn lock_occupied_room_for_emit(&self, name: &RoomName) -> Option<RoomGuard<'_>> {
        let room = self.rooms.get(name)?.clone();
        Some(HeldRoom::new(self, room).lock_for_emit().await)
    }

    fn hold(&self, name: &RoomName) -> HeldRoom<'_> {
        let room = self.rooms.entry(name.clone()).or_insert_with(|| Arc::new(Room::new(name.clone()))).clone();
        HeldRoom::new(self, room)
    }

    /// Sends a frame to one connection, which is closed as slow if it cannot take it, unless the frame is volatile.
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
    ) -> Delivery {
        let delivery = member.deliver(frame, target, mode, ticket);
        match delivery {
            Delivery::Dropped(error) if is_fatal(Err(error), frame) => {
                self.close(member, &CloseCode::Slow.into());
            }
            Delivery::Ended => {
                self.ended(member, "transport_close");
            }
            Delivery::Enqueued
            | Delivery::Replayed
            | Delivery::Dropped(_)
            | Delivery::Gone
            | Delivery::NotListening => {}
        }
        delivery
    }
}

impl Hub {
    /// Gives a connection a message that it has missed in a room that is being replayed, and before it what came there in between. None: it is
    /// gone, or has left the room.
    pub fn replay(&self, member: &Arc<Member>, room: &RoomName, frame: &Frame) -> Option<Replayed> {
        match member.replay(room, frame) {
            Ok(replayed) => Some(replayed),
            Err(error) => {
                // Whoever has only left the room goes on.
                if error == QueueError::Full {
                    self.give_up(member, error);
                }
                None
            }
        }
    }

    /// Tells a connection how catching up went, by a frame that is made of the last kept message of each room that went out live meanwhile.
    pub fn tell(&self, member: &Arc<Member>, frame: impl FnOnce(&HashMap<RoomName, u64>) -> Frame) {
        if let Err(error) = member.tell(frame) {
            self.give_up(member, error);
        }
    }

    /// What is kept in a room that is being replayed cannot be read for now: what is not kept does not wait for it.
    pub fn log_unreadable(&self, member: &Arc<Member>, room: &RoomName) {
        if let Err(error) = member.log_unreadable(room) {
            self.give_up(member, error);
        }
    }

    /// It can be read again.
    pub fn log_readable(&self, member: &Member, room: &RoomName) {
        member.log_readable(room);
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
    /// The name of the locked room.
    pub fn room(&self) -> &RoomName {
        self.held.name()
    }

    /// Puts a connection into the room. False if it was there, or is gone.
    pub fn join(&self, member: &Arc<Member>) -> bool {
        self.held.hub.enter(member, self.room(), false, usize::MAX)
    }

    /// The same, for a connection that has not gone live: what is live there waits until it has caught up.
    pub fn join_replaying(&self, member: &Arc<Member>) -> bool {
        self.held.hub.enter(member, self.room(), true, usize::MAX)
    }

    /// Ends a connection's catching up in the room: what has waited there goes out. A queue that does not take it closes the connection
    /// as slow.
    pub fn caught_up(&self, member: &Arc<Member>) {
        if let Err(error) = member.caught_up(self.room()) {
            self.held.hub.give_up(member, error);
        }
    }

    /// Sends a frame to the room's connections. Those that cannot take it are closed as slow, unless the frame is volatile.
    pub fn fan_out(&self, frame: Frame, except: &Exceptions) -> impl Future<Output = Counts> + Send {
        let hub = self.held.hub;
        let deliver = |member: &_, frame: &_, target: Target<'_>, mode| hub.deliver(member, frame, target, mode, None);
        self.fan_out_by(frame, except, STRETCH, deliver)
    }

    /// The same with a frame that asks for acknowledgements, and those who are matched and so asked.
    pub async fn fan_out_with_acks(&self, frame: Frame, except: &Exceptions) -> (Counts, Vec<AckWaiter>) {
        let (hub, mut all) = (self.held.hub, Vec::new());
        let deliver = |member: &Arc<Member>, frame: &_, target: Target<'_>, mode| {
            let (ticket, waiter) = AckWaiter::new(member);
            let delivery = hub.deliver(member, frame, target, mode, Some(ticket));
            match delivery {
                Delivery::Enqueued | Delivery::Replayed => all.push(waiter),
                Delivery::Dropped(_) => all.push(waiter.dropped()),
                Delivery::Gone | Delivery::Ended | Delivery::NotListening => {}
            }
            delivery
        };
        let counts = self.fan_out_by(frame, except, ACK_STRETCH, deliver).await;
        (counts, all)
    }

    async fn fan_out_by(
        &self,
        frame: Frame,
        except: &Exceptions,
        stretch: usize,
        mut deliver: impl FnMut(&Arc<Member>, &Arc<Frame>, Target<'_>, WriteMode) -> Delivery,
    ) -> Counts {
        let excepted = Excepted::new(self.held.hub, except);
        let mut counts = Counts::default();
        let departures = self.held.departures();
        let members = self.held.members();
        let mode = self.write_mode(frame.mode, members.len());
        let frame = Arc::new(frame);
        for (index, member) in members.iter().enumerate() {
            touch_ahead(&members, index);
            if index % stretch == stretch - 1 {
                tokio::task::yield_now().await;
            }
            if !excepted.contains(member) {
                counts.add(deliver(member, &frame, self.target(departures), mode));
            }
        }
        counts
    }

    /// Sends a frame to one of the room's connections, under the same conditions.
    pub fn send(&self, member: &Arc<Member>, frame: Frame) {
        let mode = frame.mode;
        self.held.hub.deliver(member, &Arc::new(frame), Target::Members(self.room()), mode, None);
    }

    /// Returns how a frame of the room is written to this number of connections. `wanted`: the mode for at most [`FEW`].
    fn write_mode(&self, wanted: WriteMode, connections: usize) -> WriteMode {
        match wanted {
            WriteMode::Inline if connections <= FEW => WriteMode::Inline,
            WriteMode::Inline | WriteMode::Batched | WriteMode::Gathered => {
                let more_follows = self.held.waiting_emits.load(Ordering::Relaxed) > 0;
                if more_follows { WriteMode::Gathered } else { WriteMode::Batched }
            }
        }
    }

    /// Returns the target of a frame for connections that were listed when the count of departures was `departures`: those that have left
    /// since do not get it.
    fn target(&self, departures: u64) -> Target<'_> {
        let room = self.room();
        if self.held.departures() == departures { Target::Room(room) } else { Target::Members(room) }
    }
}

/// Has what the next deliveries need loaded while others are under way: a connection's memory is in four places, each of which is only
/// known from the one before.
fn touch_ahead(members: &[Arc<Member>], index: usize) {
    if let Some(far) = members.get(index + 2 * AHEAD) {
        far.touch();
    }
    if let Some(near) = members.get(index + AHEAD) {
        near.connection().touch();
    }
}

impl Counts {
    fn add(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Gone | Delivery::Ended | Delivery::NotListening => return,
            Delivery::Enqueued => self.enqueued += 1,
            Delivery::Replayed => {
                self.enqueued += 1;
                self.replaying += 1;
            }
            Delivery::Dropped(_) => self.dropped += 1,
        }
        self.matched += 1;
    }
}

/// A room that stays while this does, empty or not, and what is locked of it.
struct HeldRoom<'a> {
    hub: &'a Hub,
    room: Option<Arc<Room>>,
    has_lock: bool,
    is_first_in_queue: bool,
}

impl<'a> HeldRoom<'a> {
    fn new(hub: &'a Hub, room: Arc<Room>) -> Self {
        Self { hub, room: Some(room), has_lock: false, is_first_in_queue: false }
    }

    async fn lock(mut self) -> RoomGuard<'a> {
        lock(&self.lock).await;
        self.has_lock = true;
        RoomGuard { held: self }
    }

    async fn lock_for_emit(mut self) -> RoomGuard<'a> {
        if !try_lock(&self.emit_queue) {
            let _waiting = WaitingEmit::new(&self.waiting_emits);
            lock(&self.emit_queue).await;
        }
        self.is_first_in_queue = true;
        self.lock().await
    }
}

/// Locks one of a room's locks; adding a permit unlocks it. Cancel safe.
async fn lock(lock: &Semaphore) {
    // It is never closed.
    if let Ok(permit) = lock.acquire().await {
        permit.forget();
    }
}

fn try_lock(lock: &Semaphore) -> bool {
    lock.try_acquire().map(SemaphorePermit::forget).is_ok()
}

/// An emit that waits for a room.
struct WaitingEmit<'a>(&'a AtomicUsize);

impl<'a> WaitingEmit<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaitingEmit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::ops::Deref for HeldRoom<'_> {
    type Target = Room;

    fn deref(&self) -> &Room {
        self.room.as_ref().expect("given up in drop alone")
    }
}

impl Drop for HeldRoom<'_> {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else {
            return;
        };
        if self.has_lock {
            room.lock.add_permits(1);
        }
        if self.is_first_in_queue {
            room.emit_queue.add_permits(1);
        }
        let name = room.name().clone();
        drop(room);
        // Looked at only now: whoever left while the room was held could not forget it.
        if self.hub.rooms.get(&name).is_some_and(|room| room.is_empty())
            && let Entry::Occupied(room) = self.hub.rooms.entry(name)
        {
            vacate(room);
        }
    }
}

struct Excepted<'a> {
    connections: HashSet<ConnectionId>,
    users: HashSet<&'a UserId>,
}

impl<'a> Excepted<'a> {
    fn new(hub: &Hub, except: &'a Exceptions) -> Self {
        let in_rooms = except.rooms.iter().flat_map(|room| hub.members(room)).map(|member| member.id());
        Self {
            connections: except.connections.iter().copied().chain(in_rooms).collect(),
            users: except.users.iter().collect(),
        }
    }

    fn contains(&self, member: &Member) -> bool {
        (!self.connections.is_empty() && self.connections.contains(&member.id()))
            || (!self.users.is_empty() && self.users.contains(member.user()))
    }
}
