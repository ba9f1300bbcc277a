//! What the statements of `shared.rs`, `writing.rs` and `first_resumes.rs` do with the rows of one user. `tests/it` compares the statements
//! themselves with what must hold.

use std::collections::BTreeSet;

use super::super::{
    Undelivered,
    watermark::{GRACE, Unwritten, Watermark},
};
use crate::store::broken::{Rule, is_broken};

/// The rows of one user. Each change is a transaction.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) position: u64,
    pub(super) skipped: BTreeSet<u64>,
    /// Where first resumes begin, and until which second.
    first_resume: (u64, u64),
}

impl Row {
    pub(super) fn merge(&mut self, unwritten: &Unwritten) {
        if is_broken(Rule::SkippedIsUnited) && !unwritten.skipped.is_empty() {
            self.skipped.clear();
        }
        for number in &unwritten.skipped {
            if *number > self.position || is_broken(Rule::PassedIsNotSkippedAnew) {
                self.skipped.insert(*number);
            }
        }
        if let Some(position) = unwritten.position {
            let is_later = position > self.position || is_broken(Rule::WatermarkOnlyRises);
            self.position = if is_later { position } else { self.position };
            if is_broken(Rule::OnlyProvenIsDeleted) {
                self.skipped.retain(|number| *number > position || unwritten.skipped.contains(number));
            }
        }
        self.skipped.retain(|number| !unwritten.cleared.contains(number));
    }

    pub(super) fn skip_range(&mut self, (after, to): (u64, u64)) {
        let after = if is_broken(Rule::PassedIsNotSkippedAnew) { after } else { after.max(self.position) };
        self.skipped.extend(after + 1..=to);
    }

    pub(super) fn begin_first_resume(&mut self, now: u64) -> u64 {
        let (begin, until) = self.first_resume;
        let is_going_on = now < until && !is_broken(Rule::FirstResumesBeginTogether);
        let begin = if is_going_on { begin.min(self.position) } else { self.position };
        self.first_resume = (begin, now + GRACE.as_secs());
        begin
    }

    /// What a node answers that knows this.
    pub(super) fn undelivered(&self, watermark: &Watermark) -> Undelivered {
        let (position, skipped, cleared) = watermark.known();
        let of_database = if is_broken(Rule::SkippedElsewhereIsRead) { BTreeSet::new() } else { self.skipped.clone() };
        Undelivered::merged((position, skipped, &cleared), (self.position, of_database.into_iter().collect()))
    }
}
