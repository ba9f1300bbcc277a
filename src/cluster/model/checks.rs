//! What was sent and what arrived, and what must hold of it at each moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    memory::Memory,
    node::{DEADLINE, Local},
};
use crate::cluster::{Answer, BusError, Gathered, PublishError};
use crate::message::{MessageId, RoomName};

/// How much later than two deadlines a frame may be executed: clocks are compared over links that are slow one way.
const CLOCK_ERROR: Duration = Duration::from_millis(600);
/// Timers are this coarse.
const TICK: Duration = Duration::from_millis(3);
/// How long a join waits after the node last renewed its lease: until its rooms are subscribed, or others do not wait for the node any more, or
/// that has been tried once more.
pub(super) const MAX_JOIN: Duration = Duration::from_millis(12_500);

/// A connection of a device to a process, from its admission to its end.
pub(super) struct Stay {
    pub(super) node: usize,
    pub(super) process: u64,
    pub(super) rooms: Vec<RoomName>,
    admitted: u64,
    has_left: bool,
}

struct Emitted {
    at: Instant,
    /// The processes that have executed it.
    executed: Vec<u64>,
    received: HashSet<usize>,
}

/// Events are numbered in their order.
#[derive(Default)]
pub(super) struct Log {
    last: u64,
    pub(super) stays: Vec<Stay>,
    emits: HashMap<MessageId, Emitted>,
    /// What each process executed of each room, in its order.
    orders: BTreeMap<(RoomName, u64), Vec<MessageId>>,
    pub(super) complete: u64,
    pub(super) partial: u64,
    pub(super) failed: u64,
    violations: Vec<String>,
}

impl Log {
    pub(super) fn violation(&mut self, violation: String) {
        self.violations.push(violation);
    }

    pub(super) fn assert_none(&self) {
        assert!(self.violations.is_empty(), "{:#?}", self.violations);
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn admitted(&mut self, node: usize, process: u64, rooms: Vec<RoomName>) -> usize {
        let admitted = self.next();
        self.stays.push(Stay { node, process, rooms, admitted, has_left: false });
        self.stays.len() - 1
    }

    pub(super) fn has_left(&mut self, stay: usize) {
        self.stays[stay].has_left = true;
    }

    pub(super) fn killed(&mut self, process: u64) {
        self.stays.iter_mut().filter(|stay| stay.process == process).for_each(|stay| stay.has_left = true);
    }

    /// The rooms in which a process has connections.
    pub(super) fn rooms_of(&self, process: u64) -> BTreeSet<RoomName> {
        let stays = self.stays.iter().filter(|stay| !stay.has_left && stay.process == process);
        stays.flat_map(|stay| stay.rooms.iter().cloned()).collect()
    }

    pub(super) fn emits(&mut self, id: MessageId) -> u64 {
        self.emits.insert(id, Emitted { at: Instant::now(), executed: Vec::new(), received: HashSet::new() });
        self.next()
    }

    pub(super) fn executed(&mut self, process: u64, room: &RoomName, id: MessageId, connections: &BTreeSet<usize>) {
        self.orders.entry((room.clone(), process)).or_default().push(id);
        let emitted = self.emits.get_mut(&id).unwrap();
        let mut violations = Vec::new();
        if emitted.executed.contains(&process) {
            violations.push(format!("process {process} executed an emit to {room} twice"));
        }
        emitted.executed.push(process);
        emitted.received.extend(connections);
        let age = emitted.at.elapsed();
        if age > DEADLINE * 2 + CLOCK_ERROR {
            violations.push(format!("process {process} executed an emit to {room} {age:?} late"));
        }
        self.violations.extend(violations);
    }

    /// An emit has ended that began after the event `began`.
    pub(super) fn settled(
        &mut self,
        (memory, local): (&Memory, &Local),
        (id, room, began): (MessageId, &RoomName, u64),
        outcome: &Result<Gathered, PublishError>,
    ) {
        let emitted = &self.emits[&id];
        let waited = emitted.at.elapsed();
        if waited > DEADLINE + TICK && *local.runs_since.lock() < emitted.at {
            self.violations.push(format!("an emit to {room} waited {waited:?}"));
        }
        let answers = match outcome {
            Ok(Gathered { partial: false, answers, .. }) => answers,
            Ok(_) => {
                self.partial += 1;
                return;
            }
            Err(error) => {
                assert!(matches!(error, PublishError::Bus(BusError::Away | BusError::Unanswered)), "{error:?}");
                self.failed += 1;
                return;
            }
        };
        self.complete += 1;
        let matched: u64 = answers.iter().map(count).sum();
        let state = memory.state.lock();
        let must = |stay: &Stay| {
            stay.admitted < began
                && !stay.has_left
                && stay.rooms.contains(room)
                && state.must_count(stay.node, local.began, emitted.at)
        };
        let missed =
            self.stays.iter().enumerate().filter(|(index, stay)| must(stay) && !emitted.received.contains(index));
        for (index, stay) in missed {
            self.violations.push(format!(
                "a complete receipt of process {} leaves out connection {index} of process {}, in {room}",
                local.process, stay.process
            ));
        }
        let received = emitted.received.len() as u64;
        if matched != received {
            self.violations.push(format!("a complete receipt counts {matched} of {received} connections in {room}"));
        }
    }

    pub(super) fn joined(&mut self, (memory, local): (&Memory, &Local), node: usize, began: Instant) {
        let since = memory.state.lock().reached(node).map_or(began, |reached| reached.max(began));
        let waited = since.elapsed();
        if waited > MAX_JOIN && *local.runs_since.lock() < since {
            self.violations.push(format!("a join waited {waited:?}"));
        }
    }

    /// Checks that all processes have executed the emits to a room in one order.
    pub(super) fn check_order(&self) {
        for ((room, process), order) in &self.orders {
            for ((_, other), others) in self.orders.range((room.clone(), process + 1)..=(room.clone(), u64::MAX)) {
                let places: HashMap<_, _> = others.iter().enumerate().map(|(place, id)| (id, place)).collect();
                let common: Vec<_> = order.iter().filter_map(|id| places.get(id)).collect();
                assert!(common.is_sorted(), "processes {process} and {other} have two orders in {room}");
            }
        }
    }
}

fn count(answer: &Answer) -> u64 {
    let Answer::Counts(counts) = answer else { panic!("{answer:?}") };
    counts.matched
}
