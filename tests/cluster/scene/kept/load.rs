//! Emits of which each is repeated, under its idempotency key, at another node until it is accepted.

use std::{sync::Arc, time::Duration};

use bugle::proto::v1::{EmitOptions, EmitToRoomRequest, EmitToUserRequest, Receipt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{LONG, PAUSE, Places, Room, SHARED};
use crate::harness::{Backend, to_room, to_user};

const TICK: Duration = Duration::from_millis(4);
/// What was not emitted for longer than this is not made up for.
const MAX_OWED: Duration = Duration::from_millis(100);
/// A backend waits so long for an answer. A node that cannot store anything may take 8 s to say so.
const PATIENCE: Duration = Duration::from_secs(2);
/// The event of the last message of a room. All others are [`EVENT`].
pub const LAST: &str = "last";
pub const EVENT: &str = "kept";

/// An emit that was accepted in the end.
#[derive(Debug)]
pub struct Call {
    pub room: Room,
    /// Its payload, which no other has.
    pub number: usize,
    /// The last one was accepted.
    pub attempts: Vec<Attempt>,
}

#[derive(Debug)]
pub struct Attempt {
    pub node: usize,
    pub begun: Instant,
    pub answered: Instant,
    /// No answer in time is `DEADLINE_EXCEEDED`.
    pub answer: Result<Receipt, Code>,
}

impl Call {
    pub fn begun(&self) -> Instant {
        self.attempts[0].begun
    }
}

/// How many emits were accepted, and how many attempts were not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub stored: usize,
    pub in_histories: usize,
    pub not_stored: usize,
}

pub struct Load {
    pacer: JoinSet<Vec<Call>>,
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
}

impl Load {
    /// Emits so much a second to these rooms. At most so many emits of each kind are not accepted yet.
    pub fn start(places: Arc<Places>, rooms: Vec<Room>, rate: u32, in_flight: usize) -> Self {
        let (progressed, progress) = watch::channel(Progress::default());
        let stop = CancellationToken::new();
        let pacer = Pacer {
            places,
            rooms,
            progress: Arc::new(progressed),
            stored: Arc::new(Semaphore::new(in_flight)),
            in_histories: Arc::new(Semaphore::new(in_flight)),
            calls: JoinSet::new(),
            done: Vec::new(),
            number: 0,
        };
        let pacing = pacer.run(Duration::from_secs(1) / rate, stop.clone());
        let mut pacer = JoinSet::new();
        pacer.spawn(pacing);
        Self { pacer, progress, stop }
    }

    /// Waits until there is so much more than now.
    pub async fn progressed(&mut self, what: &str, is_enough: impl Fn(&Progress, &Progress) -> bool) {
        let then = *self.progress.borrow();
        let enough = timeout(LONG, self.progress.wait_for(|now| is_enough(now, &then))).await.is_ok();
        assert!(enough, "waited {LONG:?} in vain for {what}: {then:?} is now {:?}", *self.progress.borrow());
    }

    /// Emits the last message of each room when all others are accepted. Returns all.
    pub async fn stop(&mut self) -> Vec<Call> {
        self.stop.cancel();
        let ended = timeout(LONG, self.pacer.join_next()).await.expect("all emits are accepted");
        ended.expect("there is a pacer").expect("it does not panic")
    }
}

struct Pacer {
    places: Arc<Places>,
    rooms: Vec<Room>,
    progress: Arc<watch::Sender<Progress>>,
    /// How many more emits may be under way.
    stored: Arc<Semaphore>,
    in_histories: Arc<Semaphore>,
    calls: JoinSet<Call>,
    done: Vec<Call>,
    number: usize,
}

impl Pacer {
    async fn run(mut self, period: Duration, stop: CancellationToken) -> Vec<Call> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut owed, mut turn) = (Instant::now(), Duration::ZERO, 0);
        while !stop.is_cancelled() {
            ticks.tick().await;
            let now = Instant::now();
            owed = (owed + (now - last)).min(MAX_OWED);
            last = now;
            while owed >= period {
                owed -= period;
                let room = self.room(turn);
                turn += 1;
                let free = if room.is_history() { &self.in_histories } else { &self.stored };
                if let Ok(permit) = free.clone().try_acquire_owned() {
                    self.emit(room, EVENT, Some(permit));
                }
            }
            while let Some(call) = self.calls.try_join_next() {
                self.note(call);
            }
        }
        self.all_accepted().await;
        for room in self.rooms.clone() {
            self.emit(room, LAST, None);
        }
        self.all_accepted().await;
        self.done
    }

    /// Half of the emits are for histories, and half of the others for users.
    fn room(&self, turn: usize) -> Room {
        let mailboxes = self.rooms.len() - SHARED.len();
        let index = match turn % 4 {
            0 => SHARED.len() + turn / 4 % mailboxes,
            1 => turn / 4 % 2,
            place => place,
        };
        self.rooms[index].clone()
    }

    fn emit(&mut self, room: Room, event: &'static str, permit: Option<OwnedSemaphorePermit>) {
        let (places, progress) = (self.places.clone(), self.progress.clone());
        self.calls.spawn(until_accepted(places, room, event, self.number, progress, permit));
        self.number += 1;
    }

    async fn all_accepted(&mut self) {
        while let Some(call) = self.calls.join_next().await {
            self.note(call);
        }
    }

    fn note(&mut self, call: Result<Call, JoinError>) {
        let call = call.expect("a call does not panic");
        self.progress.send_modify(|progress| match call.room {
            Room::Mailbox(_) | Room::Stored(_) => progress.stored += 1,
            Room::History(_) => progress.in_histories += 1,
        });
        self.done.push(call);
    }
}

async fn until_accepted(
    places: Arc<Places>,
    room: Room,
    event: &'static str,
    number: usize,
    progress: Arc<watch::Sender<Progress>>,
    _permit: Option<OwnedSemaphorePermit>,
) -> Call {
    let (mut attempts, mut place) = (Vec::new(), places.by_turns(number));
    let mut pauses = interval(PAUSE);
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pauses.tick().await;
        let begun = Instant::now();
        let answer = timeout(PATIENCE, emit(&place.backend, &room, event, number)).await;
        let answer = answer.unwrap_or(Err(Code::DeadlineExceeded));
        let is_accepted = answer.is_ok();
        attempts.push(Attempt { node: place.node, begun, answered: Instant::now(), answer });
        if is_accepted {
            return Call { room, number, attempts };
        }
        if !room.is_history() {
            progress.send_modify(|progress| progress.not_stored += 1);
        }
        place = places.by_turns(place.node + 1);
    }
}

async fn emit(backend: &Backend, room: &Room, event: &str, number: usize) -> Result<Receipt, Code> {
    let (mut notify, json) = (backend.notify(), number.to_string());
    let options = EmitOptions { store: !room.is_history(), idempotency_key: json.clone(), ..EmitOptions::default() };
    let options = Some(options);
    let receipt = match room {
        Room::Mailbox(user) => {
            let request = EmitToUserRequest { options, ..to_user(user, event, &json) };
            notify.emit_to_user(request).await.map(|answer| answer.into_inner().receipt)
        }
        Room::Stored(name) | Room::History(name) => {
            let request = EmitToRoomRequest { options, ..to_room(name, event, &json) };
            notify.emit_to_room(request).await.map(|answer| answer.into_inner().receipt)
        }
    };
    receipt.map_err(|status| status.code())?.ok_or(Code::Internal)
}
