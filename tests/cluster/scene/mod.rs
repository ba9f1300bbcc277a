//! Nodes, devices and a load, a fault in the middle of it, and what becomes of them: no complete receipt for what did not arrive, nobody is
//! blocked, presence is right soon afterwards, and there is no ghost. What rooms keep comes whole and in order to devices that come back to any node. `tests/cluster` runs each fault once, and `tests/bench/faults` several times
//! and for longer, with limits of time.

mod database;
mod devices;
mod faults;
mod kept;
mod load;
mod network;
mod nodes;
mod other_version;
mod presence;
mod sentinel;
mod strikes;
mod verdict;
mod wrong_clock;

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep_until},
};
use tonic::Code;

use devices::Devices;
pub use faults::Fault;
use kept::Kept;
pub use kept::Outcome as KeptOutcome;
use load::Load;
pub use load::RATE;
use nodes::{ALL, LAST, Nodes};
use presence::Answer;
pub use verdict::{Limits, Outcome};

/// Answers of a node that a fault lasts, if no time is given.
const SOME: usize = 20;

/// How long everything is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Emits before the fault, and after it.
    emits: usize,
    /// Calls of one node that may be without an answer.
    in_flight: usize,
    /// Emits a second to rooms that keep them.
    kept_rate: u32,
    /// How many of them before the fault, and after it.
    kept_emits: usize,
    /// How many of each kind may not be accepted yet.
    kept_in_flight: usize,
    /// Faults last for their time, with the default leases, instead of until something has happened.
    is_timed: bool,
}

impl Size {
    /// On a machine that has other work, too. Nothing is measured by the clock.
    pub const SHORT: Self =
        Self { emits: 1_200, in_flight: 24, kept_rate: 200, kept_emits: 160, kept_in_flight: 24, is_timed: false };
    /// As the faults are in use.
    pub const FULL: Self =
        Self { emits: 4_000, in_flight: 512, kept_rate: 1_050, kept_emits: 3_000, kept_in_flight: 256, is_timed: true };
}

/// A node that has stood still sees at once all calls that were given up meanwhile. Those that come within this time after it runs on may be on a
/// connection that it ends for that (see `grpc::edge`).
const CALMS_WITHIN: Duration = Duration::from_secs(1);

/// A time in which something about a node is different.
#[derive(Clone, Copy, Debug)]
struct Span {
    node: usize,
    from: Instant,
    /// `None`: for good.
    until: Option<Instant>,
}

impl Span {
    /// Whether a call was under way in this time.
    fn overlaps(&self, from: Instant, until: Instant) -> bool {
        until >= self.from && self.until.is_none_or(|end| from <= end)
    }

    /// Whether it was just over.
    fn is_just_over(&self, at: Instant) -> bool {
        self.until.is_some_and(|end| (end..=end + CALMS_WITHIN).contains(&at))
    }
}

/// What happened when.
#[derive(Debug)]
struct Timeline {
    began: Instant,
    fault_began: Instant,
    /// All is as it was before, but for what was lost for good.
    recovered: Instant,
    /// From the end of the fault until presence was right.
    presence_after: Duration,
    /// From the begin of the fault until the others told nothing of the devices of the node that it hit.
    fenced_after: Option<Duration>,
    /// A node does not run.
    unreachable: Vec<Span>,
    /// How long a lease lasts at least that was renewed before the fault began.
    leased_for: Duration,
    /// Nodes whose devices receipts of others may leave out once their leases have ended, until all is as before.
    uncounted: Vec<usize>,
    /// Nodes whose devices have lost their connections.
    lost: Vec<usize>,
    /// What should not be.
    problems: Vec<String>,
}

impl Timeline {
    /// Whether a node may answer a call with this: it does not run, or is out of reach of what it needs, or has just begun to run again.
    fn may_answer(&self, node: usize, begun: Instant, answered: Instant, code: Code) -> bool {
        // The last two are the client's own, of a connection that has ended.
        let is_end = matches!(code, Code::ResourceExhausted | Code::Cancelled | Code::Unknown);
        let is_excused = |span: &Span| span.overlaps(begun, answered) || is_end && span.is_just_over(begun);
        code == Code::Unavailable || self.unreachable.iter().any(|span| span.node == node && is_excused(span))
    }
}

/// A fault under way.
struct Scene {
    /// One scene at a time: each has four processes under load.
    _turn: MutexGuard<'static, ()>,
    size: Size,
    nodes: Nodes,
    devices: Devices,
    load: Load,
    kept: Kept,
    timeline: Timeline,
    /// The nodes that are there in the end.
    left: Vec<usize>,
}

impl Fault {
    /// Everything of one fault, from the start of the nodes to the verdict. The error is why this machine cannot do that.
    pub async fn run(self, size: Size) -> Result<Outcome, String> {
        let mut scene = Scene::begin(self, size).await?;
        Box::pin(self.strike(&mut scene)).await;
        Ok(Box::pin(scene.end(self)).await)
    }
}

impl Scene {
    async fn begin(fault: Fault, size: Size) -> Result<Self, String> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let plan = fault.plan(size);
        let nodes = Nodes::start(plan).await?;
        let devices = Devices::connect(&nodes).await;
        nodes.complete_again(&ALL, "begin", devices.count(&ALL)).await;
        let mut kept = Kept::start(&nodes, size.kept_rate, size.kept_in_flight).await;
        let load = Load::start(&nodes, Devices::users(), size.in_flight);
        let began = Instant::now();
        tokio::join!(load.answered(size.emits, &ALL), kept.accepted(size.kept_emits));
        let now = Instant::now();
        let timeline = Timeline {
            began,
            fault_began: now,
            recovered: now,
            presence_after: Duration::ZERO,
            fenced_after: None,
            unreachable: Vec::new(),
            leased_for: plan.lease.saturating_sub(plan.heartbeat),
            uncounted: Vec::new(),
            lost: Vec::new(),
            problems: Vec::new(),
        };
        Ok(Self { _turn: turn, size, nodes, devices, load, kept, timeline, left: ALL.to_vec() })
    }

    /// The fault begins now.
    fn begins(&mut self) {
        self.timeline.fault_began = Instant::now();
    }

    /// The fault has ended now: waits until presence is right.
    async fn ends(&mut self) {
        self.ends_with(Answer::Whole).await;
    }

    /// The same, where some nodes may have to leave out others.
    async fn ends_with(&mut self, wanted: Answer) {
        let ended = Instant::now();
        let right = presence::right_at(&self.nodes, &self.left, &self.devices.expected(&self.left), wanted).await;
        self.timeline.presence_after = self.timeline.presence_after.max(right - ended);
    }

    /// Devices leave and come at these nodes.
    fn churn(&mut self, leave: &[usize], come: &[usize]) {
        self.devices.leave(leave);
        self.devices.come(&self.nodes, come);
    }

    /// The fault lasts until so long after its begin, or until these nodes have given some answers.
    async fn lasts(&mut self, time: Duration, at: &[usize]) {
        if self.size.is_timed {
            sleep_until(self.timeline.fault_began + time).await;
        } else {
            self.load.answered(SOME * at.len(), at).await;
        }
    }

    /// Waits until these nodes tell nothing of the devices of others, and do not wait for their answers.
    async fn without_others(&mut self, at: &[usize]) {
        let right = presence::right_at(&self.nodes, at, &self.devices.expected(at), Answer::Whole).await;
        self.timeline.fenced_after = Some(right - self.timeline.fault_began);
        self.load.answered(SOME * at.len(), at).await;
    }

    /// A node has no devices any more, and is called no longer.
    fn lose(&mut self, node: usize) {
        self.devices.lose(node);
        self.load.leave_out(node);
        self.kept.leave_out(node);
        self.timeline.lost.push(node);
    }

    /// Notes that a node does not run, from the begin of the fault until now or for good.
    fn was_unreachable(&mut self, node: usize, until: Option<Instant>) {
        self.timeline.unreachable.push(Span { node, from: self.timeline.fault_began, until });
    }

    /// Waits until all is right again, ends the load and compares.
    async fn end(mut self, fault: Fault) -> Outcome {
        let left = self.left.clone();
        self.devices.have_come().await;
        self.nodes.complete_again(&left, "again", self.devices.count(&left)).await;
        self.timeline.recovered = Instant::now();
        tokio::join!(self.load.answered(self.size.emits, &left), self.kept.accepted(self.size.kept_emits));
        let stopped = Instant::now();
        let kept = self.kept.end().await;
        let mut expected = self.devices.expected(&left);
        expected.extend(Kept::users().into_iter().map(|user| (user, 0)));
        presence::right_at(&self.nodes, &left, &expected, Answer::Whole).await;
        let (ghosts, wrong) = presence::ghosts(&self.nodes, &left, &expected).await;
        self.timeline.problems.extend(wrong);
        let calls = self.load.stop().await;
        self.nodes.complete_again(&left[..1], "end", self.devices.count(&left)).await;
        let heard = self.devices.heard().await;
        let mut outcome = verdict::judge(&calls, &heard, &self.timeline, stopped);
        outcome.ghosts = ghosts;
        outcome.add(kept.judge(&self.timeline));
        fault.check_effect(&mut outcome);
        outcome
    }
}
