//! The state machine of a device, without what it is made of: `L` is kept while it is live.

use crate::message::CloseReason;

/// How far a device with an accepted token has come.
pub(super) enum Phase<L> {
    /// The hub has not let it in yet.
    Opening,
    Live(Box<L>),
    /// The hub has closed it, for this reason, of which its task tells the device.
    Closing(CloseReason),
    /// It has not answered a ping.
    Silent,
    /// Its socket has ended.
    Ended,
}

/// How a device stood when its socket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Live,
    Closed(CloseReason),
    Silent,
}

impl<L> Phase<L> {
    /// The hub has let it in. Gives `live` back if it was closed meanwhile.
    pub(super) fn admit(&mut self, live: Box<L>) -> Result<(), Box<L>> {
        match self {
            Self::Opening => {
                *self = Self::Live(live);
                Ok(())
            }
            Self::Live(_) | Self::Closing(_) | Self::Silent | Self::Ended => Err(live),
        }
    }

    /// What is kept of a live device.
    pub(super) fn live(&mut self) -> Option<&mut L> {
        match self {
            Self::Live(live) => Some(live),
            Self::Opening | Self::Closing(_) | Self::Silent | Self::Ended => None,
        }
    }

    /// The hub has closed it. Returns what it was before, to be dropped without a lock; `None`: it was at an end already.
    pub(super) fn close(&mut self, reason: &CloseReason) -> Option<Self> {
        matches!(self, Self::Opening | Self::Live(_)).then(|| std::mem::replace(self, Self::Closing(reason.clone())))
    }

    /// It has not answered a ping. Returns what was kept of it, to be dropped without a lock; `None`: it is live no more.
    pub(super) fn silence(&mut self) -> Option<Box<L>> {
        match std::mem::replace(self, Self::Silent) {
            Self::Live(live) => Some(live),
            other @ (Self::Opening | Self::Closing(_) | Self::Silent | Self::Ended) => {
                *self = other;
                None
            }
        }
    }

    /// Its socket has ended. Returns what it was before.
    pub(super) fn end(&mut self) -> Self {
        std::mem::replace(self, Self::Ended)
    }
}

impl<L> From<&Phase<L>> for Ended {
    fn from(before: &Phase<L>) -> Self {
        match before {
            Phase::Closing(reason) => Self::Closed(reason.clone()),
            Phase::Silent => Self::Silent,
            Phase::Opening | Phase::Live(_) | Phase::Ended => Self::Live,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use proptest::prelude::*;

    use super::*;
    use crate::message::CloseCode;

    /// What may happen to a device, in whatever order its task, the hub and the timers come to it.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Admit,
        Close(CloseCode),
        Silence,
    }

    /// Counts how many are kept.
    struct Kept(Rc<Cell<i32>>);

    impl Kept {
        fn new(count: &Rc<Cell<i32>>) -> Self {
            count.set(count.get() + 1);
            Self(count.clone())
        }
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        let close = |code| Just(Step::Close(code));
        prop_oneof![Just(Step::Admit), close(CloseCode::Slow), close(CloseCode::Draining), Just(Step::Silence)]
    }

    proptest! {
        #[test]
        fn a_device_ends_for_what_came_first_and_keeps_nothing_from_then_on(steps in prop::collection::vec(step(), 0..8)) {
            let (kept, mut phase) = (Rc::new(Cell::new(0)), Phase::Opening);
            let (mut is_live, mut ends) = (false, None);
            for step in steps {
                let took = match step {
                    Step::Admit => phase.admit(Box::new(Kept::new(&kept))).is_ok(),
                    Step::Close(code) => phase.close(&code.into()).is_some(),
                    Step::Silence => phase.silence().is_some(),
                };
                let expected = match step {
                    Step::Admit => !is_live && ends.is_none(),
                    Step::Close(_) => ends.is_none(),
                    Step::Silence => is_live,
                };
                prop_assert_eq!(took, expected, "{:?}", step);
                match (took, step) {
                    (true, Step::Admit) => is_live = true,
                    (true, Step::Close(code)) => (is_live, ends) = (false, Some(Ended::Closed(code.into()))),
                    (true, Step::Silence) => (is_live, ends) = (false, Some(Ended::Silent)),
                    (false, _) => {}
                }
                prop_assert_eq!(phase.live().is_some(), is_live);
                prop_assert_eq!(kept.get(), i32::from(is_live));
            }
            prop_assert_eq!(Ended::from(&phase.end()), ends.unwrap_or(Ended::Live));
            prop_assert!(phase.admit(Box::new(Kept::new(&kept))).is_err() && phase.close(&CloseCode::Slow.into()).is_none());
            prop_assert!(phase.silence().is_none() && phase.live().is_none());
            prop_assert_eq!((kept.get(), Ended::from(&phase.end())), (0, Ended::Live));
        }
    }
}
