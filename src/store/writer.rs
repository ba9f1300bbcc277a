//! The one writer of a process, with two lanes: emits, and after them marks, watermarks and deletions. What waits is written in one transaction; if
//! nodes share the database, emits and changes have transactions of their own, see `writing.rs`. While one runs, the next one gathers.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::AnyConnection;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Appended, Error, NewMessage, Status, batch::Batch, changes::Changes, database::Database, deadlines::Allowance,
    delete::Deletion, failure::Failure, marks::Mark, session::Session, set_aside::SetAside,
};
use crate::telemetry;

/// Changes that are made by the same statements.
const ALIKE: usize = 128;
/// Changes that were received and wait.
const GATHERED: usize = 1_024;
/// Maximum number of transactions with changes, and their total time, between two batches of emits.
const CHANGE_TRANSACTIONS: usize = 16;
const CHANGES_TIME: Duration = Duration::from_secs(1);
/// How often a database that does not serve is asked again.
pub(super) const RETRY: Duration = Duration::from_millis(400);
/// How often the lease is renewed, or the file looked at, while nothing is written.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

/// Messages that are to be appended, and where the answer goes.
pub(super) struct Append {
    pub(super) messages: Vec<NewMessage>,
    pub(super) answer: Answer,
}

pub(super) type Answer = oneshot::Sender<Result<Vec<Appended>, Error>>;

/// What is written after emits.
pub(super) enum Change {
    /// Marks that wait are written by the same statements.
    Mark(Mark),
    /// So are deletions, in groups of limited size.
    Deletion(Deletion),
    Other(Box<dyn Work>),
}

/// A change by a closure.
pub(super) trait Work: Send {
    /// Does it, within a transaction. It is done again if that one was not committed. It returns the error of any of its statements: the transaction
    /// is lost with that, and COMMIT does not say so.
    fn run<'c>(&'c mut self, connection: &'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<()>>;
    /// Answers: the transaction was committed, or failed.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

pub(super) struct Closure<T, F> {
    work: F,
    done: Option<T>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Closure<T, F>
where
    F: for<'c> FnMut(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>>,
{
    pub(super) fn new(work: F, answer: oneshot::Sender<Result<T, Error>>) -> Self {
        Self { work, done: None, answer }
    }
}

impl<T, F> Work for Closure<T, F>
where
    T: Send,
    F: for<'c> FnMut(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send,
{
    fn run<'c>(&'c mut self, connection: &'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<()>> {
        Box::pin(async move {
            // The caller may be gone.
            if !self.answer.is_closed() {
                self.done = Some((self.work)(connection).await?);
            }
            Ok(())
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let Self { done, answer, .. } = *self;
        // The caller may be gone.
        let _ = answer.send(committed.and_then(|()| done.ok_or(Error::Closed)));
    }
}

/// What waits for the writer.
pub(super) struct Queues {
    emits: mpsc::Receiver<Append>,
    changes: mpsc::Receiver<Change>,
    /// Changes that were received and not taken yet, in their order.
    next_changes: VecDeque<Change>,
    /// Maximum number of rows that a group of deletions deletes.
    max_deleted: usize,
}

impl Queues {
    pub(super) fn new(emits: mpsc::Receiver<Append>, changes: mpsc::Receiver<Change>, max_deleted: usize) -> Self {
        Self { emits, changes, next_changes: VecDeque::new(), max_deleted }
    }

    /// Waits until something is to be written, and takes the emits that wait, as many as one transaction takes.
    async fn next(&mut self) -> Batch {
        let mut batch = Batch::default();
        if self.next_changes.is_empty() {
            tokio::select! {
                biased;
                Some(first) = self.emits.recv() => batch.append(first),
                Some(change) = self.changes.recv() => self.next_changes.push_back(change),
                else => {}
            }
        }
        while batch.has_room()
            && let Ok(append) = self.emits.try_recv()
        {
            batch.append(append);
        }
        batch
    }

    /// Whether changes wait.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty() || !self.next_changes.is_empty()
    }

    /// Whether emits wait.
    pub(super) fn has_emits(&self) -> bool {
        !self.emits.is_empty()
    }

    /// The next change, with those that are made by the same statements: their callers wait for their answers, so that none depends on another one
    /// that it overtakes.
    pub(super) fn take_change(&mut self) -> Option<Changes> {
        while self.next_changes.len() < GATHERED
            && let Ok(change) = self.changes.try_recv()
        {
            self.next_changes.push_back(change);
        }
        let max_deleted = self.max_deleted;
        Some(match self.next_changes.pop_front()? {
            Change::Other(work) => Changes::Other(work),
            Change::Mark(mark) => Changes::Marks(self.alike(mark, |_, change| match change {
                Change::Mark(mark) => Ok(mark),
                other @ (Change::Deletion(_) | Change::Other(_)) => Err(other),
            })),
            Change::Deletion(deletion) => Changes::Deletions(self.alike(deletion, |group, change| match change {
                Change::Deletion(deletion) if deletion.joins(group, max_deleted) => Ok(deletion),
                other @ (Change::Deletion(_) | Change::Mark(_) | Change::Other(_)) => Err(other),
            })),
        })
    }

    /// Takes the changes that are written with the first one. `join` returns a change that is added to the group, or gives it back.
    fn alike<T>(&mut self, first: T, join: impl Fn(&[T], Change) -> Result<T, Change>) -> Vec<T> {
        let mut alike = vec![first];
        let mut waiting = std::mem::take(&mut self.next_changes).into_iter();
        while alike.len() < ALIKE
            && let Some(change) = waiting.next()
        {
            match join(&alike, change) {
                Ok(change) => alike.push(change),
                Err(other) => self.next_changes.push_back(other),
            }
        }
        self.next_changes.extend(waiting);
        alike
    }

    fn refuse_all(&mut self) {
        while let Ok(Append { answer, .. }) = self.emits.try_recv() {
            // The caller may be gone.
            let _ = answer.send(Err(Error::Unreachable));
        }
        while let Some(changes) = self.take_change() {
            changes.answer(&Err(Error::Unreachable));
        }
    }

    fn is_empty(&self) -> bool {
        !self.has_emits() && !self.has_changes()
    }
}

/// Writes, as long as the store is open. The connections of readers are closed with it, however it ends: handles of the store may live longer.
pub(super) struct Writer {
    database: Database,
    queues: Queues,
    session: Session,
    set_aside: SetAside,
    closed: CancellationToken,
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.database.parts().readers.close());
    }
}

impl Writer {
    pub(super) fn new(database: Database, queues: Queues, closed: CancellationToken) -> Self {
        let session = Session::new(database.clone());
        Self { database, queues, session, set_aside: SetAside::default(), closed }
    }

    pub(super) async fn run(mut self) {
        let closed = self.closed.clone();
        loop {
            let is_reached = self.reach().await;
            if closed.is_cancelled() && (!is_reached || self.queues.is_empty()) {
                break;
            }
            if is_reached {
                self.serve().await;
                continue;
            }
            self.queues.refuse_all();
            tokio::select! {
                () = sleep(RETRY) => {}
                () = closed.cancelled() => {}
            }
        }
        self.queues.refuse_all();
        self.database.deadlines().within(Allowance::Transaction, self.session.close()).await;
    }

    /// Sees to it that the session can write, and says whether it can.
    async fn reach(&mut self) -> bool {
        let reached = self.session.reach().await;
        if let Err(failure) = &reached {
            self.session.failed(failure, 0);
        }
        self.note(reached.as_ref().err());
        reached.is_ok()
    }

    /// Writes what waits.
    async fn serve(&mut self) {
        let closed = self.closed.clone();
        let mut batch = tokio::select! {
            biased;
            batch = self.queues.next() => batch,
            () = sleep(HEARTBEAT) => Batch::default(),
            () = closed.cancelled() => return,
        };
        let (has_emits, begun) = (!batch.messages.is_empty(), Instant::now());
        let aside =
            if self.set_aside.is_empty() { Vec::new() } else { batch.take_out(|room| self.set_aside.has(room)) };
        self.serve_batch(batch).await;
        for append in aside {
            self.serve_aside(append).await;
        }
        if has_emits && self.session.is_shared() {
            self.serve_changes(begun.elapsed().min(CHANGES_TIME)).await;
        }
    }

    /// Writes changes that wait. Emits that keep coming do not keep them from being written: they have as much time as the emits before them had, and
    /// one transaction at least.
    async fn serve_changes(&mut self, time: Duration) {
        let begun = Instant::now();
        for written in 0..CHANGE_TRANSACTIONS {
            let is_over = written > 0 && begun.elapsed() >= time && self.queues.has_emits();
            // If the database does not serve, `run` refuses the changes that wait.
            if is_over || !self.queues.has_changes() || self.session.is_doubtful() {
                return;
            }
            self.serve_batch(Batch::default()).await;
        }
    }

    async fn serve_batch(&mut self, batch: Batch) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let written = self.write(&mut part).await;
            let is_damage = written.as_ref().is_err_and(Failure::is_damage);
            if is_damage && !part.is_single() {
                // What is damaged fails alone.
                parts.extend(part.halve());
                continue;
            }
            let is_violation = written.as_ref().is_err_and(Failure::is_violation);
            let written = written.map_err(Failure::into_error);
            if let Err(error) = &written
                && is_violation
            {
                // Of a direct message it is not known which one of the two mailboxes is damaged.
                let mut rooms = part.messages.iter().map(|new| &new.room).collect::<Vec<_>>();
                rooms.dedup();
                if let [room] = rooms[..] {
                    self.set_aside.insert(room.clone(), error.clone());
                }
            }
            part.answer(written);
        }
    }

    /// Appends to a mailbox that has refused it before, unless that is a short time ago.
    async fn serve_aside(&mut self, append: Append) {
        let mut rooms = append.messages.iter().map(|new| new.room.clone()).collect::<Vec<_>>();
        rooms.dedup();
        let part = Batch::of([append]);
        if let Some(error) = rooms.iter().find_map(|room| self.set_aside.refusal(room)) {
            return part.answer(Err(error));
        }
        for room in &rooms {
            self.set_aside.remove(room);
        }
        self.serve_batch(part).await;
    }

    async fn write(&mut self, batch: &mut Batch) -> Result<Vec<Appended>, Failure> {
        let written = self.write_once(batch).await;
        let is_to_be_repeated = match &written {
            // Another node has begun a generation, and nothing was written in the one before.
            Err(Failure::Lost) => self.session.is_shared() && !batch.messages.is_empty(),
            Err(Failure::Uncommitted(_)) => true,
            Ok(_) | Err(_) => false,
        };
        if !is_to_be_repeated || !self.reach().await {
            return written;
        }
        batch.begin_again();
        self.write_once(batch).await
    }

    async fn write_once(&mut self, batch: &mut Batch) -> Result<Vec<Appended>, Failure> {
        let begun = Instant::now();
        // The session may have been lost by what was written before.
        if self.session.is_doubtful() && !self.reach().await {
            return Err(Failure::Lost);
        }
        let (database, session, queues) = (&self.database, &mut self.session, &mut self.queues);
        let written = database.deadlines().within(Allowance::Transaction, session.write(batch, queues)).await;
        let written = written.unwrap_or(Err(Failure::TimedOut));
        match &written {
            Ok(appended) if !appended.is_empty() => telemetry::stored(appended.len(), begun.elapsed()),
            Ok(_) => {}
            // The database serves: what has met other nodes' transactions fails alone, or what violates a constraint.
            Err(failure) if failure.is_conflict() || failure.is_violation() => {}
            Err(failure) => {
                self.session.failed(failure, batch.bytes());
                // After a connection has ended, or a statement was cancelled, reaching the database again shows whether it serves.
                let is_open = failure.is_cancelled() || matches!(failure, Failure::Uncommitted(_));
                if !failure.is_damage() && !is_open {
                    self.note(Some(failure));
                }
            }
        }
        written
    }

    /// Tells others how the store stands, and the log when that has changed.
    fn note(&self, failure: Option<&Failure>) {
        let parts = self.database.parts();
        let status = failure.map_or(Status::Serving, |failure| self.session.status(failure));
        let before = parts.statuses.set(status);
        if before == status {
            return;
        }
        let (url, path) = (&*parts.source, parts.source.logged_path());
        match failure {
            None if before == Status::Opening => {
                tracing::info!(store.url = %url, store.path = path, "the store is open");
            }
            None => tracing::info!(store.url = %url, store.path = path, "the store can be written again"),
            Some(failure) => {
                // Without its cause, which it tells itself: lines in JSON would not have that.
                tracing::warn!(store.url = %url, store.path = path, error = %failure, "{status}");
            }
        }
    }
}
