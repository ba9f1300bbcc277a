//! What was emitted, who was there, and what must hold of both.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::oracle::{COMMON, HISTORY, ROOMS, is_in};
use crate::cluster::model::Link;
use crate::delivery::EmitError;
use crate::message::{LogEntry, Payload, Receipt, RoomName, UserId};

/// A connection of a device, from its admission to its end. Events are numbered in their order.
struct Stay {
    device: usize,
    node: usize,
    admitted: Option<u64>,
    ended: Option<u64>,
}

/// An emit whose receipt is awaited.
#[derive(Clone, Copy)]
pub(super) struct Emitted {
    pub(super) seq: u64,
    pub(super) room: usize,
    began: u64,
    at: Instant,
}

#[derive(Default)]
pub(super) struct Log {
    events: u64,
    /// The last emit.
    pub(super) seq: u64,
    stays: Vec<Stay>,
    /// By emit, what its calls were told: the message is stored.
    accepted: HashMap<u64, usize>,
    lost: HashSet<u64>,
    pub(super) complete: u64,
    pub(super) partial: u64,
    pub(super) failed: u64,
    pub(super) duplicates: u64,
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
        self.events += 1;
        self.events
    }

    pub(super) fn joins(&mut self, device: usize, node: usize) -> usize {
        self.stays.push(Stay { device, node, admitted: None, ended: None });
        self.stays.len() - 1
    }

    pub(super) fn admitted(&mut self, stay: usize) {
        self.stays[stay].admitted = Some(self.next());
    }

    pub(super) fn ended(&mut self, stay: usize) {
        let event = self.next();
        self.stays[stay].ended.get_or_insert(event);
    }

    pub(super) fn emits(&mut self, seq: u64, room: usize) -> Emitted {
        Emitted { seq, room, began: self.next(), at: Instant::now() }
    }

    /// A call has ended.
    pub(super) fn settled(
        &mut self,
        link: &Link,
        process: Instant,
        emitted: Emitted,
        receipt: Result<Receipt, EmitError>,
    ) {
        let Emitted { seq, room, began, at } = emitted;
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(EmitError::StoreUnavailable | EmitError::StoreBusy | EmitError::Bus(_)) => {
                self.failed += 1;
                return;
            }
            Err(error) => return self.violation(format!("emit {seq} failed: {error}")),
        };
        if receipt.stored {
            self.accepted.insert(seq, room);
        }
        if receipt.duplicate {
            self.duplicates += 1;
        } else if receipt.partial {
            self.partial += 1;
        } else {
            self.complete += 1;
            let there = self.stays.iter().filter(|stay| is_in(stay.device, room));
            let is_possible = |stay: &&Stay| stay.ended.is_none_or(|ended| ended > began);
            let is_owed = |stay: &&Stay| {
                stay.admitted.is_some_and(|admitted| admitted < began)
                    && stay.ended.is_none()
                    && link.must_count(stay.node, process, at)
            };
            let (least, most) =
                (there.clone().filter(is_owed).count() as u64, there.filter(is_possible).count() as u64);
            if receipt.matched < least || receipt.matched > most {
                let counts = format!("{} connections, and there are {least} to {most}", receipt.matched);
                self.violation(format!("the complete receipt of {seq} in {room} counts {counts}"));
            }
        }
    }

    /// A fail-over has lost these.
    pub(super) fn lost(&mut self, lost: &[LogEntry]) {
        self.lost.extend(lost.iter().map(seq));
    }

    /// Checks that all accepted messages are in the store, each once.
    pub(super) fn check_stored(&self, stored: &[Vec<(u64, u64)>; ROOMS]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (seq, room) in &self.accepted {
            let count = stored[*room].iter().filter(|(_, stored)| stored == seq).count();
            if count > 1 || (count == 0 && !self.lost.contains(seq)) {
                wrong.push(format!("accepted message {seq} is in the store {count} times"));
            }
        }
        wrong
    }
}

/// The number of an emit.
pub(super) fn seq(message: &LogEntry) -> u64 {
    seq_of(&message.payload)
}

pub(super) fn seq_of(payload: &Payload) -> u64 {
    let Payload::Json(payload) = payload else { panic!("{payload:?}") };
    payload.get().parse().unwrap()
}

pub(super) fn user(number: usize) -> UserId {
    UserId::new(&number.to_string()).unwrap()
}

pub(super) fn room(number: usize) -> RoomName {
    match number {
        COMMON => RoomName::new("r").unwrap(),
        HISTORY => RoomName::new("h").unwrap(),
        _ => RoomName::of_user(&user(number)),
    }
}

/// `None`: nothing is kept there.
pub(super) fn number_of(name: &str) -> Option<usize> {
    (0..ROOMS).find(|number| room(*number).as_str() == name)
}
