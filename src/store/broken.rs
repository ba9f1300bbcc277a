//! Rules that a test breaks on purpose, to see that the model test of `delivery` finds each.

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
