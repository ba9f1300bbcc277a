//! How far a bench is, for those who look on.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Tally;

/// Told once per stage, and asked as often as one likes.
#[derive(Default)]
pub struct Progress(Mutex<Option<Stage>>);

struct Stage {
    what: &'static str,
    tally: Arc<Tally>,
    counts: Counts,
    before: u64,
    total: u64,
}

/// What there are more and more of.
#[derive(Clone, Copy)]
pub enum Counts {
    /// Devices that were let in.
    Connected,
    /// Events that came.
    Arrived,
}

/// How far it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What is done now.
    pub what: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

impl Counts {
    fn of(self, tally: &Tally) -> u64 {
        match self {
            Self::Connected => tally.connected(),
            Self::Arrived => tally.arrived(),
        }
    }
}

impl Progress {
    /// From now on so many of these are counted.
    pub fn begin(&self, what: &'static str, tally: &Arc<Tally>, counts: Counts, total: u64) {
        let before = counts.of(tally);
        *self.0.lock() = Some(Stage { what, tally: tally.clone(), counts, before, total });
    }

    /// How far it is; nothing before the first stage.
    pub fn status(&self) -> Option<Status> {
        self.0.lock().as_ref().map(|stage| Status {
            what: stage.what,
            done: stage.counts.of(&stage.tally).saturating_sub(stage.before),
            total: stage.total,
        })
    }
}
