//! The answers that this node waits for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{
    BusError,
    answer_codec::Reply,
    frame::{AckPart, Answer},
};
use crate::telemetry;

/// Frames of this node that are not answered yet. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct Pending(Arc<Inner>);

#[derive(Default)]
struct Inner {
    last: AtomicU64,
    frames: Mutex<HashMap<u64, Unanswered>>,
}

struct Unanswered {
    began: Instant,
    /// How many nodes got the frame, once the engine has told.
    published: Option<Published>,
    answers: Vec<Answer>,
    /// Taken when it is known what becomes of the frame.
    settled: Option<oneshot::Sender<Result<Gathered, PublishError>>>,
    acks: Option<mpsc::UnboundedSender<AckPart>>,
}

/// What the engine told of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// Nodes that got it.
    pub(super) receivers: u64,
    /// Nodes that were ready at that moment.
    pub(super) ready: u64,
    /// Nodes that were live, as far as this one knew.
    pub(super) live: u64,
}

/// Why a frame was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The engine is away, or did not answer.
    Bus(BusError),
    /// The function that was to publish it says no, with this number.
    Rejected(i64),
}

/// The answers of all nodes that got a frame.
#[derive(Debug, Default, PartialEq)]
pub struct Gathered {
    /// Those that came in time.
    pub answers: Vec<Answer>,
    /// Some node has not answered, was too late or refuses the frame, or was not ready when it was published.
    pub partial: bool,
    /// Nodes that got the frame and have not answered.
    pub missing: u64,
}

/// A frame that is to be answered. Nothing is kept of it any more once this is dropped.
pub struct Ticket {
    pending: Pending,
    pub(super) number: u64,
    /// When it was published.
    began: Instant,
    settled: oneshot::Receiver<Result<Gathered, PublishError>>,
    acks: Option<mpsc::UnboundedReceiver<AckPart>>,
}

/// Whether it is known what became of a frame, for others than the one who waits for its answers.
pub struct Fate(Pending, u64);

impl Fate {
    /// Whether the engine has told, or nobody waits for it any more.
    pub fn is_known(&self) -> bool {
        self.0.0.frames.lock().get(&self.1).is_none_or(|frame| frame.published.is_some())
    }
}

impl Pending {
    /// Notes a frame, which gets a number. `has_acks`: acknowledgements follow the answers.
    pub(super) fn begin(&self, has_acks: bool) -> Ticket {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (settle, settled) = oneshot::channel();
        let (tell, acks) = has_acks.then(mpsc::unbounded_channel).unzip();
        let began = Instant::now();
        let unanswered = Unanswered { began, published: None, answers: Vec::new(), settled: Some(settle), acks: tell };
        self.0.frames.lock().insert(number, unanswered);
        Ticket { pending: self.clone(), number, began, settled, acks }
    }

    /// Notes what the engine said.
    pub(super) fn published(&self, number: u64, published: Published) {
        self.change(number, |frame| {
            frame.published = Some(published);
            frame.settle_if_complete();
        });
    }

    /// Notes that a frame was not published.
    pub(super) fn failed(&self, number: u64, error: PublishError) {
        self.change(number, |frame| {
            if let Some(settled) = frame.settled.take() {
                // The caller may be gone.
                let _ = settled.send(Err(error));
            }
        });
    }

    /// Notes an answer, or acknowledgements. False: nobody waits for it any more.
    pub(super) fn answered(&self, number: u64, reply: Reply) -> bool {
        self.change(number, |frame| match reply {
            Reply::Answer(answer) => {
                frame.answers.push(answer);
                frame.settle_if_complete();
            }
            Reply::Acks(part) => {
                if let Some(acks) = &frame.acks {
                    // The caller may be gone.
                    let _ = acks.send(part);
                }
            }
        })
    }

    /// How many frames are not done with.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.frames.lock().len()
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Unanswered)) -> bool {
        self.0.frames.lock().get_mut(&number).map(change).is_some()
    }
}

impl Unanswered {
    fn settle_if_complete(&mut self) {
        let is_complete = self.published.is_some_and(|published| self.answers.len() as u64 >= published.receivers);
        if is_complete && let Some(settled) = self.settled.take() {
            telemetry::bus_answered(self.began.elapsed());
            // The caller may be gone.
            let _ = settled.send(Ok(self.gather()));
        }
    }

    fn gather(&mut self) -> Gathered {
        let answers = std::mem::take(&mut self.answers);
        let Some(Published { receivers, ready, live }) = self.published else {
            return Gathered { answers, partial: true, missing: 0 };
        };
        let missing = receivers.saturating_sub(answers.len() as u64);
        #[cfg(test)]
        let live = if is_broken(Rule::ReadyIsCompared) { 0 } else { live };
        let is_refused = |answer: &Answer| matches!(answer, Answer::Late | Answer::Refused);
        let partial = missing > 0 || ready < live || answers.iter().any(is_refused);
        Gathered { answers, partial, missing }
    }
}

impl Ticket {
    /// When the frame was published.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Tells whether the engine has told what became of the frame.
    pub fn fate(&self) -> Fate {
        Fate(self.pending.clone(), self.number)
    }

    /// Waits for the answers until then.
    pub async fn gathered(&mut self, until: Instant) -> Result<Gathered, PublishError> {
        if let Ok(settled) = timeout_at(until, &mut self.settled).await {
            return settled.unwrap_or(Err(PublishError::Bus(BusError::Unanswered)));
        }
        let mut frames = self.pending.0.frames.lock();
        match frames.get_mut(&self.number) {
            Some(frame) if frame.published.is_some() => {
                frame.settled = None;
                telemetry::bus_answered(frame.began.elapsed());
                Ok(frame.gather())
            }
            Some(_) | None => Err(PublishError::Bus(BusError::Unanswered)),
        }
    }

    /// The next acknowledgements of one node. They do not end by themselves.
    pub async fn acks(&mut self) -> AckPart {
        match &mut self.acks {
            Some(acks) => acks.recv().await.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.0.frames.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const READY: Published = Published { receivers: 2, ready: 3, live: 3 };

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(500)
    }

    fn answer(pending: &Pending, number: u64, answer: Answer) -> bool {
        pending.answered(number, Reply::Answer(answer))
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_complete_when_as_many_came_as_nodes_got_the_frame() {
        let pending = Pending::default();
        let mut ticket = pending.begin(false);
        assert!(answer(&pending, ticket.number, Answer::Count(1)));
        pending.published(ticket.number, READY);
        assert!(answer(&pending, ticket.number, Answer::Count(2)));
        let gathered = ticket.gathered(soon()).await.unwrap();
        assert_eq!(
            gathered,
            Gathered { answers: vec![Answer::Count(1), Answer::Count(2)], partial: false, missing: 0 }
        );
        let number = ticket.number;
        drop(ticket);
        assert!(!answer(&pending, number, Answer::Count(3)), "nothing is kept of it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_late_or_refused_answer_or_an_unready_node_makes_it_partial() {
        let pending = Pending::default();
        for (published, answers, missing) in [
            (READY, vec![Answer::Count(1)], 1),
            (READY, vec![Answer::Count(1), Answer::Late], 0),
            (READY, vec![Answer::Count(1), Answer::Refused], 0),
            (Published { receivers: 0, ready: 2, live: 3 }, vec![], 0),
        ] {
            let mut ticket = pending.begin(false);
            pending.published(ticket.number, published);
            for one in &answers {
                assert!(answer(&pending, ticket.number, one.clone()));
            }
            assert_eq!(ticket.gathered(soon()).await.unwrap(), Gathered { answers, partial: true, missing });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_of_which_the_engine_tells_nothing_may_have_been_sent() {
        let pending = Pending::default();
        let mut ticket = pending.begin(false);
        assert_eq!(ticket.gathered(soon()).await, Err(PublishError::Bus(BusError::Unanswered)));
        let mut ticket = pending.begin(false);
        pending.failed(ticket.number, PublishError::Rejected(-1));
        assert_eq!(ticket.gathered(soon()).await, Err(PublishError::Rejected(-1)));
    }
}
