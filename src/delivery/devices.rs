use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Delivery, Resume, catch_up::CatchUp, log_lane::published_head, missed::Missed, resumed::Standing,
    retained::RetainedRead,
};
use crate::cluster;
use crate::hub::{Connection, Frame, Member, PlainFrames, Reason};
use crate::limits;
use crate::message::{CloseCode, CloseReason, ConnectionId, EventName, Payload, RoomName, Transport, UserId};

const DRAIN_TICK: Duration = Duration::from_millis(10);
/// What collapse windows deferred at the engine is sent within this time at a stop.
const FLUSHED_WITHIN: Duration = Duration::from_secs(2);
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

    /// The rooms that the connection is in, in no particular order.
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

    /// Puts the connection into a room, by an event of its device. False if it was there, or is gone.
    pub async fn join(&self, room: &RoomName) -> bool {
        self.delivery.join(&self.member, room, Reason::Device).await
    }

    /// Ends what `join` began: the connection leaves the room unless it has another reason to be there.
    pub fn leave(&self, room: &RoomName) {
        self.delivery.hub().leave(&self.member, room, Reason::Device);
    }

    /// The number of rooms that the connection is in by events of its device alone.
    pub fn rooms_by_events(&self) -> usize {
        self.member.count_rooms_only(Reason::Device)
    }

    /// Sends an event to this connection alone.
    pub fn send(&self, event: EventName, payload: Payload) {
        self.delivery.hub().send(&self.member, Frame::new(event, payload));
    }

    /// Closes the connection.
    pub fn close(&self, reason: &CloseReason) {
        self.delivery.hub().close(&self.member, reason);
    }

    /// Waits until the connection has ended.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        self.member.gone()
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

impl Delivery {
    /// Lets a connection in, into the rooms of its token and those that a backend has put the user into. It has 5 to 6 seconds to go live.
    /// `resume`: what its device says it has seen, and the rooms that it joined by events; none: it does not resume. Refused when the user
    /// has too many connections.
    pub async fn admit(
        &self,
        user: UserId,
        token_rooms: &[RoomName],
        connection: Arc<dyn Connection>,
        resume: Option<(&Resume, &[RoomName])>,
    ) -> Result<Arc<Admission>, limits::LimitExceeded> {
        let (resume, event_rooms) = resume.map_or((None, &[][..]), |(resume, rooms)| (Some(resume), rooms));
        let mut catch_up = CatchUp::new(resume);
        let own = RoomName::of_user(&user);
        // The same text, if its token's identity has it: it is kept as long as the device.
        let own = token_rooms.iter().find(|room| **room == own).cloned().unwrap_or(own);
        // This node knows what is done to the user from here on.
        let own_subscribed = self.inner.bus.subscribe([&own]).await;
        let memberships = self.inner.memberships.load(&user).await;
        let by_token = token_rooms.iter().filter(|room| !room.is_everyone());
        let mut rooms: Vec<_> = by_token.map(|room| (room.clone(), Reason::Token)).collect();
        rooms.extend(memberships.iter().map(|room| (room.clone(), Reason::Backend)));
        rooms.extend(event_rooms.iter().map(|room| (room.clone(), Reason::Device)));
        // The last one: what goes to everyone except some rooms finds the connection in those.
        rooms.push((RoomName::everyone(), Reason::Token));
        let rooms_subscribed = self.inner.bus.subscribe(rooms.iter().map(|(room, _)| room)).await;
        let is_subscribed = own_subscribed.is_confirmed() && rooms_subscribed.is_confirmed();
        let _held = self.hold_with_heads(rooms.iter().map(|(room, _)| room).chain([&own])).await;
        self.read_history_heads(rooms.iter().map(|(room, _)| room).chain([&own])).await;
        let all = rooms.iter().map(|(room, _)| room).chain([&own]);
        let mut retained = self.read_retained(all, is_subscribed).await;
        self.check_connections_elsewhere(&own, &user, own_subscribed.is_confirmed()).await?;
        let entering = (retained.remove(&own), &mut catch_up, resume);
        let (admission, standing) = self.enter(&own, user, connection, entering).await?;
        let member = &admission.member;
        catch_up.joined(&own, standing);
        if catch_up.is_resuming() {
            member.expect_resumed();
        }
        for (room, reason) in rooms {
            if member.add_reason(&room, reason) {
                continue;
            }
            let replay = catch_up.begin_replay(&room, resume, self);
            let retained = retained.remove(&room);
            if let Some(standing) = self.join_early(member, &room, reason, replay, retained).await {
                catch_up.joined(&room, standing);
            }
        }
        drop((own_subscribed, rooms_subscribed));
        self.settle_memberships(member, &memberships).await;
        if !catch_up.is_empty() {
            *admission.catch_up.lock() = Some(Box::new(catch_up));
        }
        self.inner.ready_deadlines.push(&admission.member);
        Ok(admission)
    }

    /// What backends did while a connection was let in did not see it in its rooms yet.
    async fn settle_memberships(&self, member: &Arc<Member>, before: &[RoomName]) {
        let now = self.inner.memberships.rooms(member.user());
        for left in before.iter().filter(|room| !now.contains(room)) {
            self.hub().leave(member, left, Reason::Backend);
        }
        for joined in now.iter().filter(|room| !before.contains(room)) {
            self.join_as_member(member, joined).await;
        }
    }

    /// Closes the connections that have not gone live in time.
    pub(super) fn close_late(&self) {
        for member in self.inner.ready_deadlines.late(Instant::now()) {
            self.hub().close(&member, &CloseCode::Unready.into());
        }
    }

    /// Lets a connection into its user's room. The store is asked before, without the lock.
    async fn enter(
        &self,
        own: &RoomName,
        user: UserId,
        connection: Arc<dyn Connection>,
        (retained, catch_up, resume): (Option<RetainedRead>, &mut CatchUp, Option<&Resume>),
    ) -> Result<(Arc<Admission>, Standing), limits::LimitExceeded> {
        let room = self.hub().hold_room(own);
        // Order is promised to devices that resume, however long the store takes.
        let missed = match resume {
            None if self.is_users_mailbox(own) => self.look_up_missed(own, &user).await,
            None | Some(_) => Missed::Something,
        };
        let (guard, retained) = self.lock_with_retained(own, retained).await;
        drop(room);
        let replay = match missed {
            Missed::NothingUpTo(head) if published_head(&guard) == Some(head) => None,
            Missed::NothingUpTo(_) | Missed::Something => Some(PlainFrames::Wait),
            Missed::Unknown => Some(PlainFrames::PassOlder),
        };
        let replay = replay.filter(|_| catch_up.begin_replay(own, resume, self));
        let member = self.hub().admit(&guard, user, connection, replay, self.inner.connections_per_user);
        let member = member.ok_or(limits::LimitExceeded::User)?;
        self.send_retained(&guard, &member, retained);
        let standing = self.standing(&guard);
        Ok((Arc::new(Admission { delivery: self.clone(), member, catch_up: Mutex::default() }), standing))
    }

    /// Refuses a connection whose user has too many at all nodes. Two that come at one moment may exceed the limit by one. While the engine is
    /// away, each node counts its own.
    async fn check_connections_elsewhere(
        &self,
        own: &RoomName,
        user: &UserId,
        is_subscribed: bool,
    ) -> Result<(), limits::LimitExceeded> {
        let Some(nodes) = self.cluster() else { return Ok(()) };
        if !matches!(nodes.nodes_in(own).await, Ok(nodes) if nodes > u64::from(is_subscribed)) {
            return Ok(());
        }
        let count = self.count(cluster::Frame::CountUser(user.clone())).await;
        match count {
            Ok(count) if count.answer >= self.inner.connections_per_user => Err(limits::LimitExceeded::User),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Puts a connection into the rooms that its new token gives, and takes the reason away that its old one was for others. `may_stay` tells
    /// of the rooms that it joined by events whether it may stay there.
    pub async fn replace_rooms(
        &self,
        admission: &Admission,
        old: &[RoomName],
        new: &[RoomName],
        may_stay: impl Fn(&RoomName) -> bool,
    ) {
        let member = &admission.member;
        for room in old.iter().filter(|room| !new.contains(room)) {
            self.hub().leave(member, room, Reason::Token);
        }
        for room in member.rooms_with(Reason::Device).iter().filter(|room| !may_stay(room)) {
            self.hub().leave(member, room, Reason::Device);
        }
        for room in new {
            self.join(member, room, Reason::Token).await;
        }
    }

    /// Puts a connection into a room where a backend has put its user. False if it was there, or is not to be there any more.
    pub(super) async fn join_as_member(&self, member: &Arc<Member>, room: &RoomName) -> bool {
        let joined = self.join(member, room, Reason::Backend).await;
        // A LeaveRoom in between took the note away, but did not see this connection in the room.
        if self.inner.memberships.has(member.user(), room) {
            return joined;
        }
        self.hub().leave(member, room, Reason::Backend);
        false
    }

    /// Sends all connections away, until none is left or the deadline has come. Says how many that were. `pace`: so many per second of
    /// those whose devices hear it, and come back at once.
    pub async fn drain(&self, pace: u32, deadline: Instant) -> usize {
        self.flush_windows(FLUSHED_WITHIN).await;
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
