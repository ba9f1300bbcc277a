use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Delivery, Resume, catch_up::CatchUp};
use crate::hub::{Connection, Frame, Member};
use crate::limits;
use crate::message::{CloseCode, CloseReason, ConnectionId, EventName, Payload, RoomName, Transport, UserId};

/// How long a connection that was let in may take to go live.
const READY_WITHIN: Duration = Duration::from_secs(5);
const DRAIN_TICK: Duration = Duration::from_millis(10);
/// Connections that are looked at before other tasks get a chance to run.
pub(super) const STRETCH: usize = 1_024;

/// A connection that was let in. The hub forgets the connection with it, at the latest.
pub struct Admission {
    delivery: Delivery,
    member: Arc<Member>,
    /// What it has missed, until it goes live.
    catch_up: Mutex<Option<Box<CatchUp>>>,
}

impl Admission {
    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.member.id()
    }

    /// Whose connection it is.
    pub fn user(&self) -> &UserId {
        self.member.user()
    }

    /// How the device is connected now.
    pub fn transport(&self) -> Transport {
        self.member.connection().transport()
    }

    /// The rooms that the connection is in, in the order in which it joined.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.member.rooms()
    }

    /// Whether the connection is in a room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.member.is_in(room)
    }

    /// Whether the connection has ended.
    pub fn is_gone(&self) -> bool {
        self.member.is_gone()
    }

    /// Sends a frame to this connection alone. False if its queue did not accept it; the connection stays.
    pub fn try_send(&self, frame: Frame) -> bool {
        self.member.send(frame)
    }

    /// Lets events through: first the greeting, then what has waited; what the device has missed follows. False if it is too late.
    pub fn go_live(&self, greeting: Option<&Frame>) -> bool {
        let live = self.member.go_live(greeting);
        if !live {
            self.delivery.hub().close(&self.member, &CloseCode::Unready.into());
        } else if let Some(catch_up) = self.catch_up.lock().take() {
            let (delivery, member) = (self.delivery.clone(), self.member.clone());
            self.delivery.inner.lifecycle.spawn(async move { catch_up.run(delivery, member).await });
        }
        live
    }

    /// Puts the connection into a room. False if it was there, or is gone.
    pub async fn join(&self, room: &RoomName) -> bool {
        self.delivery.join(&self.member, room).await
    }

    /// Takes the connection out of a room. False if it was not there.
    pub fn leave(&self, room: &RoomName) -> bool {
        self.delivery.hub().leave(&self.member, room)
    }

    /// Sends an event to this connection alone.
    pub fn send(&self, event: EventName, payload: Payload) {
        self.delivery.hub().send(&self.member, Frame::new(event, payload));
    }

    /// Closes the connection.
    pub fn close(&self, reason: &CloseReason) {
        self.delivery.hub().close(&self.member, reason);
    }

    /// Takes note that the transport ended by itself.
    pub fn ended(&self, how: &'static str) {
        self.delivery.hub().ended(&self.member, how);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.ended(CloseCode::Unready.as_str());
    }
}

/// Connections that were let in and are to go live, in the order in which they came. One queue for all: a timer for each would outweigh
/// what is kept of a device besides.
#[derive(Default)]
pub(super) struct ReadyDeadlines(Mutex<VecDeque<(Instant, Weak<Member>)>>);

impl ReadyDeadlines {
    fn push(&self, member: &Arc<Member>) {
        self.0.lock().push_back((Instant::now() + READY_WITHIN, Arc::downgrade(member)));
    }

    /// Those whose time is up, and who have not gone live.
    fn late(&self, now: Instant) -> Vec<Arc<Member>> {
        let mut deadlines = self.0.lock();
        let due = deadlines.iter().take_while(|(due, _)| *due <= now).count();
        let late = deadlines
            .drain(..due)
            .filter_map(|(_, member)| member.upgrade())
            .filter(|member| member.is_awaiting_transport());
        let late = late.collect();
        if deadlines.is_empty() {
            deadlines.shrink_to_fit();
        }
        late
    }
}

impl Delivery {
    /// Lets a connection in, into these rooms and those that a backend has put the user into. It has 5 to 6 seconds to go live.
    /// `resume`: what its device says it has seen; none: it does not resume. Refused when the user has too many connections.
    pub async fn admit(
        &self,
        user: UserId,
        rooms: &[RoomName],
        connection: Arc<dyn Connection>,
        resume: Option<&Resume>,
    ) -> Result<Arc<Admission>, limits::LimitExceeded> {
        let mut catch_up = CatchUp::new(resume);
        let all = self.rooms_of(&user, rooms);
        let own = RoomName::of_user(&user);
        // The same text, if its token's identity has it: it is kept as long as the device.
        let own = rooms.iter().find(|room| **room == own).cloned().unwrap_or(own);
        let replaying = catch_up.begin_replay(&own, resume, self);
        let admission = self.enter(&own, user, connection, replaying).await?;
        let member = &admission.member;
        catch_up.joined(&own, self.inner.history.position(&own));
        if catch_up.tells() {
            member.will_be_told();
        }
        for room in std::iter::once(&RoomName::everyone()).chain(&all).filter(|room| **room != own) {
            let is_membership = !rooms.contains(room) && !room.is_everyone();
            let replaying = catch_up.begin_replay(room, resume, self);
            let joined = self.join_early(member, room, replaying).await;
            if is_membership && !self.inner.memberships.has(member.user(), room) {
                // A LeaveRoom in between did not see this connection in the room.
                self.hub().leave(member, room);
            } else if let Some(position) = joined {
                catch_up.joined(room, position);
            }
        }
        // A JoinRoom in between did not see this connection yet.
        for room in self.inner.memberships.rooms(member.user()).iter().filter(|room| !all.contains(room)) {
            self.join_as_member(member, room).await;
        }
        if !catch_up.is_empty() {
            *admission.catch_up.lock() = Some(Box::new(catch_up));
        }
        self.inner.ready_deadlines.push(&admission.member);
        Ok(admission)
    }

    /// Closes the connections that have not gone live in time.
    pub(super) fn close_late(&self) {
        for member in self.inner.ready_deadlines.late(Instant::now()) {
            self.hub().close(&member, &CloseCode::Unready.into());
        }
    }

    async fn enter(
        &self,
        own: &RoomName,
        user: UserId,
        connection: Arc<dyn Connection>,
        replaying: bool,
    ) -> Result<Arc<Admission>, limits::LimitExceeded> {
        let guard = self.hub().lock_room(own).await;
        let member = self.hub().admit(&guard, user, connection, replaying, self.inner.connections_per_user);
        let member = member.ok_or(limits::LimitExceeded::User)?;
        self.send_retained(&guard, &member);
        Ok(Arc::new(Admission { delivery: self.clone(), member, catch_up: Mutex::default() }))
    }

    /// Takes a connection out of the rooms that only its old token gave, and into those that its new one gives. `may_stay` tells of the
    /// rooms that the device went into by itself whether it may stay there.
    pub async fn replace_rooms(
        &self,
        admission: &Admission,
        old: &[RoomName],
        new: &[RoomName],
        may_stay: impl Fn(&RoomName) -> bool,
    ) {
        let member = &admission.member;
        for room in member.rooms().iter().filter(|room| !new.contains(room)) {
            let stays = self.inner.memberships.has(member.user(), room) || (!old.contains(room) && may_stay(room));
            if !stays {
                self.hub().leave(member, room);
            }
        }
        for room in new {
            self.join(member, room).await;
        }
    }

    /// Puts a connection into a room where a backend has put its user. False if it was there, or is not to be there any more.
    pub(super) async fn join_as_member(&self, member: &Arc<Member>, room: &RoomName) -> bool {
        let joined = self.join(member, room).await;
        // A LeaveRoom in between took the note away, but did not see this connection in the room.
        if self.inner.memberships.has(member.user(), room) {
            return joined;
        }
        self.hub().leave(member, room);
        false
    }

    /// Sends all connections away, until none is left or the deadline has come. Says how many that were. `pace`: so many per second of
    /// those whose devices hear it, and come back at once.
    pub async fn drain(&self, pace: u32, deadline: Instant) -> usize {
        let mut closed = 0;
        let mut tick = tokio::time::interval(DRAIN_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let per_tick = f64::from(pace) * DRAIN_TICK.as_secs_f64();
        let mut due = 1.0;
        let everyone = RoomName::everyone();
        while Instant::now() < deadline {
            let members = self.hub().members(&everyone);
            if members.is_empty() {
                break;
            }
            for (index, member) in members.into_iter().enumerate() {
                if index % STRETCH == STRETCH - 1 {
                    tokio::task::yield_now().await;
                }
                if member.connection().is_listening() {
                    while due < 1.0 {
                        if tokio::time::timeout_at(deadline, tick.tick()).await.is_err() {
                            return closed;
                        }
                        due += per_tick;
                    }
                    due -= 1.0;
                }
                closed += usize::from(self.hub().close(&member, &CloseCode::Draining.into()));
            }
        }
        closed
    }
}
