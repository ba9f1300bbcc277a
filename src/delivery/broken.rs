//! Rules that a test breaks on purpose, to see that the model test of kept rooms, or a test of its own, finds each.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A frame whose message is not the next one waits for those before it.
    HoleIsRead,
    /// A message that was published is not sent again by its frame.
    PublishedIsNotSentAgain,
    /// A node looks into the store while frames may not come.
    StoreIsPolled,
    /// In a new epoch a room goes on from where it stood only if that stands.
    StoodMustStand,
    /// Replay ends where the room was published.
    ReplayEndsAtHead,
    /// Nodes are told of what may be stored, but was not published.
    UncertainIsTold,
    /// Devices that were let in before it was read where their room stands are told that they may have missed something.
    LateReadIsTold,
    /// A device that says no position is given what came since it was let in, though another one has proven it.
    SinceJoinIsGiven,
    /// A position of an epoch that is over is not one of this epoch.
    EpochsAreCompared,
    /// A frame with a message of a history that is not the next one waits for those before it.
    HistoryHoleIsRead,
    /// A message of a history that was sent is not sent again by its frame.
    SentIsNotSentAgain,
    /// A frame of a sequence that is over is not sent.
    EndedSequenceIsNotSent,
    /// Devices that resume are told that a history has begun anew.
    BegunAnewIsTold,
    /// Devices that were let in before it was known where their history stands are told that they may have missed something.
    LateHeadIsTold,
}

thread_local! {
    static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
}

/// Whether this thread breaks the rule.
pub(super) fn is_broken(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}

/// Breaks a rule on this thread while something runs.
pub(super) fn breaking<T>(rule: Rule, run: impl FnOnce() -> T) -> T {
    BROKEN.set(Some(rule));
    let _mend = scopeguard::guard((), |()| BROKEN.set(None));
    run()
}
