use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};

use super::Delivery;
use crate::hub::{Connection, Frame, Member};
use crate::limits;
use crate::message::{CloseCode, CloseReason, EventName, Payload, RoomName, UserId};

/// How long a connection that was let in may take to go live.
const READY_WITHIN: Duration = Duration::from_secs(5);
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// A connection that was let in. The hub forgets the connection with it, at the latest.
pub struct Admission {
    delivery: Delivery,
    member: Arc<Member>,
}

impl Admission {
    /// The connection in the hub.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Lets events through: first the greeting, then what has waited. False if it is too late.
    pub fn go_live(&self, greeting: Option<&Frame>) -> bool {
        let live = self.member.go_live(greeting);
        if !live {
            self.delivery.hub().close(&self.member, &CloseCode::Unready.into());
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

impl Delivery {
    /// Lets a connection in, into these rooms and those that a backend has put the user into. It has 5 seconds to go live.
    /// Refused when the user has too many connections.
    pub async fn admit(
        &self,
        user: UserId,
        rooms: &[RoomName],
        connection: Arc<dyn Connection>,
    ) -> Result<Arc<Admission>, limits::Refused> {
        let admission = self.enter(user, connection).await?;
        let member = &admission.member;
        self.join(member, &RoomName::everyone()).await;
        for room in rooms {
            self.join(member, room).await;
        }
        self.join_memberships(member).await;
        let (delivery, late) = (self.clone(), Arc::downgrade(&admission.member));
        self.inner.lifecycle.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(READY_WITHIN) => {}
                () = delivery.inner.lifecycle.stopping() => return,
            }
            if let Some(member) = late.upgrade().filter(|member| member.is_catching_up()) {
                delivery.hub().close(&member, &CloseCode::Unready.into());
            }
        });
        Ok(admission)
    }

    async fn enter(&self, user: UserId, connection: Arc<dyn Connection>) -> Result<Arc<Admission>, limits::Refused> {
        let turn = self.hub().turn(&RoomName::of_user(&user)).await;
        let member = self.hub().admit(&turn, user, connection, self.inner.connections_per_user);
        let member = member.ok_or(limits::Refused::User)?;
        self.send_retained(&turn, &member);
        Ok(Arc::new(Admission { delivery: self.clone(), member }))
    }

    /// Takes a connection out of the rooms that only its old token gave, and into those that its new one gives. `may_stay` tells of the
    /// rooms that the device went into by itself whether it may stay there.
    pub async fn replace_rooms(
        &self,
        member: &Arc<Member>,
        old: &[RoomName],
        new: &[RoomName],
        may_stay: impl Fn(&RoomName) -> bool,
    ) {
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

    async fn join_memberships(&self, member: &Arc<Member>) {
        for room in self.inner.memberships.rooms(member.user()) {
            self.join_as_member(member, &room).await;
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

    /// Sends all connections away, `pace` of them per second, until none is left or the deadline has come. Says how many
    /// that were.
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
            for member in members {
                while due < 1.0 {
                    if tokio::time::timeout_at(deadline, tick.tick()).await.is_err() {
                        return closed;
                    }
                    due += per_tick;
                }
                due -= 1.0;
                closed += usize::from(self.hub().close(&member, &CloseCode::Draining.into()));
            }
        }
        closed
    }
}
