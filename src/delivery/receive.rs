//! Frames that come over the bus: those of one room are executed in their order. A frame whose room is free and small is executed by the bus's
//! task; others wait in the room's frame lane.

use std::sync::Weak;

use super::{
    Delivery,
    accepted::{Accepted, Published},
    node::Inner,
};
use crate::cluster::{Answer, Counts, Frame, Node, Received, Responder};
use crate::message::{CloseCode, CloseReason, Receipt, RoomName};
use scopeguard::guard_on_unwind;

/// Executes frames on this node. The bus has it as long as it runs.
pub(super) struct Receiver(pub(super) Weak<Inner>);

impl Receiver {
    fn delivery(&self) -> Option<Delivery> {
        self.0.upgrade().map(|inner| Delivery { inner })
    }
}

impl Node for Receiver {
    fn receive(&self, received: Received) {
        if let Some(delivery) = self.delivery() {
            delivery.receive(received);
        }
    }

    fn missed_change(&self, room: &RoomName, change: u64) {
        if let Some(delivery) = self.delivery() {
            delivery.note_missed_change(room, change);
        }
    }

    fn is_occupied(&self, room: &RoomName) -> bool {
        self.delivery().is_some_and(|delivery| delivery.hub().connections_in(room) > 0)
    }

    fn recovered(&self, shard: usize, is_same_data: bool) {
        if let Some(delivery) = self.delivery() {
            let lifecycle = delivery.inner.lifecycle.clone();
            lifecycle.spawn(async move { delivery.catch_up_with_engine(shard, is_same_data).await });
        }
    }
}

impl Delivery {
    fn receive(&self, received: Received) {
        let room = match &received.frame {
            Frame::Emit(_, emit, _) => emit.audience.room().clone(),
            Frame::Disconnect { user, .. } => RoomName::of_user(user),
            Frame::Join(..)
            | Frame::Leave(..)
            | Frame::Forbid(..)
            | Frame::CountUser(_)
            | Frame::GetUser(_)
            | Frame::GetRoom(..)
            | Frame::ListUsers(..)
            | Frame::ListRooms(..)
            | Frame::Stats
            | Frame::Collapses(_) => return self.answer(received),
        };
        let Some(received) = self.inner.frame_lanes.push_behind(&room, received) else {
            return;
        };
        let Received { frame, retained, responder, waiting } = received;
        let Frame::Emit(id, emit, once) = frame else {
            return self.answer(Received { frame, retained, responder, waiting });
        };
        match self.publish_now(Accepted::by_peer(id, *emit, once, retained)) {
            Ok(published) => self.respond(responder, published),
            Err(accepted) => {
                self.inner.frame_lanes.open(&room);
                let delivery = self.clone();
                self.inner.lifecycle.spawn(async move {
                    let _guard = guard_on_unwind((), |()| delivery.inner.frame_lanes.abandon(&room));
                    delivery.respond(responder, delivery.publish_in_order(*accepted).await);
                    drop(waiting);
                    delivery.run_frame_lane(&room).await;
                });
            }
        }
    }

    async fn run_frame_lane(&self, room: &RoomName) {
        while let Some(received) = self.inner.frame_lanes.next(room) {
            let Received { frame, retained, responder, waiting } = received;
            if let Frame::Emit(id, emit, once) = frame {
                let published = self.publish_in_order(Accepted::by_peer(id, *emit, once, retained)).await;
                self.respond(responder, published);
            } else {
                self.answer(Received { frame, retained, responder, waiting });
            }
        }
    }

    /// Answers an emit. Acknowledgements follow when they are all there.
    fn respond(&self, responder: Responder, published: Published) {
        // Nothing of what a frame asks for is refused here.
        let Ok((Receipt { matched, enqueued, dropped, duplicate: is_repeated, .. }, acks)) = published else {
            return;
        };
        let asked = acks.as_ref().map(super::PendingAcks::targets).unwrap_or_default();
        let responder = responder.answer(Answer::Counts(Counts { matched, enqueued, dropped, asked, is_repeated }));
        if let Some(acks) = acks {
            self.inner.lifecycle.spawn(async move { responder.acknowledged(acks.gather().await.list) });
        }
    }

    fn answer(&self, received: Received) {
        let Received { frame, responder, .. } = received;
        let answer = match frame {
            Frame::Disconnect { user, reason, except } => {
                let reason = CloseReason::new(CloseCode::Disconnected, reason);
                Answer::Count(self.disconnect_here(&user, &reason, &except) as u64)
            }
            Frame::Join(user, room, ttl) => {
                self.note_join(&user, &room, ttl);
                let delivery = self.clone();
                self.inner.lifecycle.spawn(async move {
                    responder.answer(Answer::Count(delivery.join_here(&user, &room).await as u64));
                });
                return;
            }
            Frame::Leave(user, room) => Answer::Count(self.leave_here(&user, &room) as u64),
            Frame::Forbid(user, room) => Answer::Count(self.forbid_here(&user, &room) as u64),
            Frame::CountUser(user) => Answer::Count(self.hub().of_user(&user).len() as u64),
            Frame::GetUser(user) => Answer::Connections(self.connections_here(&user)),
            Frame::Collapses(event) => {
                self.note_collapsing(&event);
                Answer::Count(0)
            }
            Frame::GetRoom(room, after, size) => {
                return self.answer_later(responder, move |delivery| {
                    let (users, sketch) = delivery.room_here(&room, &after, size);
                    Answer::Room(users, sketch)
                });
            }
            Frame::ListUsers(after, size) => {
                return self.answer_later(responder, move |delivery| {
                    Answer::Page(delivery.hub().list_users(&after, size).into_texts())
                });
            }
            Frame::ListRooms(prefix, after, size) => {
                return self.answer_later(responder, move |delivery| {
                    Answer::Page(delivery.hub().list_rooms(&prefix, &after, size).into_texts())
                });
            }
            Frame::Stats => return self.answer_later(responder, Self::stats_here),
            Frame::Emit(..) => return,
        };
        responder.answer(answer);
    }

    /// Answers by a task of its own: the answer looks at everything there is, and frames come meanwhile.
    fn answer_later(&self, responder: Responder, answer: impl FnOnce(&Self) -> Answer + Send + 'static) {
        let delivery = self.clone();
        self.inner.lifecycle.spawn(async move {
            responder.answer(answer(&delivery));
        });
    }
}
