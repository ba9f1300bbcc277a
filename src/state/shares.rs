use std::{collections::HashMap, sync::Arc};

/// How much of something that is bounded each API key holds.
#[derive(Default)]
pub(super) struct Shares(HashMap<Arc<str>, usize>);

impl Shares {
    pub(super) fn add(&mut self, caller: &Arc<str>, amount: usize) {
        match self.0.get_mut(caller) {
            Some(held) => *held += amount,
            None => drop(self.0.insert(caller.clone(), amount)),
        }
    }

    pub(super) fn remove(&mut self, caller: &Arc<str>, amount: usize) {
        if let Some(held) = self.0.get_mut(caller) {
            *held = held.saturating_sub(amount);
            if *held == 0 {
                self.0.remove(caller);
            }
        }
    }

    pub(super) fn of(&self, caller: &str) -> usize {
        self.0.get(caller).copied().unwrap_or_default()
    }
}
