use std::{collections::BTreeMap, sync::Arc};

use scopeguard::guard_on_unwind;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Delivery, Resume,
    replay::{Caught, Replay},
    resumed::{Joined, ReplayFrom, Resumed, Standing},
};
use crate::hub::{Frame, Member};
use crate::message::{CloseCode, EventName, Payload, Position, RoomName};

/// What a connection is to be given when it goes live.
pub(super) struct CatchUp {
    /// The rooms of which it may have missed something, and from where on.
    replaying: Vec<(RoomName, ReplayFrom)>,
    /// The rooms of which it is to be told where they stand, which is not known yet.
    unknown: Vec<RoomName>,
    /// What it will be told of its rooms; none: it does not resume.
    resumed: Option<BTreeMap<String, Resumed>>,
}

#[derive(Serialize)]
struct AllResumed<'a> {
    rooms: &'a BTreeMap<String, Resumed>,
}

impl CatchUp {
    /// Of a device that has said this.
    pub(super) fn new(resume: Option<&Resume>) -> Self {
        let unknown = |name: &str| (name.to_owned(), Resumed { recovered: false, count: 0, position: None });
        Self {
            replaying: Vec::new(),
            unknown: Vec::new(),
            resumed: resume.map(|resume| resume.names().map(unknown).collect()),
        }
    }

    /// Whether the device resumes, and is told how that went.
    pub(super) fn is_resuming(&self) -> bool {
        self.resumed.is_some()
    }

    /// Whether there is nothing to give and nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.replaying.is_empty() && self.resumed.is_none()
    }

    /// Whether the connection may have missed something in a room that it is about to join, and which is locked if it is the user's own. It is
    /// replayed then.
    pub(super) fn begin_replay(&mut self, room: &RoomName, resume: Option<&Resume>, delivery: &Delivery) -> bool {
        let has_log = delivery.can_store() || delivery.has_history(room);
        let from = match resume.and_then(|resume| resume.of(room)) {
            Some(position) if has_log => ReplayFrom::Position(position.clone()),
            None if delivery.is_users_mailbox(room) => {
                let head = delivery.hub().log_head(room);
                ReplayFrom::Watermark(head.map_or_else(|| Joined::Unknown(Instant::now()), Joined::At))
            }
            Some(_) | None => return false,
        };
        self.replaying.push((room.clone(), from));
        true
    }

    /// Notes where a room stood when the connection joined it.
    pub(super) fn joined(&mut self, room: &RoomName, standing: Standing) {
        let Some(rooms) = &mut self.resumed else { return };
        if self.replaying.iter().any(|(replaying, _)| replaying == room) {
            return;
        }
        let position = match standing {
            Standing::NoLog => return,
            Standing::Unknown => {
                self.unknown.push(room.clone());
                return;
            }
            Standing::At(position) => position,
        };
        let fresh = Resumed { recovered: true, count: 0, position: None };
        rooms.entry(room.to_string()).or_insert(fresh).position = Some(position.to_string());
    }

    /// Replays what the connection has missed, and tells the device how that went. Ends when the connection does.
    pub(super) async fn run(self, delivery: Delivery, member: Arc<Member>) {
        // If it panics, the device comes back and catches up anew.
        let _guard = guard_on_unwind((), |()| {
            delivery.hub().close(&member, &CloseCode::Unready.into());
        });
        tokio::select! {
            () = self.replay_all(&delivery, &member) => {}
            () = member.gone() => {}
        }
    }

    async fn replay_all(self, delivery: &Delivery, member: &Arc<Member>) {
        let Self { replaying, unknown, resumed: mut rooms } = self;
        let mut gaps = Vec::new();
        for (room, from) in &replaying {
            let mut replay = Replay::new(delivery, member, room, from);
            let resumed = match replay.run().await {
                Some(Caught::Up(resumed)) => resumed,
                Some(Caught::Gap(resumed)) => {
                    gaps.push(replay);
                    resumed
                }
                None => continue,
            };
            if let Some(rooms) = &mut rooms {
                rooms.insert(room.to_string(), resumed);
            }
        }
        let unreadable = match &mut rooms {
            Some(rooms) => delivery.read_positions(member, unknown, rooms).await,
            None => Vec::new(),
        };
        if let Some(mut rooms) = rooms {
            delivery.correct_positions(member, &mut rooms).await;
            delivery.hub().send_resumed(member, |sent| {
                for (room, resumed) in &mut rooms {
                    if let Some((room, sent)) = sent.get_key_value(room.as_str()) {
                        resumed.move_on(sent, |position| delivery.is_of_now(room, position));
                    }
                }
                frame_of(&rooms)
            });
        }
        for gap in gaps {
            gap.go_on().await;
        }
        for room in unreadable {
            delivery.send_position_later(member, &room).await;
        }
    }
}

fn frame_of(rooms: &BTreeMap<String, Resumed>) -> Frame {
    let payload = serde_json::value::to_raw_value(&AllResumed { rooms });
    let payload = payload.map_or(Payload::None, |raw| Payload::Json(raw.into()));
    Frame::new(EventName::own("bugle:resumed"), payload)
}

impl Delivery {
    /// Reads where rooms stand, of which what was published since the connection joined was sent to it. Returns those that cannot be read now.
    async fn read_positions(
        &self,
        member: &Arc<Member>,
        unknown: Vec<RoomName>,
        rooms: &mut BTreeMap<String, Resumed>,
    ) -> Vec<RoomName> {
        let mut unreadable = Vec::new();
        for room in unknown {
            match self.read_log(member, self.log_position(&room)).await {
                Ok(position) => {
                    let fresh = Resumed { recovered: true, count: 0, position: Some(position.to_string()) };
                    rooms.insert(room.to_string(), fresh);
                }
                Err(error) if error.is_damage() => {
                    self.inner.faulty_logs.note(&room, &error);
                    rooms.insert(room.to_string(), Resumed::unreadable());
                }
                Err(_) => unreadable.push(room),
            }
        }
        unreadable
    }

    /// Corrects what was noted before the store began a new epoch, or a history a new sequence: a connection that joined live was told of a gap
    /// meanwhile.
    async fn correct_positions(&self, member: &Arc<Member>, rooms: &mut BTreeMap<String, Resumed>) {
        for (name, resumed) in rooms {
            let (Ok(room), Some(position)) = (RoomName::new(name), resumed.parsed()) else { continue };
            if self.is_of_now(&room, &position) {
                continue;
            }
            let stands = async {
                match self.store().filter(|_| !self.has_history(&room)) {
                    Some(store) => self.is_there(store, &room, &position).await,
                    None => self.log_position(&room).await.map(|now| now.epoch == position.epoch),
                }
            };
            // What cannot be read now is told when the device comes back.
            if let Ok(false) = self.read_log(member, stands).await
                && let Ok(position) = self.read_log(member, self.log_position(&room)).await
            {
                *resumed = Resumed { recovered: false, position: Some(position.to_string()), ..*resumed };
            }
        }
    }

    /// Whether a position is of the sequence that a room's messages have now.
    fn is_of_now(&self, room: &RoomName, position: &Position) -> bool {
        if self.has_history(room) {
            return self.history_position(room).is_some_and(|stands| stands.epoch == position.epoch);
        }
        self.is_current(position)
    }

    /// What tells a connection that resumes where a room stands that it joins just now.
    pub(super) fn position_frame(room: &RoomName, position: &Position) -> Frame {
        Self::resumed_frame(room, Resumed { recovered: true, count: 0, position: Some(position.to_string()) })
    }

    /// What tells a connection that resumes of one room alone.
    pub(super) fn resumed_frame(room: &RoomName, resumed: Resumed) -> Frame {
        frame_of(&BTreeMap::from([(room.to_string(), resumed)]))
    }
}
