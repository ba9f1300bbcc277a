//! A device: what it was sent, and what it knows.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::Value;

use super::{
    checks::number_of,
    oracle::{HISTORY, ROOMS, resumes},
};
use crate::cluster::model::Link;
use crate::delivery::Admission;
use crate::hub::{
    Frame, QueueError, Unproven, WriteMode,
    fake::{Behaviour, FakeConnection},
};
use crate::message::{CloseReason, Payload, Position};

/// Counts the fail-overs that lost messages. Odd: some node has not noticed the last one.
pub(super) type Losses = Arc<AtomicU64>;

/// What a connection has been sent of a room.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) room: usize,
    pub(super) what: What,
    /// As it was counted then; of the history, how many sequences there are up to that of the position.
    pub(super) losses: u64,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Message { seq: u64, position: Position },
    Told { is_recovered: bool, position: Option<Position> },
}

impl What {
    pub(super) fn position(&self) -> Option<&Position> {
        match self {
            Self::Message { position, .. } => Some(position),
            Self::Told { position, .. } => position.as_ref(),
        }
    }
}

/// The connection's end at the server.
pub(super) struct Recorder {
    resumes: bool,
    losses: Losses,
    link: Link,
    sent: Mutex<Vec<Sent>>,
    in_flight: Mutex<Vec<Arc<dyn Unproven>>>,
    has_ended: AtomicBool,
}

impl Recorder {
    pub(super) fn new(device: usize, losses: &Losses, link: &Link) -> Self {
        Self {
            resumes: resumes(device),
            losses: losses.clone(),
            link: link.clone(),
            sent: Mutex::default(),
            in_flight: Mutex::default(),
            has_ended: AtomicBool::new(false),
        }
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().clone()
    }

    pub(super) fn prove(&self) {
        for message in std::mem::take(&mut *self.in_flight.lock()) {
            message.proven();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        for message in std::mem::take(&mut *self.in_flight.lock()) {
            message.lost();
        }
    }

    fn note(&self, room: &str, what: What) {
        let Some(room) = number_of(room) else { return };
        let losses = match what.position() {
            Some(position) if room == HISTORY => self.link.order(position),
            Some(_) | None => self.losses.load(Ordering::Relaxed),
        };
        self.sent.lock().push(Sent { room, what, losses });
    }
}

impl Behaviour for Recorder {
    fn resumes(&self) -> bool {
        self.resumes
    }

    fn enqueue(&self, frame: &Frame, _mode: WriteMode) -> Result<(), QueueError> {
        if self.has_ended() {
            return Err(QueueError::Ended);
        }
        let Payload::Json(payload) = &frame.payload else { panic!("{frame:?}") };
        let payload: Value = serde_json::from_str(payload.get()).unwrap();
        if let Some(entry) = &frame.entry {
            let meta: Value = serde_json::from_str(entry.meta.get()).unwrap();
            let position = position(&meta["position"]).expect("a position");
            self.note(meta["room"].as_str().unwrap(), What::Message { seq: payload.as_u64().unwrap(), position });
        } else if frame.event.as_str() == "bugle:resumed" {
            for (room, told) in payload["rooms"].as_object().unwrap() {
                let (is_recovered, position) = (told["recovered"].as_bool().unwrap(), position(&told["position"]));
                self.note(room, What::Told { is_recovered, position });
            }
        }
        if let Some(unproven) = &frame.unproven {
            unproven.sent();
            self.in_flight.lock().push(unproven.clone());
        }
        Ok(())
    }

    fn close(&self, _: &CloseReason) {
        self.end();
    }
}

fn position(text: &Value) -> Option<Position> {
    text.as_str().map(|text| text.parse().unwrap())
}

/// What a device that resumes knows of a room.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Where it was last, and the losses when it was told that.
    pub(super) seen: Option<(Position, u64)>,
    /// From there on it must have all.
    pub(super) base: Option<u64>,
    pub(super) got: Vec<(u64, u64)>,
    /// It was told that some may be missing up to there.
    pub(super) gap: u64,
    /// That was on this connection.
    pub(super) is_told: bool,
}

impl Known {
    pub(super) fn last(&self) -> Option<u64> {
        self.got.last().map(|(number, _)| *number).or(self.base)
    }

    /// Takes what comes on a connection. The error says what is wrong.
    fn take(&mut self, Sent { what, losses, room }: &Sent, came: &Came) -> Result<(), String> {
        let last = self.last();
        match what {
            What::Message { seq, position } => {
                self.seen = Some((position.clone(), *losses));
                let number = position.number;
                self.base.get_or_insert(number.saturating_sub(1));
                self.got.push((number, *seq));
                match last {
                    Some(last) if number != last + 1 => Err(format!("was sent {position} ({seq}) after {last}")),
                    Some(_) | None => Ok(()),
                }
            }
            What::Told { is_recovered: true, position: Some(position) } => {
                self.seen = Some((position.clone(), *losses));
                self.base.get_or_insert(position.number);
                match last {
                    Some(last) if position.number > last => Err(format!("was told {position} and has only {last}")),
                    Some(_) | None => Ok(()),
                }
            }
            What::Told { position, .. } => {
                let is_repeated = std::mem::replace(&mut self.is_told, true)
                    && position.as_ref().is_some_and(|position| last == Some(position.number));
                let before = self.seen.take().map_or(came.losses, |(_, losses)| losses);
                self.seen = position.clone().map(|position| (position, *losses));
                self.base = position.as_ref().map(|position| position.number);
                self.gap = self.base.unwrap_or(u64::MAX);
                self.got.clear();
                if before == *losses && losses.is_multiple_of(2) && !came.is_blind[*room] && !is_repeated {
                    return Err(format!("was told of a gap after {last:?}, and nothing was lost"));
                }
                Ok(())
            }
        }
    }
}

/// How all was when a connection was let in.
#[derive(Clone, Copy)]
pub(super) struct Came {
    /// The losses, and the sequences of the history, when it came.
    pub(super) losses: u64,
    pub(super) sequences: u64,
    /// By room, whether it was let in before it was known where the room stands.
    pub(super) is_blind: [bool; ROOMS],
}

pub(super) struct Online {
    pub(super) node: usize,
    pub(super) stay: usize,
    pub(super) admission: Arc<Admission>,
    pub(super) connection: Arc<FakeConnection<Recorder>>,
    /// So many of the frames have surely arrived.
    pub(super) arrived: usize,
    /// By room, the first emit that began after it was known where the room stands.
    pub(super) first: [Option<u64>; ROOMS],
    /// The first emit that began after it was let in.
    pub(super) since: u64,
    pub(super) came: Came,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Offline,
    Joining,
    Online(Online),
}

#[derive(Default)]
pub(super) struct Device {
    pub(super) known: [Known; ROOMS],
    /// All messages that have arrived.
    pub(super) received: HashSet<u64>,
    pub(super) state: State,
}

impl Device {
    pub(super) fn online(&self) -> Option<&Online> {
        if let State::Online(online) = &self.state { Some(online) } else { None }
    }

    /// Where it resumes, by room.
    pub(super) fn seen(&self) -> Vec<(usize, Position)> {
        let seen = self.known.iter().enumerate();
        seen.filter_map(|(room, known)| Some((room, known.seen.clone()?.0))).collect()
    }

    /// Takes frames of a connection. Returns what is wrong.
    pub(super) fn take(&mut self, sent: &[Sent], mut came: Came) -> Vec<String> {
        let mut wrong = Vec::new();
        self.known.iter_mut().for_each(|known| known.is_told = false);
        if let Some((_, seen_in)) = &self.known[HISTORY].seen {
            came.sequences = came.sequences.min(*seen_in);
        }
        for sent in sent {
            if let What::Message { seq, .. } = sent.what {
                self.received.insert(seq);
            }
            let known = &mut self.known[sent.room];
            let taken = if sent.room == HISTORY { known.take_of_history(sent, &came) } else { known.take(sent, &came) };
            wrong.extend(taken.err().map(|wrong| format!("{wrong} in {}", sent.room)));
        }
        wrong
    }

    /// The same of what it was sent so far, which may not have arrived yet.
    pub(super) fn view(&self) -> (Self, Vec<String>) {
        let mut view = Self { known: self.known.clone(), received: self.received.clone(), state: State::Offline };
        let online = self.online();
        let wrong = online.map(|online| view.take(&online.connection.sent(), online.came)).unwrap_or_default();
        (view, wrong)
    }

    /// The connection ends. The last frames that are not proven have not arrived.
    pub(super) fn cut(&mut self, unseen: usize) -> Option<(Online, Vec<Sent>)> {
        self.online()?;
        let State::Online(online) = std::mem::take(&mut self.state) else { return None };
        online.connection.end();
        let mut sent = online.connection.sent();
        sent.truncate(sent.len().saturating_sub(unseen).max(online.arrived));
        Some((online, sent))
    }
}

/// The positions of a connection that does not resume rise in each room, as long as nothing is lost.
pub(super) fn rising(sent: &[Sent]) -> Vec<String> {
    let (mut last, mut wrong, mut sequence) = (BTreeMap::new(), Vec::new(), 0);
    for Sent { room, what, losses } in sent {
        let What::Message { position, .. } = what else { continue };
        let before = last.insert((room, position.epoch.clone()), position.number).unwrap_or_default();
        if before >= position.number {
            wrong.push(format!("was sent {position} after {before} in {room}"));
        }
        if *room == HISTORY && std::mem::replace(&mut sequence, *losses) > *losses {
            wrong.push(format!("was sent {position} of a sequence that is over"));
        }
    }
    wrong
}
