use std::collections::VecDeque;

use super::{
    Appended, Error, NewMessage,
    changes::Changes,
    writer::{Answer, Append, Queues},
};
use crate::message::RoomName;

/// Maximum number of messages in a transaction. A larger one would use the disk better, but its first emit would wait for its last. A transaction takes
/// the same number of round trips for any number of messages.
const MESSAGES: usize = 512;
const BYTES: usize = 4 << 20;

/// What one transaction writes.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<NewMessage>,
    answers: Vec<(Answer, usize)>,
    bytes: usize,
    /// Changes that were made, or failed without harm to the others.
    changes: Vec<(Changes, sqlx::Result<()>)>,
    /// Changes that were made in a transaction which was not committed.
    repetitions: VecDeque<Changes>,
}

impl Batch {
    pub(super) fn append(&mut self, Append { messages, answer }: Append) {
        // Its caller has been answered that it may not be stored.
        if answer.is_closed() {
            return;
        }
        self.answers.push((answer, messages.len()));
        self.bytes += messages.iter().map(NewMessage::bytes).sum::<usize>();
        self.messages.extend(messages);
    }

    pub(super) fn has_room(&self) -> bool {
        self.messages.len() < MESSAGES && self.bytes < BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn changed(&mut self, changes: Changes, done: sqlx::Result<()>) {
        self.changes.push((changes, done));
    }

    /// Nothing was committed: the changes are to be made again.
    pub(super) fn begin_again(&mut self) {
        self.repetitions.extend(self.changes.drain(..).map(|(changes, _)| changes));
    }

    /// The next changes: those that are to be made again, then those that wait.
    pub(super) fn next_changes(&mut self, queues: &mut Queues) -> Option<Changes> {
        self.repetitions.pop_front().or_else(|| queues.take_change())
    }

    /// Whether changes are to be made again.
    pub(super) fn has_repetitions(&self) -> bool {
        !self.repetitions.is_empty()
    }

    /// Whether nothing can be left out.
    pub(super) fn is_single(&self) -> bool {
        self.answers.len() <= 1
    }

    /// The same appends in two halves, the second one first. Changes are answered that they are not made, as they may have run.
    pub(super) fn halve(mut self) -> [Self; 2] {
        for changes in self.changes.drain(..).map(|(changes, _)| changes).chain(self.repetitions.drain(..)) {
            changes.answer(&Err(Error::Unreachable));
        }
        let mut first = self.into_appends();
        let second = first.split_off(first.len() / 2);
        [Self::of(second), Self::of(first)]
    }

    /// Takes the appends to these rooms out of a batch that was not written yet.
    pub(super) fn take_out(&mut self, is_out: impl Fn(&RoomName) -> bool) -> Vec<Append> {
        let appends = std::mem::take(self).into_appends();
        let (out, others) = appends.into_iter().partition(|append| append.messages.iter().any(|new| is_out(&new.room)));
        *self = Self::of(others);
        out
    }

    pub(super) fn of(appends: impl IntoIterator<Item = Append>) -> Self {
        let mut batch = Self::default();
        appends.into_iter().for_each(|append| batch.append(append));
        batch
    }

    fn into_appends(self) -> Vec<Append> {
        let mut messages = self.messages.into_iter();
        let append = |(answer, count)| Append { messages: messages.by_ref().take(count).collect(), answer };
        self.answers.into_iter().map(append).collect()
    }

    /// Answers all: the transaction was committed, or failed.
    pub(super) fn answer(self, written: Result<Vec<Appended>, Error>) {
        for (changes, done) in self.changes {
            let committed = written.as_ref().map(|_| ()).map_err(Clone::clone);
            changes.answer(&committed.and_then(|()| Ok(done?)));
        }
        for changes in self.repetitions {
            changes.answer(&Err(Error::Unreachable));
        }
        let mut written = written.map(Vec::into_iter);
        for (answer, count) in self.answers {
            let own = match &mut written {
                Ok(appended) => Ok(appended.by_ref().take(count).collect()),
                Err(error) => Err(error.clone()),
            };
            // The caller may be gone.
            let _ = answer.send(own);
        }
    }
}
