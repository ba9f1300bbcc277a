use std::{convert::Infallible, pin::Pin, task::Poll};

use tokio::{sync::oneshot, task::unconstrained};

use super::Error;
use crate::delivery::SentSignal;
use crate::message::{Emit, Receipt};

/// An emit that has its place: the next one may follow.
pub(super) enum Sent<F> {
    /// That is all.
    Answered(Result<Receipt, Error>),
    /// Devices have still to acknowledge it. That goes on by itself, whether this is polled or not.
    Waits(Pin<Box<F>>),
    /// It is still to be stored, and then sent, together with others. That goes on by itself, too.
    Placed(Pin<Box<F>>, oneshot::Receiver<Infallible>),
}

/// What there is to wait for.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// It is to be stored.
    pub(super) is_stored: bool,
    /// Devices are to acknowledge it.
    asks: bool,
}

impl Kind {
    pub(super) fn of(emit: &Emit) -> Self {
        Self { is_stored: emit.store, asks: emit.ack.is_some() }
    }
}

impl<F: Future<Output = Result<Receipt, Error>>> Sent<F> {
    /// Runs an emit until it is sent, or has its place among those that are to be stored. One that asks for no acknowledgements and is
    /// not to be stored is answered then.
    pub(super) async fn run(kind: Kind, begin: impl FnOnce(Option<SentSignal>) -> F) -> Self {
        let Kind { is_stored, asks } = kind;
        if !is_stored && !asks {
            return Self::Answered(begin(None).await);
        }
        let (sent, is_sent) = oneshot::channel();
        let mut answer = Box::pin(begin(Some(sent)));
        // Not to be put off, as what has done much lately may be: it would lose its place.
        if let Poll::Ready(answered) = futures_util::poll!(unconstrained(answer.as_mut())) {
            return Self::Answered(answered);
        }
        let placed = Self::Placed(answer, is_sent);
        if is_stored { placed } else { placed.settled().await }
    }

    /// Waits until it is sent.
    pub(super) async fn settled(self) -> Self {
        let Self::Placed(mut answer, is_sent) = self else {
            return self;
        };
        tokio::select! {
            biased;
            answered = &mut answer => Self::Answered(answered),
            _ = is_sent => Self::Waits(answer),
        }
    }

    /// What became of it.
    pub(super) async fn answer(self) -> Result<Receipt, Error> {
        match self {
            Self::Answered(answer) => answer,
            Self::Waits(answer) | Self::Placed(answer, _) => answer.await,
        }
    }
}
