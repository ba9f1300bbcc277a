//! Frames that come over the bus: those of one room are executed in their order. A frame whose room is free and small is executed by the bus's
//! task; others wait in the room's frame lane.

use std::{sync::Weak, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Delivery,
    laned::{Emitted, Laned},
    node::Inner,
    stored_frames::Executed,
};
use crate::cluster::{Answer, Cluster, Counts, Frame, Kept, Node, Received, Responder};
use crate::message::{CloseCode, CloseReason, Position, Receipt, RoomName};
use scopeguard::guard_on_unwind;

/// A frame that was overtaken by a later one of its room is awaited so long; then its message is read from the store.
const CROSSED_WITHIN: Duration = Duration::from_millis(20);

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

    fn missed_message(&self, room: &RoomName, kept: Kept) {
        if let Some(delivery) = self.delivery() {
            delivery.fill_history_later(room, kept);
        }
    }

    fn given_up(&self, room: &RoomName) {
        if let Some(delivery) = self.delivery() {
            delivery.inner.history_heads.forget(room);
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
            Frame::Emit(frame) => frame.emit.audience.room().clone(),
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
            | Frame::Collapses(_)
            | Frame::Wake(..)
            | Frame::Unread(..) => return self.answer(received),
        };
        let Some(Laned::Frame(received)) = self.inner.frame_lanes.push_behind(&room, Laned::Frame(received)) else {
            return;
        };
        let Received { frame, retained, kept, responder, waiting } = received;
        let Frame::Emit(emit) = frame else {
            return self.answer(Received { frame, retained, kept, responder, waiting });
        };
        match self.execute_now(Emitted::new(*emit, retained, kept)) {
            Ok(executed) => self.respond(responder, executed),
            Err(emitted) => self.push_to_lane(&room, Laned::Emit(emitted, responder, waiting)),
        }
    }

    /// Executes an emit, unless it has to wait: then it is returned.
    fn execute_now(&self, emitted: Emitted) -> Result<Executed, Emitted> {
        match emitted {
            Emitted::Plain(accepted) => match accepted.kept {
                None => self.publish_now(*accepted).map(Executed::Published).map_err(Emitted::Plain),
                Some(kept) => self.execute_kept_now(*accepted, kept).map_err(Emitted::Plain),
            },
            Emitted::Stored(frame) => self.execute_stored_now(*frame).map_err(Emitted::Stored),
        }
    }

    async fn execute_in_order(&self, emitted: Emitted) -> Executed {
        match emitted {
            Emitted::Plain(accepted) => match accepted.kept {
                None => Executed::Published(self.publish_in_order(*accepted).await),
                Some(kept) => self.execute_kept(*accepted, kept).await,
            },
            Emitted::Stored(frame) => self.execute_stored(*frame).await,
        }
    }

    /// Has something wait behind what waits of its room already.
    pub(super) fn push_to_lane(&self, room: &RoomName, laned: Laned) {
        if self.inner.frame_lanes.push(room, laned) {
            let (delivery, room) = (self.clone(), room.clone());
            self.inner.lifecycle.spawn(async move {
                let _guard = guard_on_unwind((), |()| delivery.inner.frame_lanes.abandon(&room));
                delivery.run_frame_lane(&room).await;
            });
        }
    }

    async fn run_frame_lane(&self, room: &RoomName) {
        while let Some(laned) = self.inner.frame_lanes.next(room) {
            if let Some(position) = laned.stored().cloned() {
                self.execute_overtaken(room, position).await;
            }
            self.execute_laned(room, laned).await;
        }
    }

    /// Executes the frames first that a stored message has overtaken, as publishes of two nodes crossed: they are here, or come soon.
    async fn execute_overtaken(&self, room: &RoomName, position: Position) {
        let until = Instant::now() + CROSSED_WITHIN;
        while self.is_current(&position)
            && let Some(head) = self.hub().log_head(room).filter(|head| head + 1 < position.number)
        {
            match self.inner.frame_lanes.take_stored(room, &Position { number: head + 1, ..position.clone() }) {
                Ok(overtaken) => self.execute_laned(room, overtaken).await,
                Err(comes) => match timeout_at(until, comes).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                },
            }
        }
    }

    async fn execute_laned(&self, room: &RoomName, laned: Laned) {
        match laned {
            Laned::Frame(Received { frame: Frame::Emit(emit), retained, kept, responder, waiting }) => {
                let emitted = Emitted::new(*emit, retained, kept);
                self.respond(responder, self.execute_in_order(emitted).await);
                drop(waiting);
            }
            Laned::Frame(received) => self.answer(received),
            Laned::Emit(emitted, responder, waiting) => {
                self.respond(responder, self.execute_in_order(emitted).await);
                drop(waiting);
            }
            Laned::Fill(kept) => self.fill_history_up_to(room, kept).await,
        }
    }

    /// Answers an emit. Acknowledgements follow when they are all there.
    fn respond(&self, responder: Responder, executed: Executed) {
        let published = match executed {
            Executed::Published(published) => published,
            Executed::Late => {
                responder.answer(Answer::Late);
                return;
            }
        };
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
            Frame::CountUser(user) => {
                let Some(store) = self.store().filter(|store| store.has_unwritten_watermark(&user)).cloned() else {
                    responder.answer(Answer::Count(self.hub().of_user(&user).len() as u64));
                    return;
                };
                let delivery = self.clone();
                let patience = self.cluster().map_or(Duration::ZERO, Cluster::deadline) / 2;
                self.inner.lifecycle.spawn(async move {
                    // Where a device connects, which asks so, it is not to be given again what was proven here. What takes longer is written
                    // later.
                    let _ = timeout(patience, store.write_watermarks()).await;
                    responder.answer(Answer::Count(delivery.hub().of_user(&user).len() as u64));
                });
                return;
            }
            Frame::GetUser(user) => Answer::Connections(self.connections_here(&user)),
            Frame::Collapses(event) => {
                self.note_collapsing(&event);
                Answer::Count(0)
            }
            Frame::Wake(room, position) => {
                self.fill_up_to(&room, position);
                Answer::Count(0)
            }
            Frame::Unread(room, users) => {
                let delivery = self.clone();
                self.inner.lifecycle.spawn(async move {
                    let told = delivery.send_unread_here(&room, users).await;
                    responder.answer(Answer::Count(told));
                });
                return;
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
