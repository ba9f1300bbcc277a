//! What was accepted, compared with what devices have.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bugle::message::Position;
use tokio::time::Instant;
use tonic::Code;

use super::{
    Told,
    devices::{Connection, Listener, News},
    load::{Attempt, Call},
};
use crate::scene::{Timeline, verdict::a_second};

/// Wrong things that are told in full; the rest is counted.
const TOLD: usize = 3;
/// The end of a connection, as a node sees it, is no longer than this before or after the device's.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// What a fault of the database has held up is read within this time after it.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// A node may count a connection for so long that its device has left: it does not run, or cannot be reached.
const COUNTED_FOR: Duration = Duration::from_secs(30);

/// What became of the emits to rooms that keep them.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Accepted ones, stored or in a history.
    pub stored: usize,
    pub in_histories: usize,
    /// Emits a second before the fault and after it.
    pub rate: u32,
    /// Attempts that were refused, or not answered in time.
    pub refused_stored: usize,
    pub refused_in_histories: usize,
    pub partial: usize,
    /// Those of them that were begun before the fault, or when what it had held up was read.
    pub partial_outside: usize,
    /// Connections that devices have made.
    pub connections: usize,
    /// How often a device was told that messages are missing.
    pub told_stored: usize,
    pub told_histories: usize,
    /// What they were told of histories.
    pub gaps: Vec<String>,
    /// Complete receipts for what did not arrive.
    pub wrong: usize,
    /// From the last answer until all devices had everything.
    pub settled_after: Duration,
    pub violations: Vec<String>,
}

impl Told {
    pub fn judge(&self, timeline: &Timeline) -> Outcome {
        let mut outcome = Outcome { settled_after: self.settled_after, ..Outcome::default() };
        self.count(timeline, &mut outcome);
        for device in &self.devices {
            outcome.connections += device.connections.len();
            if !device.is_done {
                let problem = format!("{} did not come to the end of all its rooms", device.who.user);
                outcome.violations.push(problem);
            }
            self.check_arrived(device, &mut outcome);
            check_positions(device, &mut outcome);
        }
        self.check_receipts(timeline, &mut outcome);
        outcome
    }

    fn count(&self, timeline: &Timeline, outcome: &mut Outcome) {
        let mut strange = Vec::new();
        for call in &self.calls {
            let is_history = call.room.is_history();
            *(if is_history { &mut outcome.in_histories } else { &mut outcome.stored }) += 1;
            let refused = call.attempts.len() - 1;
            *(if is_history { &mut outcome.refused_in_histories } else { &mut outcome.refused_stored }) += refused;
            for attempt in &call.attempts {
                let is_partial = attempt.answer.as_ref().is_ok_and(|receipt| receipt.partial);
                outcome.partial += usize::from(is_partial);
                let has_settled =
                    attempt.begun < timeline.fault_began || attempt.begun > timeline.recovered + READ_WITHIN;
                outcome.partial_outside += usize::from(is_partial && has_settled);
                let may_answer =
                    |code: &Code| timeline.may_answer(attempt.node, attempt.begun, attempt.answered, *code);
                let is_strange = |code: &Code| *code != Code::DeadlineExceeded && !may_answer(code);
                if attempt.answer.as_ref().is_err_and(is_strange) {
                    strange.push(format!("{attempt:?}"));
                }
                let is_stored = attempt.answer.as_ref().is_ok_and(|receipt| receipt.stored);
                if attempt.answer.is_ok() && is_stored == is_history {
                    strange.push(format!("{call:?}"));
                }
            }
        }
        tell(outcome, "refused for another reason, or wrongly stored", &strange);
        let is_outside =
            |begun: &Instant| *begun < timeline.fault_began || (timeline.recovered..self.stopped).contains(begun);
        let outside = self.calls.iter().map(Call::begun).filter(is_outside).count();
        let time = (timeline.fault_began - self.began) + (self.stopped - timeline.recovered);
        outcome.rate = a_second(outside, time);
    }

    /// A device has every message of its rooms, once if it resumes, unless it was told after the emit that some are missing.
    fn check_arrived(&self, device: &Listener, outcome: &mut Outcome) {
        let (mut arrived, mut told): (HashMap<usize, usize>, HashMap<&str, Instant>) = Default::default();
        let mut strange = Vec::new();
        for news in device.connections.iter().flat_map(|connection| &connection.news) {
            match news {
                News::Message { number, .. } => *arrived.entry(*number).or_default() += 1,
                News::Resumed { room, recovered: false, at, .. } => drop(told.insert(room, *at)),
                News::Resumed { .. } => {}
                News::Strange(raw) => strange.push(raw.clone()),
            }
        }
        let (mut lost, mut twice) = (Vec::new(), Vec::new());
        for call in self.calls.iter().filter(|call| device.who.is_in(&call.room.name())) {
            let times = arrived.remove(&call.number).unwrap_or_default();
            let is_excused = told.get(&*call.room.name()).is_some_and(|told| *told >= call.begun());
            if times == 0 && !is_excused {
                lost.push(format!("{call:?}"));
            }
            // The engine may have lost its key.
            let may_repeat = !device.who.resumes || call.room.is_history() && call.attempts.len() > 1;
            if times > 1 && !may_repeat {
                twice.push(format!("{call:?}"));
            }
        }
        let user = &device.who.user;
        tell(outcome, &format!("accepted and not come to {user}"), &lost);
        tell(outcome, &format!("came twice to {user}"), &twice);
        let others: Vec<_> = arrived.keys().map(ToString::to_string).collect();
        tell(outcome, &format!("came to {user} and are not of its rooms"), &others);
        tell(outcome, &format!("other events came to {user}"), &strange);
    }

    /// A complete receipt counts each connection that was in the room all the time, and none that did not get the message.
    fn check_receipts(&self, timeline: &Timeline, outcome: &mut Outcome) {
        let heard = |connection: &Connection| -> HashSet<usize> {
            let numbers = connection.news.iter().filter_map(|news| match news {
                News::Message { number, .. } => Some(*number),
                News::Resumed { .. } | News::Strange(_) => None,
            });
            numbers.collect()
        };
        let connections: Vec<_> = self
            .devices
            .iter()
            .flat_map(|device| device.connections.iter().map(move |connection| (device, connection)))
            .map(|(device, connection)| (device, connection, heard(connection)))
            .collect();
        let mut wrong = Vec::new();
        for (call, attempt) in self.calls.iter().filter_map(once_and_complete) {
            let Ok(receipt) = &attempt.answer else { continue };
            let room = call.room.name();
            let audience = || connections.iter().filter(|(device, ..)| device.who.is_in(&room));
            let leases_may_have_ended = attempt.answered >= timeline.fault_began + timeline.leased_for;
            let is_meanwhile = leases_may_have_ended && attempt.begun <= timeline.recovered;
            let throughout = audience().filter(|(_, connection, _)| {
                let is_ready = connection.ready.get(&room).is_some_and(|ready| *ready <= attempt.begun);
                let stays = connection.ended.is_none_or(|ended| ended > attempt.answered + SEEN_WITHIN);
                let is_cut_off =
                    timeline.uncounted.contains(&connection.node) || timeline.lost.contains(&connection.node);
                let may_be_left_out = is_meanwhile && is_cut_off;
                is_ready && stays && !may_be_left_out
            });
            let throughout = throughout.count() as u64;
            let possible = audience().filter(|(_, connection, heard)| {
                let is_opened = connection.opened <= attempt.answered;
                let may_be_counted = connection.ended.is_some_and(|ended| {
                    ended + COUNTED_FOR >= attempt.begun && ended <= attempt.answered + 5 * SEEN_WITHIN
                });
                is_opened && (heard.contains(&call.number) || may_be_counted)
            });
            if receipt.matched < throughout || receipt.enqueued > possible.count() as u64 {
                wrong.push(format!("{throughout} connections stayed: {call:?}"));
            }
        }
        outcome.wrong = wrong.len();
        tell(outcome, "complete receipts for what did not arrive", &wrong);
    }
}

/// A call that was accepted at once, with a complete receipt of its own.
fn once_and_complete(call: &Call) -> Option<(&Call, &Attempt)> {
    let [attempt] = &call.attempts[..] else { return None };
    let receipt = attempt.answer.as_ref().ok()?;
    (!receipt.partial && !receipt.duplicate).then_some((call, attempt))
}

/// Positions have no gaps and never come again, unless the device was told. What it is told is where it stands.
fn check_positions(device: &Listener, outcome: &mut Outcome) {
    let mut last: HashMap<&str, &Position> = HashMap::new();
    let (mut wrong, mut told, mut told_within) = (Vec::new(), Vec::new(), Vec::new());
    for (index, connection) in device.connections.iter().enumerate() {
        let place =
            |text: String| format!("{text} on connection {index} of {} to node {}", device.who.user, connection.node);
        for news in &connection.news {
            match news {
                News::Message { room, position: Some(position), .. } => {
                    if let Some(last) = last.insert(room, position)
                        && !follows(room, last, position)
                    {
                        wrong.push(place(format!("{room}: {position} after {last}")));
                    }
                }
                News::Resumed { room, recovered: true, position: Some(position), .. } => {
                    if let Some(last) = last.insert(room, position)
                        && !is_same(room, last, position)
                    {
                        wrong.push(place(format!("{room}: recovered at {position} after {last}")));
                    }
                }
                News::Resumed { room, recovered: false, position, .. } => {
                    let was = match position {
                        Some(position) => last.insert(room, position),
                        None => last.remove(&**room),
                    };
                    let gap = place(format!("{room}: recovered: false at {position:?} after {was:?}"));
                    if is_history(room) {
                        outcome.told_histories += 1;
                        let is_of = |was: &Position| position.as_ref().is_none_or(|told| told.epoch == was.epoch);
                        if was.is_some_and(is_of) {
                            told_within.push(gap.clone());
                        }
                        outcome.gaps.push(gap);
                    } else {
                        outcome.told_stored += 1;
                        told.push(gap);
                    }
                }
                News::Message { .. } | News::Resumed { .. } | News::Strange(_) => {}
            }
        }
    }
    tell(outcome, "positions are wrong", &wrong);
    tell(outcome, "gaps are told where the database has lost nothing", &told);
    tell(outcome, "gaps are told in histories that have not begun anew", &told_within);
}

fn is_history(room: &str) -> bool {
    room.starts_with("kept:history-")
}

/// A mailbox goes on in the next epoch of the store. A history begins anew, and its devices are told.
fn follows(room: &str, last: &Position, next: &Position) -> bool {
    next.number == last.number + 1 && (last.epoch == next.epoch || !is_history(room))
}

fn is_same(room: &str, last: &Position, told: &Position) -> bool {
    last.number == told.number && (last.epoch == told.epoch || !is_history(room))
}

fn tell(outcome: &mut Outcome, what: &str, wrong: &[String]) {
    if !wrong.is_empty() {
        outcome.violations.push(format!("{} {what}: {:?}", wrong.len(), &wrong[..wrong.len().min(TOLD)]));
    }
}
