//! Rules that a test breaks on purpose, to see that the model test of the bus finds each.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A receipt is partial if fewer nodes were ready than are live.
    ReadyIsCompared,
    /// `ready` is subscribed after all rooms.
    ReadyIsLast,
    /// A frame that is too old when it comes is not executed.
    LateIsNotExecuted,
    /// Peers from before an outage of the engine count until they are back, or had the time to.
    OutageKeepsPeers,
    /// A node that may not know all peers does not say that a receipt is complete.
    UnknownPeersCount,
    /// A node takes no connections before all peers know it.
    NewNodeIsKnown,
    /// After the engine stood still, a node is not back by a call that may have waited meanwhile.
    WhoRegistersIsNotBack,
    /// A room is not given up while a connection joins it.
    PinKeepsRoom,
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
