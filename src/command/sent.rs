use std::pin::Pin;

use tokio::sync::oneshot;

use super::Error;
use crate::delivery::SentSignal;
use crate::message::Receipt;

/// An emit that is sent, or was refused: the next one may follow.
pub(super) enum Sent<F> {
    /// That is all.
    Answered(Result<Receipt, Error>),
    /// Devices have still to acknowledge it. That goes on by itself, whether this is polled or not.
    Waits(Pin<Box<F>>),
}

impl<F: Future<Output = Result<Receipt, Error>>> Sent<F> {
    /// Runs an emit until it is sent. One that asks for no acknowledgements is answered then.
    pub(super) async fn run(asks: bool, emit: impl FnOnce(Option<SentSignal>) -> F) -> Self {
        if !asks {
            return Self::Answered(emit(None).await);
        }
        let (sent, is_sent) = oneshot::channel();
        let mut answer = Box::pin(emit(Some(sent)));
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
            Self::Waits(answer) => answer.await,
        }
    }
}
