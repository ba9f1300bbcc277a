use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::Member;
use crate::message::{AckOutcome, ConnectionId, UserId};

type Reply = Pin<Box<dyn Future<Output = AckOutcome> + Send>>;

/// Where a connection says how to learn of its device's acknowledgement, once the frame is in its queue. One that is dropped
/// without a word says that the frame did not get there.
pub struct AckSink(oneshot::Sender<Reply>);

impl AckSink {
    /// The device will answer with this. Nobody need be there for it any more.
    pub fn expect(self, reply: impl Future<Output = AckOutcome> + Send + 'static) {
        let _ = self.0.send(Box::pin(reply));
    }

    /// The device has the frame and cannot acknowledge it.
    pub fn unsupported(self) {
        self.expect(ready(AckOutcome::Unsupported));
    }
}

/// A connection that was asked for an acknowledgement. As a future it is what became of the frame there: the device's answer,
/// or that the connection ended before.
pub struct AckWaiter {
    target: (UserId, ConnectionId),
    stage: Stage,
    lifeline: oneshot::Receiver<Infallible>,
}

enum Stage {
    Waits(oneshot::Receiver<Reply>),
    Sent(Reply),
}

/// What a connection gets with a frame that asks.
pub(super) struct AckTicket {
    sink: AckSink,
    lifeline: Lifeline,
}

type Lifeline = oneshot::Sender<Infallible>;

/// Dropped with a connection: tasks that wait for an acknowledgement of its device see its end by that.
#[derive(Default)]
pub(super) struct Lifelines(Vec<Lifeline>);

impl AckWaiter {
    pub(super) fn new(member: &Member) -> (AckTicket, Self) {
        let (sink, reply) = oneshot::channel();
        let (lifeline, end) = oneshot::channel();
        let waiter = Self { target: (member.user().clone(), member.id()), stage: Stage::Waits(reply), lifeline: end };
        (AckTicket { sink: AckSink(sink), lifeline }, waiter)
    }

    /// The connection, and whose it is.
    pub fn target(&self) -> &(UserId, ConnectionId) {
        &self.target
    }

    /// The same, when nothing is waited for any more.
    pub fn into_target(self) -> (UserId, ConnectionId) {
        self.target
    }

    /// The same connection, whose queue did not take the frame. That may have ended it as well.
    pub(super) fn dropped(self) -> Self {
        Self { stage: Stage::Sent(Box::pin(ready(AckOutcome::Dropped))), ..self }
    }

    fn outcome(&mut self, cx: &mut Context<'_>) -> Poll<AckOutcome> {
        // What the device has answered counts, though its connection has ended since.
        let is_lost = loop {
            match &mut self.stage {
                Stage::Waits(reply) => match Pin::new(reply).poll(cx) {
                    Poll::Ready(Ok(reply)) => self.stage = Stage::Sent(reply),
                    Poll::Ready(Err(_)) => break true,
                    Poll::Pending => break false,
                },
                Stage::Sent(reply) => match reply.as_mut().poll(cx) {
                    Poll::Ready(outcome) => return Poll::Ready(outcome),
                    Poll::Pending => break false,
                },
            }
        };
        match Pin::new(&mut self.lifeline).poll(cx) {
            Poll::Ready(_) => Poll::Ready(AckOutcome::Gone),
            Poll::Pending if is_lost => Poll::Ready(AckOutcome::Dropped),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Future for AckWaiter {
    type Output = ((UserId, ConnectionId), AckOutcome);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.outcome(cx).map(|outcome| (self.target.clone(), outcome))
    }
}

impl Lifelines {
    /// Ties another receiver to the connection, which learns of its end by an error.
    pub(super) fn extend(&mut self) -> oneshot::Receiver<Infallible> {
        let (lifeline, end) = oneshot::channel();
        self.push(lifeline);
        end
    }

    fn push(&mut self, lifeline: Lifeline) {
        if self.0.len() == self.0.capacity() {
            self.0.retain(|lifeline| !lifeline.is_closed());
            self.0.shrink_to(self.0.len() * 2);
        }
        self.0.push(lifeline);
    }

    /// Ties who asks to the connection.
    pub(super) fn tie(&mut self, ticket: AckTicket) -> AckSink {
        self.push(ticket.lifeline);
        ticket.sink
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> (AckTicket, oneshot::Receiver<Reply>, oneshot::Receiver<Infallible>) {
        let (sink, reply) = oneshot::channel();
        let (lifeline, end) = oneshot::channel();
        (AckTicket { sink: AckSink(sink), lifeline }, reply, end)
    }

    #[test]
    fn lifelines_that_nobody_holds_any_more_do_not_accumulate() {
        let mut lifelines = Lifelines::default();
        let mut held = Vec::new();
        for number in 0..10_000 {
            let (ticket, reply, end) = ticket();
            drop(lifelines.tie(ticket));
            drop(reply);
            if number % 1_000 == 0 {
                held.push(end);
            }
        }
        assert!(lifelines.0.len() <= 4 * held.len(), "{} for {}", lifelines.0.len(), held.len());
        let tied = lifelines.0.iter().filter(|lifeline| !lifeline.is_closed()).count();
        assert_eq!(tied, held.len());
    }
}
