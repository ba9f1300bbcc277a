//! Each fault: what it needs, and what it must have shown.

use std::{fmt, time::Duration};

use super::{
    Outcome, Size,
    nodes::{Link, Plan},
};

const DEFAULT_DEADLINE: Duration = Duration::from_millis(500);
const DEFAULT_LEASE: Duration = Duration::from_secs(5);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(1);
/// So that a fault of no certain length is shorter on a slow machine, too. Nodes start once the engine is older than a lease.
const LONG_LEASE: Duration = Duration::from_secs(20);
/// So that a test need not wait for long until it ends.
const SHORT_LEASE: Duration = Duration::from_secs(1);

/// Those that last until a lease has ended.
const ENDS_A_LEASE: [Fault; 6] = [
    Fault::NodePausedForLong,
    Fault::Dropped,
    Fault::Rejected,
    Fault::SlowerThanDeadline,
    Fault::SameName,
    Fault::NameTaken,
];

/// A fault in the middle of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None at all.
    Nothing,
    EngineKilled,
    /// It has an append-only file.
    EngineKilledKeepsData,
    /// For 20 s.
    EnginePaused,
    SubscriptionsKilled,
    FunctionsFlushed,
    FailOver,
    /// To a replica that was cut off before.
    FailOverBehind,
    NodeKilled,
    /// For 3 s, which is less than its lease.
    NodePaused,
    /// For 20 s, which is more.
    NodePausedForLong,
    /// A firewall drops the packets between a node and the engine.
    Dropped,
    /// A firewall answers them with a reset.
    Rejected,
    /// Round trips between a node and the engine take 0.2 s.
    Slow,
    /// They take 0.8 s, and the deadline is 0.5 s.
    SlowerThanDeadline,
    /// A second process has the name of a node.
    SameName,
    /// The same while the node is paused, so that the second one gets the name.
    NameTaken,
    ClockAhead,
    ClockBehind,
    /// A node joins that speaks another version of the protocol between nodes.
    OtherVersion,
    /// The first process of PostgreSQL is killed, and started again over its data.
    DatabaseKilled,
    /// It is stopped and started.
    DatabaseRestarted,
    /// Nothing comes from it or to it for 10 s.
    DatabaseHangs,
}

/// What a fault shows in receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// All of them are complete.
    Nothing,
    Refused,
    Partial,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no fault",
            Self::EngineKilled => "engine: kill -9, no AOF",
            Self::EngineKilledKeepsData => "engine: kill -9, AOF",
            Self::EnginePaused => "engine: SIGSTOP 20 s",
            Self::SubscriptionsKilled => "CLIENT KILL TYPE pubsub",
            Self::FunctionsFlushed => "FUNCTION FLUSH",
            Self::FailOver => "fail-over by Sentinel",
            Self::FailOverBehind => "fail-over, replica behind",
            Self::NodeKilled => "node: kill -9",
            Self::NodePaused => "node: SIGSTOP 3 s",
            Self::NodePausedForLong => "node: SIGSTOP 20 s",
            Self::Dropped => "iptables DROP, 10 s",
            Self::Rejected => "iptables REJECT, 10 s",
            Self::Slow => "slow node: 0.2 s",
            Self::SlowerThanDeadline => "slow node: 0.8 s",
            Self::SameName => "two nodes of one name",
            Self::NameTaken => "name of a paused node taken",
            Self::ClockAhead => "clock 5 s ahead",
            Self::ClockBehind => "clock 5 s behind",
            Self::OtherVersion => "node of another version",
            Self::DatabaseKilled => "PostgreSQL: kill -9",
            Self::DatabaseRestarted => "PostgreSQL: restart",
            Self::DatabaseHangs => "PostgreSQL: hangs, 10 s",
        })
    }
}

impl Fault {
    /// All of them.
    pub const EACH: [Self; 23] = [
        Self::Nothing,
        Self::EngineKilled,
        Self::EngineKilledKeepsData,
        Self::EnginePaused,
        Self::SubscriptionsKilled,
        Self::FunctionsFlushed,
        Self::FailOver,
        Self::FailOverBehind,
        Self::NodeKilled,
        Self::NodePaused,
        Self::NodePausedForLong,
        Self::Dropped,
        Self::Rejected,
        Self::Slow,
        Self::SlowerThanDeadline,
        Self::SameName,
        Self::NameTaken,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::OtherVersion,
        Self::DatabaseKilled,
        Self::DatabaseRestarted,
        Self::DatabaseHangs,
    ];

    pub(super) fn plan(self, size: Size) -> Plan {
        let is_one_of = |faults: &[Self]| faults.contains(&self);
        let link = if is_one_of(&[Self::Dropped, Self::Rejected]) {
            Link::Namespace
        } else if is_one_of(&[Self::Slow, Self::SlowerThanDeadline]) {
            Link::Proxy
        } else if is_one_of(&[Self::ClockAhead, Self::ClockBehind]) {
            Link::Clock
        } else {
            Link::Direct
        };
        let lease = if size.is_timed {
            DEFAULT_LEASE
        } else if self == Self::NodePaused {
            LONG_LEASE
        } else if is_one_of(&ENDS_A_LEASE) {
            SHORT_LEASE
        } else {
            DEFAULT_LEASE
        };
        let heartbeat = DEFAULT_HEARTBEAT.min(lease / 5);
        let (append_only, has_replica) =
            (self == Self::EngineKilledKeepsData, is_one_of(&[Self::FailOver, Self::FailOverBehind]));
        let other_version = (self == Self::OtherVersion).then_some(size.is_timed);
        // What is not to disturb anything must not fail because the machine is slow.
        let is_patient = !size.is_timed && matches!(self.effect(), Effect::Nothing);
        let deadline = if is_patient { 10 * DEFAULT_DEADLINE } else { DEFAULT_DEADLINE };
        let store_proxy = self == Self::DatabaseHangs;
        Plan { append_only, has_replica, link, store_proxy, other_version, deadline, lease, heartbeat }
    }

    fn effect(self) -> Effect {
        match self {
            Self::EngineKilled
            | Self::EngineKilledKeepsData
            | Self::EnginePaused
            | Self::FailOver
            | Self::FailOverBehind => Effect::Refused,
            Self::SubscriptionsKilled
            | Self::NodeKilled
            | Self::NodePaused
            | Self::NodePausedForLong
            | Self::Dropped
            | Self::Rejected
            | Self::SlowerThanDeadline
            | Self::NameTaken
            | Self::OtherVersion => Effect::Partial,
            Self::Nothing
            | Self::FunctionsFlushed
            | Self::Slow
            | Self::SameName
            | Self::ClockAhead
            | Self::ClockBehind
            | Self::DatabaseKilled
            | Self::DatabaseRestarted
            | Self::DatabaseHangs => Effect::Nothing,
        }
    }

    /// Whether the engine begins its histories anew.
    fn ends_histories(self) -> bool {
        matches!(self, Self::EngineKilled | Self::EngineKilledKeepsData | Self::FailOver | Self::FailOverBehind)
    }

    fn is_of_database(self) -> bool {
        matches!(self, Self::DatabaseKilled | Self::DatabaseRestarted | Self::DatabaseHangs)
    }

    /// A fault that nobody noticed, or noticed where it should not be, was none.
    pub(super) fn check_effect(self, outcome: &mut Outcome) {
        let Outcome { partial, refused, ref kept, .. } = *outcome;
        let is_right = match self.effect() {
            Effect::Nothing => partial == 0 && refused == 0,
            Effect::Refused => refused > 0,
            Effect::Partial => partial > 0,
        };
        let mut problems = Vec::new();
        if !is_right {
            problems
                .push(format!("{:?} was to be seen, but {partial} are partial and {refused} refused", self.effect()));
        }
        // An emit that comes to the engine before its functions are there again is refused, and not tried again behind later ones.
        let in_histories = if self == Self::FunctionsFlushed { 0 } else { kept.refused_in_histories };
        let kept_refused = in_histories + if self.is_of_database() { 0 } else { kept.refused_stored };
        // While messages cannot be read from the database, those after them are sent late.
        let kept_partial = if self.is_of_database() { kept.partial_outside } else { kept.partial };
        if self.effect() == Effect::Nothing && (kept_refused > 0 || kept_partial > 0) {
            problems.push(format!("nothing was to be seen, but {kept:?}"));
        }
        // A history that goes on has lost nothing, whatever a node could not read for a while.
        if self.ends_histories() != (kept.told_histories > 0) {
            let first = &kept.gaps[..kept.gaps.len().min(5)];
            problems.push(format!("{} times a device was told of a gap in a history: {first:?}", kept.told_histories));
        }
        outcome.violations.append(&mut problems);
    }
}
