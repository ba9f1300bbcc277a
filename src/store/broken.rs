//! Rules that tests break on purpose, to see that the model tests of `delivery` and of watermarks that nodes share find each.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The watermark moves at a proof, and not when a message is sent.
    ProofMovesWatermark,
    /// A message that no connection has proven is noted as skipped before the watermark passes it.
    SkippedIsNoted,
    /// Replay begins with the first message after the position.
    ReplayFollowsPosition,
    /// What was stored and not published is published before what is stored after it.
    LateIsPublished,
    /// A position that a restore has lost does not stand.
    LostPositionFalls,
    /// A node that shares the database writes each proof, though it has not noted the message as skipped.
    EachSharedProofIsWritten,
    /// The watermark is written with the last of the skipped messages that it has passed.
    PositionFollowsSkipped,
    /// What other nodes have skipped stays in the database.
    SkippedIsUnited,
    /// A message that the watermark in the database has passed is not skipped anew.
    PassedIsNotSkippedAnew,
    /// The watermark in the database does not go back.
    WatermarkOnlyRises,
    /// A node deletes from the skipped messages only what it knows to be proven.
    OnlyProvenIsDeleted,
    /// In the grace all first resumes begin where the first one did.
    FirstResumesBeginTogether,
    /// What is undelivered is read with what other nodes have skipped.
    SkippedElsewhereIsRead,
}

thread_local! {
    static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
}

/// Whether this thread breaks the rule.
pub(crate) fn is_broken(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}

/// Breaks a rule on this thread while something runs.
pub(crate) fn breaking<T>(rule: Rule, run: impl FnOnce() -> T) -> T {
    BROKEN.set(Some(rule));
    let _mend = scopeguard::guard((), |()| BROKEN.set(None));
    run()
}
