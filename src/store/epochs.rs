//! Epochs: each process that holds the store, and each time that the database turned out to have lost something, begins a generation with an
//! epoch of its own, and positions carry it. A position stands as long as the database knows its epoch, and no message up to it was stored by a later
//! generation: else what the device has seen there is not what stands there.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

/// A time during which one process held the store.
pub(super) struct Generation {
    pub(super) number: i64,
    pub(super) epoch: Arc<str>,
}

/// The epochs that the database knows.
#[derive(Default)]
pub(super) struct Epochs(RwLock<Known>);

#[derive(Default)]
struct Known {
    current: Option<Arc<str>>,
    numbers: HashMap<Arc<str>, i64>,
}

impl Epochs {
    /// Replaces all; the last one is this process's.
    pub(super) fn set(&self, generations: Vec<Generation>) {
        let current = generations.last().map(|generation| generation.epoch.clone());
        let numbers = generations.into_iter().map(|generation| (generation.epoch, generation.number)).collect();
        *self.0.write() = Known { current, numbers };
    }

    /// The epoch of what is stored now. `None`: the store was not reached yet.
    pub(super) fn current(&self) -> Option<Arc<str>> {
        self.0.read().current.clone()
    }

    /// The generation that stores now: its number and its epoch.
    pub(super) fn current_generation(&self) -> Option<(i64, Arc<str>)> {
        let known = self.0.read();
        let epoch = known.current.clone()?;
        Some((*known.numbers.get(&epoch)?, epoch))
    }

    /// The number of the generation that gave this epoch. `None`: the database does not know it.
    pub(super) fn number(&self, epoch: &str) -> Option<i64> {
        self.0.read().numbers.get(epoch).copied()
    }
}
