use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::idempotency::REMEMBERED;
use crate::cluster::Counts;
use crate::message::MessageId;

/// The emits under idempotency keys that this node has executed. One whose caller was not told so is published again, with the same message id, by
/// the next call under the key, and that may come before it: whichever comes first is sent.
pub struct Executed {
    emits: Mutex<Emits>,
    max: usize,
}

#[derive(Default)]
struct Emits {
    by_id: HashMap<MessageId, Emit>,
    /// When each was executed, or came again.
    ages: VecDeque<(Instant, MessageId)>,
    /// The connections that were asked for acknowledgements by all of them.
    asked: usize,
}

struct Emit {
    at: Instant,
    change: u64,
    counts: Counts,
}

/// A frame comes so much later at most than its key was claimed: more than two of the longest deadlines.
const ON_ITS_WAY: Duration = Duration::from_secs(30);

impl Executed {
    /// Remembers up to so many, and the connections that they asked; past it the oldest go first.
    pub fn new(max: usize) -> Self {
        Self { emits: Mutex::default(), max }
    }

    /// What became of an emit that was executed before; `None`: it is to be executed. `change`: the number of the change that it brings to what the
    /// room retains; 0: none. With another change than the one before its value is retained anew, in place of a later one, and it is to be sent anew.
    pub fn repeated(&self, id: MessageId, change: u64) -> Option<Counts> {
        let mut emits = self.emits.lock();
        let known = emits.by_id.get_mut(&id).filter(|known| change == 0 || change == known.change)?;
        // The key is kept that much longer, too.
        known.at = Instant::now();
        let (at, counts) = (known.at, known.counts.clone());
        emits.ages.push_back((at, id));
        emits.forget(self.max);
        Some(Counts { is_repeated: true, ..counts })
    }

    /// Notes what became of an emit.
    pub fn note(&self, id: MessageId, change: u64, counts: Counts) {
        let mut emits = self.emits.lock();
        let at = Instant::now();
        emits.asked += counts.asked.len();
        if let Some(before) = emits.by_id.insert(id, Emit { at, change, counts }) {
            emits.asked -= before.counts.asked.len();
        }
        emits.ages.push_back((at, id));
        emits.forget(self.max);
    }

    /// Forgets those that cannot come again.
    pub fn sweep(&self) {
        self.emits.lock().forget(self.max);
    }
}

impl Emits {
    fn forget(&mut self, max: usize) {
        while let Some(&(at, id)) = self.ages.front() {
            // The newest is remembered, whatever it asked.
            let is_too_much = self.ages.len() > 1 && self.ages.len() + self.asked > max;
            if !is_too_much && at.elapsed() < REMEMBERED + ON_ITS_WAY {
                return;
            }
            self.ages.pop_front();
            // It may have come again since.
            if self.by_id.get(&id).is_some_and(|known| known.at == at)
                && let Some(gone) = self.by_id.remove(&id)
            {
                self.asked -= gone.counts.asked.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ConnectionId, UserId};

    fn id() -> MessageId {
        MessageId::at(jiff::Timestamp::UNIX_EPOCH)
    }

    fn counts(asked: usize) -> Counts {
        let connection = || (UserId::new("42").unwrap(), ConnectionId::random());
        Counts {
            matched: 3,
            enqueued: 2,
            dropped: 1,
            asked: (0..asked).map(|_| connection()).collect(),
            is_repeated: false,
        }
    }

    #[test]
    fn what_was_executed_is_answered_as_then() {
        let (executed, first, other, counts) = (Executed::new(10), id(), id(), counts(1));
        assert_eq!(executed.repeated(first, 0), None);
        executed.note(first, 0, counts.clone());
        assert_eq!(executed.repeated(first, 0), Some(Counts { is_repeated: true, ..counts }));
        assert_eq!(executed.repeated(other, 0), None);
    }

    #[test]
    fn an_emit_whose_value_is_retained_anew_is_executed_anew() {
        let (executed, id) = (Executed::new(10), id());
        executed.note(id, 7, counts(0));
        assert!(executed.repeated(id, 7).is_some());
        assert!(executed.repeated(id, 0).is_some(), "a later value is in its place");
        assert!(executed.repeated(id, 9).is_none());
        executed.note(id, 9, counts(0));
        assert!(executed.repeated(id, 9).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_remembered_as_long_as_the_key_since_it_came_last() {
        let (executed, first, second) = (Executed::new(10), id(), id());
        executed.note(first, 0, counts(1));
        executed.note(second, 0, counts(1));
        tokio::time::advance(REMEMBERED).await;
        assert!(executed.repeated(first, 0).is_some());
        tokio::time::advance(ON_ITS_WAY).await;
        executed.sweep();
        assert!(executed.repeated(first, 0).is_some());
        assert!(executed.repeated(second, 0).is_none());
        tokio::time::advance(REMEMBERED + ON_ITS_WAY).await;
        executed.sweep();
        let emits = executed.emits.lock();
        assert_eq!((emits.by_id.len(), emits.ages.len(), emits.asked), (0, 0, 0));
    }

    #[test]
    fn there_is_a_bound_which_counts_who_was_asked_and_the_oldest_go_first() {
        let (executed, ids) = (Executed::new(6), [id(), id(), id()]);
        for id in ids {
            executed.note(id, 0, counts(2));
        }
        assert!(executed.repeated(ids[0], 0).is_none());
        assert!(executed.repeated(ids[2], 0).is_some());
        executed.note(ids[1], 0, counts(20));
        assert!(executed.repeated(ids[1], 0).is_some(), "the newest stays");
        assert!(executed.repeated(ids[2], 0).is_none());
        for _ in 0..100 {
            executed.repeated(ids[1], 0);
        }
        assert!(executed.emits.lock().ages.len() <= 6);
    }
}
