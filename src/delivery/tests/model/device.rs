//! A device: what it has received, and where it resumes, as a Socket.IO client does.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::delivery::Admission;
use crate::hub::{
    Frame, QueueError, Unproven, WriteMode,
    fake::{Behaviour, FakeConnection},
};
use crate::message::{CloseReason, EventName, Payload, Position, RoomName};

/// The event that the plain WebSocket does not listen for.
pub(super) const UNHEARD: &str = "b";

/// What a connection has been sent.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    Message { room: String, seq: u64, position: Position },
    Resumed(BTreeMap<String, Resumed>),
}

/// What `bugle:resumed` says of a room.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resumed {
    pub(super) is_recovered: bool,
    pub(super) position: Position,
}

/// The connection's end at the server.
pub(super) struct Recorder {
    resumes: bool,
    sent: Mutex<Vec<Sent>>,
    in_flight: Mutex<Vec<Arc<dyn Unproven>>>,
}

impl Recorder {
    pub(super) fn new(resumes: bool) -> Self {
        Self { resumes, sent: Mutex::default(), in_flight: Mutex::default() }
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().clone()
    }

    pub(super) fn prove(&self) {
        for message in std::mem::take(&mut *self.in_flight.lock()) {
            message.proven();
        }
    }

    pub(super) fn lose(&self) {
        for message in std::mem::take(&mut *self.in_flight.lock()) {
            message.lost();
        }
    }
}

impl Behaviour for Recorder {
    fn listens_to(&self, event: &EventName) -> bool {
        self.resumes || event.as_str() != UNHEARD
    }

    fn resumes(&self) -> bool {
        self.resumes
    }

    fn enqueue(&self, frame: &Frame, _mode: WriteMode) -> Result<(), QueueError> {
        let Payload::Json(payload) = &frame.payload else { panic!("{frame:?}") };
        let payload: Value = serde_json::from_str(payload.get()).unwrap();
        if let Some(entry) = &frame.entry {
            let meta: Value = serde_json::from_str(entry.meta.get()).unwrap();
            let (room, position) = (meta["room"].as_str().unwrap().to_owned(), position(&meta["position"]));
            self.sent.lock().push(Sent::Message { room, seq: payload.as_u64().unwrap(), position });
        } else if frame.event.as_str() == "bugle:resumed" {
            let resumed = |room: &Value| {
                let is_recovered = room["recovered"].as_bool().unwrap();
                Resumed { is_recovered, position: position(&room["position"]) }
            };
            let rooms = payload["rooms"].as_object().unwrap();
            let rooms = rooms.iter().map(|(name, room)| (name.clone(), resumed(room))).collect();
            self.sent.lock().push(Sent::Resumed(rooms));
        }
        if let Some(unproven) = &frame.unproven {
            unproven.sent();
            self.in_flight.lock().push(unproven.clone());
        }
        Ok(())
    }

    fn close(&self, reason: &CloseReason) {
        panic!("closed: {reason:?}");
    }
}

fn position(text: &Value) -> Position {
    text.as_str().expect("a position").parse().unwrap()
}

/// Where a device has come in a room.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) position: Position,
    /// Of the message that stood there then; 0: none.
    pub(super) seq: u64,
}

/// What a device knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Also what was there no more when the device came to its position: it is not given that if a restore brings it back.
    pub(super) received: HashSet<u64>,
    /// By room.
    pub(super) seen: BTreeMap<String, Seen>,
    /// It need not receive these: they were given to another device before, or it was told that it has missed some.
    pub(super) excused: HashSet<u64>,
}

pub(super) struct Online {
    pub(super) admission: Arc<Admission>,
    pub(super) connection: Arc<FakeConnection<Recorder>>,
    /// So many of the frames have surely arrived.
    pub(super) arrived: usize,
    /// What `bugle:resumed` excuses, and by room the message at the told position.
    pub(super) excuses: HashSet<u64>,
    /// What was there no more, up to the positions that it tells.
    pub(super) passed: HashSet<u64>,
    pub(super) told: BTreeMap<String, u64>,
    /// Of a plain WebSocket: what it is to be given.
    pub(super) owed: HashSet<u64>,
}

#[derive(Default)]
pub(super) struct Device {
    pub(super) known: Known,
    pub(super) online: Option<Online>,
}

impl Known {
    /// What a device knows that has received these frames.
    fn after(mut self, online: &Online, sent: &[Sent]) -> Self {
        for sent in sent {
            match sent {
                Sent::Message { room, seq, position } => {
                    self.received.insert(*seq);
                    self.seen.insert(room.clone(), Seen { position: position.clone(), seq: *seq });
                }
                Sent::Resumed(rooms) => {
                    for (room, Resumed { position, .. }) in rooms {
                        let seq = online.told.get(room).copied().unwrap_or_default();
                        self.seen.insert(room.clone(), Seen { position: position.clone(), seq });
                    }
                    self.excused.extend(&online.excuses);
                    self.received.extend(&online.passed);
                }
            }
        }
        self
    }
}

impl Device {
    /// What the device knows if all frames arrive.
    pub(super) fn view(&self) -> Known {
        match &self.online {
            Some(online) => self.known.clone().after(online, &online.connection.sent()),
            None => self.known.clone(),
        }
    }

    /// The connection ends. The last frames that are not proven have not arrived.
    pub(super) fn cut(&mut self, unseen: usize) -> Option<Online> {
        let online = self.online.take()?;
        let sent = online.connection.sent();
        let arrived = sent.len().saturating_sub(unseen).max(online.arrived);
        self.known = std::mem::take(&mut self.known).after(&online, &sent[..arrived]);
        Some(online)
    }

    /// The positions of a connection rise in each room.
    pub(super) fn check_order(&self) {
        let Some(online) = &self.online else { return };
        let mut last = BTreeMap::new();
        for sent in online.connection.sent() {
            let Sent::Message { room, position, .. } = sent else { continue };
            let before = last.insert(room.clone(), position.number).unwrap_or_default();
            assert!(before < position.number, "{room}: {} comes after {before}", position.number);
        }
    }
}

/// The rooms' names.
pub(super) fn room(room: usize) -> RoomName {
    RoomName::new(["user:42", "r"][room]).unwrap()
}
