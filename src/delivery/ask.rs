//! Asking the nodes that have something to answer.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Delivery, accepted::EmitError};
use crate::cluster::{Answer, BusError, Cluster, Frame, Gathered, PublishError, Ticket};
use crate::message::OfNodes;
use crate::telemetry;

impl Delivery {
    /// The other nodes, if there may be any.
    pub(super) fn cluster(&self) -> Option<&Cluster> {
        self.inner.bus.cluster()
    }

    /// Whether this node is the only one.
    pub(super) fn is_alone(&self) -> bool {
        self.cluster().is_none()
    }

    /// Asks the nodes that have the frame's room, or all.
    pub(super) async fn ask(&self, frame: Frame) -> Result<OfNodes<Vec<Answer>>, BusError> {
        let patience = self.cluster().ok_or(BusError::Away)?.deadline();
        self.ask_within(frame, patience).await
    }

    /// The same, with so much time for the answers.
    pub(super) async fn ask_within(&self, frame: Frame, patience: Duration) -> Result<OfNodes<Vec<Answer>>, BusError> {
        let cluster = self.cluster().ok_or(BusError::Away)?;
        let answers = Self::answers(cluster.publish(&frame)?, patience).await;
        answers.map_err(|error| match error {
            PublishError::Bus(error) => error,
            PublishError::Rejected(_) => BusError::Refused,
        })
    }

    async fn answers(ticket: Ticket, patience: Duration) -> Result<OfNodes<Vec<Answer>>, PublishError> {
        let until = ticket.began() + patience;
        let (Gathered { answers, partial, .. }, _) = gather(ticket, until).await?;
        Ok(OfNodes { nodes: nodes(&answers), answer: answers, partial })
    }

    /// Has the nodes of the frame's room do something, and adds up how often they did.
    pub(super) async fn count(&self, frame: Frame) -> Result<OfNodes<usize>, BusError> {
        Ok(self.ask(frame).await?.map(sum))
    }

    /// The same after a change at the engine, in one step with the frame.
    pub(super) async fn count_by(&self, ticket: Result<Ticket, BusError>) -> Result<OfNodes<usize>, PublishError> {
        let cluster = self.cluster().ok_or(PublishError::Bus(BusError::Away))?;
        let ticket = ticket.map_err(PublishError::Bus)?;
        Ok(Self::answers(ticket, cluster.deadline()).await?.map(sum))
    }
}

/// Adds up counts.
fn sum(answers: Vec<Answer>) -> usize {
    let count = |answer: Answer| {
        let count = if let Answer::Count(count) = answer { count } else { 0 };
        usize::try_from(count).unwrap_or(usize::MAX)
    };
    answers.into_iter().map(count).sum()
}

/// Waits for the answers to a frame until then, and returns them with the ticket: acknowledgements may follow.
pub(super) async fn gather(mut ticket: Ticket, until: Instant) -> Result<(Gathered, Ticket), PublishError> {
    let gathered = ticket.gathered(until).await?;
    telemetry::bus_answers_missing(gathered.missing);
    Ok((gathered, ticket))
}

/// How many nodes have done what a frame asked for.
pub(super) fn nodes(answers: &[Answer]) -> u32 {
    let is_done = |answer: &&Answer| !matches!(answer, Answer::Late | Answer::Refused);
    u32::try_from(answers.iter().filter(is_done).count()).unwrap_or(u32::MAX)
}

/// Waits for something that an emit needs first, until then.
pub(super) async fn within<T>(
    until: Instant,
    needed: impl Future<Output = Result<T, BusError>>,
) -> Result<T, BusError> {
    timeout_at(until, needed).await.unwrap_or(Err(BusError::Unanswered))
}

impl From<BusError> for EmitError {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}
