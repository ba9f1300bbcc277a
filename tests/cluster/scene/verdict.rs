//! What was promised, compared with what arrived.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use tonic::Code;

use super::{
    KeptOutcome, Timeline,
    devices::Heard,
    load::{Audience, Call},
};

/// Wrong things that are told in full; the rest is counted.
const TOLD: usize = 3;

/// Limits of time: for a machine without other work.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a call to a node that runs.
    pub call: Duration,
    /// From the end of a fault until presence is right.
    pub presence: Duration,
    /// From the begin of a fault until a node is not counted any more.
    pub fence: Duration,
    /// Emits a second outside the fault, at least.
    pub rate: u32,
    /// The same of emits that are kept.
    pub kept_rate: u32,
}

/// What became of a load with a fault.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Emits with an answer or a refusal.
    pub emits: usize,
    /// Emits a second before the fault and after it, and in between.
    pub rate: u32,
    pub rate_in_fault: u32,
    pub complete: usize,
    pub partial: usize,
    pub refused: usize,
    /// Complete receipts for what did not arrive.
    pub wrong: usize,
    /// The longest call to a node that runs.
    pub longest: Duration,
    pub fenced_after: Option<Duration>,
    pub presence_after: Duration,
    pub ghosts: usize,
    pub kept: KeptOutcome,
    /// What must not be, whatever the time.
    pub violations: Vec<String>,
}

impl Outcome {
    /// What became of emits to rooms that keep them.
    pub(super) fn add(&mut self, mut kept: KeptOutcome) {
        self.wrong += kept.wrong;
        self.violations.append(&mut kept.violations);
        self.kept = kept;
    }

    /// What took too long.
    pub fn late(&self, limits: Limits) -> Vec<String> {
        let mut late = Vec::new();
        let mut compare = |what: &str, took: Duration, limit: Duration| {
            if took > limit {
                late.push(format!("{what} took {took:?}, and may take {limit:?}"));
            }
        };
        compare("a call", self.longest, limits.call);
        compare("presence", self.presence_after, limits.presence);
        compare("the end of a lease", self.fenced_after.unwrap_or_default(), limits.fence);
        if self.rate < limits.rate {
            late.push(format!("{} emits a second were made in place of {}", self.rate, limits.rate));
        }
        if self.kept.rate < limits.kept_rate {
            late.push(format!("{} kept emits a second were made in place of {}", self.kept.rate, limits.kept_rate));
        }
        late
    }
}

pub(super) fn judge(calls: &[Call], heard: &[Heard], timeline: &Timeline, stopped: Instant) -> Outcome {
    let count = |is_meant: &dyn Fn(&Call) -> bool| calls.iter().filter(|call| is_meant(call)).count();
    let is_outside = |call: &Call| call.begun < timeline.fault_began || call.begun >= timeline.recovered;
    let outside = (timeline.fault_began - timeline.began) + (stopped - timeline.recovered);
    let is_before_stop = |call: &Call| call.begun < stopped;
    let is_unreachable = |call: &&Call| {
        let spans = timeline.unreachable.iter().filter(|span| span.node == call.node);
        spans.into_iter().any(|span| span.overlaps(call.begun, call.answered))
    };
    let mut outcome = Outcome {
        emits: calls.len(),
        rate: a_second(count(&|call| is_outside(call) && is_before_stop(call)), outside),
        rate_in_fault: a_second(count(&|call| !is_outside(call)), timeline.recovered - timeline.fault_began),
        complete: count(&|call| call.complete().is_some()),
        partial: count(&Call::is_partial),
        refused: count(&|call| call.answer.is_err()),
        longest: calls.iter().filter(|call| !is_unreachable(call)).map(Call::took).max().unwrap_or_default(),
        presence_after: timeline.presence_after,
        fenced_after: timeline.fenced_after,
        violations: timeline.problems.clone(),
        ..Outcome::default()
    };
    let may_answer = |call: &Call, code: &Code| timeline.may_answer(call.node, call.begun, call.answered, *code);
    let strange = calls.iter().filter(|call| call.answer.as_ref().is_err_and(|code| !may_answer(call, code)));
    tell(&mut outcome.violations, "refused for another reason", strange);
    for device in heard {
        let is_lost = !device.is_whole && !device.user.starts_with("leaver") && !timeline.lost.contains(&device.node);
        if is_lost {
            outcome.violations.push(format!("{} lost its connection to node {}", device.user, device.node));
        }
    }
    outcome.wrong = check_receipts(calls, heard, timeline, &mut outcome.violations);
    check_order(calls, heard, &mut outcome.violations);
    outcome
}

/// A complete receipt counts as many as heard it, and leaves out no device that was connected throughout. Returns how many do.
fn check_receipts(calls: &[Call], heard: &[Heard], timeline: &Timeline, violations: &mut Vec<String>) -> usize {
    let numbers: Vec<HashSet<usize>> = heard.iter().map(|device| device.numbers.iter().copied().collect()).collect();
    let mut wrong = Vec::new();
    for call in calls {
        let Some(receipt) = call.complete() else { continue };
        let audience = || heard.iter().zip(&numbers).filter(|(device, _)| call.audience.has(&device.user));
        let arrived = audience().filter(|(_, numbers)| numbers.contains(&call.number)).count() as u64;
        // What was on its way when they left.
        let lost = audience().filter(|(device, numbers)| !device.is_whole && !numbers.contains(&call.number)).count();
        let left_out = audience().filter(|(device, numbers)| {
            device.is_whole && device.since <= call.begun && !numbers.contains(&call.number)
        });
        let leases_may_have_ended = call.answered >= timeline.fault_began + timeline.leased_for;
        let is_meanwhile = leases_may_have_ended && call.begun <= timeline.recovered;
        let may_be_left_out = |device: &Heard| is_meanwhile && timeline.uncounted.contains(&device.node);
        let is_left_out = left_out.into_iter().any(|(device, _)| !may_be_left_out(device));
        if is_left_out || receipt.enqueued > arrived + lost as u64 {
            wrong.push(call);
        }
    }
    tell(violations, "complete receipts for what did not arrive", wrong.iter().copied());
    wrong.len()
}

/// Nothing arrives twice, and what was emitted after the answer to another emit of its room arrives after that.
fn check_order(calls: &[Call], heard: &[Heard], violations: &mut Vec<String>) {
    let by_number: HashMap<_, _> = calls.iter().map(|call| (call.number, call)).collect();
    for device in heard {
        let (mut seen, mut twice) = (HashSet::new(), Vec::new());
        let (mut latest, mut late): (HashMap<&Audience, Instant>, Vec<&Call>) = (HashMap::new(), Vec::new());
        for number in &device.numbers {
            // Another node's, which is not of this load.
            let Some(&call) = by_number.get(number) else { continue };
            if !seen.insert(number) {
                twice.push(call);
            }
            let latest = latest.entry(&call.audience).or_insert(call.begun);
            if call.answer.is_ok() && call.answered < *latest {
                late.push(call);
            }
            *latest = call.begun.max(*latest);
        }
        tell(violations, &format!("came twice to {}", device.user), twice);
        tell(violations, &format!("came to {} after later ones", device.user), late);
    }
}

fn tell<'a>(violations: &mut Vec<String>, what: &str, calls: impl IntoIterator<Item = &'a Call>) {
    let calls: Vec<_> = calls.into_iter().collect();
    if !calls.is_empty() {
        violations.push(format!("{} {what}: {:?}", calls.len(), &calls[..calls.len().min(TOLD)]));
    }
}

pub(super) fn a_second(count: usize, time: Duration) -> u32 {
    let millis = time.as_millis().max(1);
    u32::try_from(count as u128 * 1_000 / millis).unwrap_or(u32::MAX)
}
