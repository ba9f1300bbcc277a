use std::{borrow::Cow, future::Future, sync::Arc};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::{AnyConnection, migrate::MigrateError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Appended, Config, DirectRetention, Error, NewMessage, Sharing, Status,
    deadlines::{Allowance, Deadlines},
    delete::{self, Deletion, Step},
    epochs::Epochs,
    marks::Mark,
    readers::Readers,
    remote_time::RemoteTime,
    shared_lease,
    source::{Kind, Source},
    status::Statuses,
    writer::{Append, Change, Closure, Queues, Writer},
};
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;

/// Requests that wait for the writer in each lane.
const QUEUE: usize = 4_096;

/// The database. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Database {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) source: Arc<Source>,
    /// None: there are no direct messages.
    pub(super) direct: Option<DirectRetention>,
    pub(super) readers: Readers,
    pub(super) statuses: Statuses,
    pub(super) epochs: Epochs,
    pub(super) clock: Clock,
    /// Called before a new generation begins in a process that had one before.
    pub(super) on_new_epoch: Mutex<Vec<Box<dyn Fn() + Send>>>,
    /// PostgreSQL has a clock of its own.
    time: Option<RemoteTime>,
    emits: mpsc::Sender<Append>,
    changes: mpsc::Sender<Change>,
    deadlines: Deadlines,
    /// Nothing is written any more.
    closed: CancellationToken,
}

impl Database {
    /// Starts the writer. The database is reached as soon as it can be.
    pub(super) fn start(
        config: &Config,
        sharing: Sharing,
        direct: Option<DirectRetention>,
        clock: Clock,
        lifecycle: &Lifecycle,
    ) -> Result<Self, Error> {
        let (database, emit_queue, change_queue) = Self::new(Source::new(config, sharing)?, direct, clock);
        let closed = database.inner.closed.clone();
        let max_deleted = delete::max_rows(database.inner.source.kind != Kind::Postgres);
        let queues = Queues::new(emit_queue, change_queue, max_deleted);
        let writer = Writer::new(database.clone(), queues, closed);
        lifecycle.spawn_vital("store writer", writer.run());
        let (stopping, watched) = (lifecycle.clone(), database.clone());
        lifecycle.spawn(async move {
            stopping.stopping().await;
            watched.deadlines().stop();
        });
        Ok(database)
    }

    /// Without a writer, which takes what waits in these queues.
    fn new(
        source: Source,
        direct: Option<DirectRetention>,
        clock: Clock,
    ) -> (Self, mpsc::Receiver<Append>, mpsc::Receiver<Change>) {
        let source = Arc::new(source);
        let (emits, emit_queue) = mpsc::channel(QUEUE);
        let (changes, change_queue) = mpsc::channel(QUEUE);
        let inner = Arc::new(Inner {
            readers: Readers::new(source.clone()),
            time: (source.kind == Kind::Postgres).then(RemoteTime::new),
            source,
            direct,
            statuses: Statuses::new(),
            epochs: Epochs::default(),
            clock,
            on_new_epoch: Mutex::default(),
            emits,
            changes,
            deadlines: Deadlines::new(),
            closed: CancellationToken::new(),
        });
        (Self { inner }, emit_queue, change_queue)
    }

    /// A database that a test has its own writer for.
    #[cfg(test)]
    pub(super) fn over_model(config: &Config, clock: Clock) -> (Self, mpsc::Receiver<Append>) {
        let (database, emit_queue, _) = Self::new(Source::new(config, Sharing::Single).unwrap(), None, clock);
        (database, emit_queue)
    }

    pub(super) fn parts(&self) -> &Inner {
        &self.inner
    }

    pub(super) fn status(&self) -> Status {
        self.inner.statuses.get()
    }

    /// The time of day by the database's clock, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        let clock = &self.inner.clock;
        let remote_ms = self.inner.time.as_ref().and_then(RemoteTime::now_ms);
        remote_ms.map_or_else(|| clock.now().as_millisecond(), |ms| ms.saturating_add(clock.ahead_ms()))
    }

    /// Takes note of the time of day by the database's clock. Returns that as tests move it.
    pub(super) fn note_time(&self, database_ms: i64) -> i64 {
        if let Some(time) = &self.inner.time {
            time.note(database_ms);
        }
        database_ms + self.inner.clock.ahead_ms()
    }

    /// The epoch of what is stored now.
    pub(super) async fn epoch(&self) -> Result<Arc<str>, Error> {
        if let Some(epoch) = self.inner.epochs.current() {
            return Ok(epoch);
        }
        self.within(Allowance::Other, self.check(Status::can_read)).await?;
        self.inner.epochs.current().ok_or(Error::Unreachable)
    }

    /// Appends messages, all or none.
    pub(super) async fn append(&self, messages: Vec<NewMessage>) -> Result<Vec<Appended>, Error> {
        let (answer, answered) = oneshot::channel();
        self.within(Allowance::Append, async {
            self.check(Status::can_write).await?;
            self.inner.emits.send(Append { messages, answer }).await.map_err(|_| Error::Closed)?;
            answered.await.map_err(|_| Error::Closed)?
        })
        .await
    }

    /// Notes that users have read messages.
    pub(super) async fn mark(
        &self,
        mark: impl FnOnce(oneshot::Sender<Result<Option<bool>, Error>>) -> Mark,
    ) -> Result<Option<bool>, Error> {
        let (answer, answered) = oneshot::channel();
        self.change(Change::Mark(mark(answer)), answered).await
    }

    /// Deletes messages.
    pub(super) async fn delete(
        &self,
        deletion: impl FnOnce(oneshot::Sender<Result<Step, Error>>) -> Deletion,
    ) -> Result<Step, Error> {
        let (answer, answered) = oneshot::channel();
        self.change(Change::Deletion(deletion(answer)), answered).await
    }

    /// Changes something, after the emits that wait. What is done is committed with other changes at one time.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        // It is done again if it meets another node's.
        let work = Closure::new(move |connection| work.clone()(connection), answer);
        self.change(Change::Other(Box::new(work)), answered).await
    }

    /// Reads by the writer's connection.
    async fn read_as_writer<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let mut work = Some(work);
        let work = Closure::new(
            move |connection| match work.take() {
                Some(work) => work(connection),
                None => Box::pin(async { Err(sqlx::Error::PoolClosed) }),
            },
            answer,
        );
        self.change(Change::Other(Box::new(work)), answered).await
    }

    async fn change<T>(&self, change: Change, answered: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        self.within(Allowance::Other, async {
            self.check(Status::can_write).await?;
            self.inner.changes.send(change).await.map_err(|_| Error::Closed)?;
            answered.await.map_err(|_| Error::Closed)?
        })
        .await
    }

    /// Reads something.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        // What is in memory ends with its one connection.
        if self.inner.source.kind == Kind::SqliteInMemory {
            return self.read_as_writer(work).await;
        }
        let mut work = Some(work);
        self.within(Allowance::Other, async {
            match (self.read_by_reader(&mut work).await, work) {
                // There is a connection, but the writer has it.
                (Err(Error::Unavailable(error)), Some(work)) if is_limit(&error) => self.read_as_writer(work).await,
                (read, _) => read,
            }
        })
        .await
    }

    /// Reads by a connection for reads, and takes the work if there is one.
    async fn read_by_reader<T, F>(&self, work: &mut Option<F>) -> Result<T, Error>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.check(Status::can_read).await?;
        let mut reader = self.inner.readers.acquire().await?;
        let current = self.inner.epochs.current_generation();
        let work = work.take().ok_or(sqlx::Error::PoolClosed)?;
        let connection = reader.connection().ok_or(sqlx::Error::PoolClosed)?;
        let read = work(&mut *connection).await?;
        // What another generation has stored is not taken for something of this one: the writer comes to know of that within a second.
        let is_shared = self.inner.source.sharing == Sharing::Cluster;
        if is_shared && !shared_lease::is_current(connection, current).await? {
            return Err(Error::Unreachable);
        }
        reader.give_back();
        Ok(read)
    }

    /// Waits for the first attempt to reach the database, and refuses at once what it cannot do then.
    async fn check(&self, can: impl Fn(Status) -> bool) -> Result<(), Error> {
        if can(self.inner.statuses.settled().await) { Ok(()) } else { Err(Error::Unreachable) }
    }

    /// Ends an operation at its deadline. What an operation consists of may have deadlines of its own.
    pub(super) async fn within<T>(
        &self,
        allowance: Allowance,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // Boxed: operations consist of operations, and the futures of their callers would hold them all.
        let done = self.inner.deadlines.within(allowance, Box::pin(work)).await;
        done.unwrap_or_else(|| Err(sqlx::Error::PoolTimedOut.into()))
    }

    /// Has the writer end once it has written what waits, and give the lease back.
    pub(super) fn close(&self) {
        self.inner.closed.cancel();
    }

    pub(super) fn deadlines(&self) -> &Deadlines {
        &self.inner.deadlines
    }
}

/// Whether the database has as many connections as it gives.
pub(super) fn is_limit(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code == "53300")
}

/// Whether the database has ended a transaction because of another one, so that it can be done again: a deadlock, or a failed serialization.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(&*code, "40P01" | "40001"))
}

/// Whether PostgreSQL has cancelled a statement that took longer than `statement_timeout`: it waited for a table that another program has locked.
pub(super) fn is_cancelled(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code == "57014")
}

/// Whether the connection has ended: it was lost, or the database is stopped.
pub(super) fn is_cut(error: &sqlx::Error) -> bool {
    let is_end = |code: Cow<'_, str>| code.starts_with("08") || code.starts_with("57P");
    matches!(error, sqlx::Error::Io(_)) || is_cut_idle(error) || code(error).is_some_and(is_end)
}

/// Whether the database has ended the connection, as a transaction has waited for too long for what comes next. It has not executed that: PostgreSQL
/// 14 and later disarm this timer before they look at what has come.
pub(super) fn is_cut_idle(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code == "25P03")
}

/// Whether nothing can be written, though it can be read: the disk is full, or the database is read-only.
pub(super) fn is_unwritable(error: &sqlx::Error) -> bool {
    let Some(code) = code(error) else {
        return false;
    };
    // Extended result codes of SQLite have the primary one in their last byte: READONLY and FULL.
    let of_sqlite = code.parse::<i64>().is_ok_and(|code| code < 20_000 && matches!(code & 0xff, 8 | 13));
    of_sqlite || matches!(&*code, "25006" | "53100")
}

/// Whether the tables are of a newer version.
pub(super) fn is_newer_schema(error: &sqlx::Error) -> bool {
    let sqlx::Error::Migrate(error) = error else {
        return false;
    };
    matches!(**error, MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_))
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    if let sqlx::Error::Migrate(error) = error
        && let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = &**error
    {
        return code(error);
    }
    error.as_database_error()?.code()
}
