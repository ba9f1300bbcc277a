use std::{fs::File, io, sync::atomic::Ordering, time::Duration};

use sqlx::{Any, AnyConnection, Connection, Executor, Transaction};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Appended, Error, Status,
    append::{append_all, statement},
    batch::Batch,
    database::{Database, is_newer_schema, is_unwritable},
    error::is_damaged,
    lease::{self, Held, Renewed, Taken},
    schema,
    source::{Content, FileId, Kind},
    writer::Queues,
};

/// Changes are added to a transaction for so long, as long as no emits wait.
const CHANGES: Duration = Duration::from_millis(10);
/// What is written to see whether there is room on the disk again, besides twice what there was no room for.
const PROBE_BYTES: usize = 64 << 10;
const MAX_PROBE_BYTES: usize = 4 << 20;

/// The writer's connection, and what this process holds of the store.
pub(super) struct Session {
    database: Database,
    /// The name of this process in the lease.
    holder: String,
    /// Of SQLite: the locked file.
    lock: Option<File>,
    connection: Option<AnyConnection>,
    /// The tables are up to date.
    is_migrated: bool,
    held: Option<Held>,
    /// The last generation that this process has held.
    last_held: Option<i64>,
    /// The file that the connection writes to.
    file: Option<FileId>,
    has_log: bool,
    /// The file that the connection has opened.
    opened: Option<FileId>,
    /// The size of a file that has replaced it, and when that was changed.
    content: Option<Content>,
    /// The connection has not written since it was opened, or the last write failed.
    is_doubtful: bool,
    /// What there was no room for, in bytes.
    unwritten: Option<usize>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the database refused")]
    Sql(#[from] sqlx::Error),
    #[error("the database did not answer in time")]
    TimedOut,
    #[error(
        "another process has taken the lease, or the database has lost what was committed: it was restored, or is a standby that lagged"
    )]
    Lost,
    #[error("another process holds the lease")]
    HeldByAnother,
    #[error("the file was deleted or replaced")]
    FileGone,
    #[error("the file FILE.lock cannot be locked")]
    Lock(#[source] io::Error),
}

impl Failure {
    /// Whether what was written met damaged data: other data may be whole.
    pub(super) fn is_damage(&self) -> bool {
        let Self::Sql(error) = self else {
            return false;
        };
        is_damaged(error)
    }

    /// What those are told who asked for something.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Sql(error) => error.into(),
            Self::TimedOut => sqlx::Error::PoolTimedOut.into(),
            Self::FileGone => sqlx::Error::Io(io::ErrorKind::NotFound.into()).into(),
            // Nothing was written.
            Self::Lost | Self::HeldByAnother | Self::Lock(_) => Error::Unreachable,
        }
    }
}

impl Session {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            holder: Uuid::new_v4().simple().to_string(),
            lock: None,
            connection: None,
            is_migrated: false,
            held: None,
            last_held: None,
            file: None,
            has_log: false,
            opened: None,
            content: None,
            is_doubtful: true,
            unwritten: None,
        }
    }

    /// Whether it is to be seen whether something can be written.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// How the store stands after this.
    pub(super) fn status(&self, failure: &Failure) -> Status {
        match failure {
            Failure::Sql(error) if is_newer_schema(error) => Status::NewerSchema,
            Failure::Sql(error) if is_unwritable(error) && self.database.parts().epochs.current().is_some() => {
                Status::Unwritable
            }
            Failure::HeldByAnother => Status::HeldByAnother,
            Failure::FileGone => Status::FileGone,
            Failure::Sql(_) | Failure::TimedOut | Failure::Lost | Failure::Lock(_) => Status::Unreachable,
        }
    }

    /// Forgets what a failure has made useless. `bytes`: what was to be written.
    pub(super) fn failed(&mut self, failure: &Failure, bytes: usize) {
        self.is_doubtful = true;
        let is_in_memory = self.database.parts().source.kind == Kind::SqliteInMemory;
        if !is_in_memory && !matches!(failure, Failure::HeldByAnother) {
            self.connection = None;
        }
        match failure {
            Failure::Sql(error) if is_unwritable(error) => {
                self.unwritten = Some(bytes.max(self.unwritten.unwrap_or_default()));
            }
            Failure::Lost | Failure::FileGone => {
                self.held = None;
                self.lock = None;
                self.database.parts().readers.clear();
            }
            Failure::Sql(error) if is_damaged(error) => {}
            // Connections for reads are as dead.
            Failure::Sql(_) | Failure::TimedOut => self.database.parts().readers.clear(),
            Failure::HeldByAnother | Failure::Lock(_) => {}
        }
    }

    /// Connects, takes the lease, and sees whether something can be written, as far as that is not known.
    pub(super) async fn reach(&mut self) -> Result<(), Failure> {
        self.lock()?;
        if self.connection.is_none() {
            let source = &self.database.parts().source;
            let before = source.file();
            let mut connection = source.connect(self.file.is_some()).await?;
            if before.is_some() && before != source.file() {
                return Err(Failure::FileGone);
            }
            if self.file.is_some() && self.held.is_none() && !schema::has_tables(&mut connection).await? {
                return Err(Failure::FileGone);
            }
            self.opened = source.file();
            self.connection = Some(connection);
            self.is_migrated = false;
            self.is_doubtful = true;
        }
        if self.held.is_none() {
            let taken = self.take().await;
            if matches!(&taken, Err(Failure::Sql(error)) if is_unwritable(error)) {
                self.read_epochs().await?;
            }
            taken?;
        }
        if self.is_doubtful {
            self.probe().await?;
            self.is_doubtful = false;
            self.unwritten = None;
        }
        Ok(())
    }

    /// Locks the file beside a SQLite file, so that no other process uses that.
    fn lock(&mut self) -> Result<(), Failure> {
        let source = &self.database.parts().source;
        if source.kind != Kind::Sqlite {
            return Ok(());
        }
        let file = source.file();
        // Another file may be used once it stands in its place: it holds another generation.
        let is_gone = if self.held.is_some() { file != self.file } else { self.file.is_some() && file.is_none() };
        let is_replaced = self.held.is_none() && self.file.is_some() && file != self.file;
        // A file that is being copied there is not opened before it is whole.
        let content = source.content();
        let is_changing = is_replaced && (self.content.replace(content) != Some(content) || content.is_empty());
        if is_gone || is_changing {
            return Err(Failure::FileGone);
        }
        if self.lock.is_none() {
            self.lock = source.lock().map_err(Failure::Lock)?;
        }
        if self.lock.is_some() { Ok(()) } else { Err(Failure::HeldByAnother) }
    }

    /// Begins a generation.
    async fn take(&mut self) -> Result<(), Failure> {
        let parts = self.database.parts();
        let (source, clock_ms) = (&parts.source, parts.clock.now().as_millisecond());
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        if !self.is_migrated {
            // A version that waits does not change the tables of the one that holds the store.
            if schema::has_lease(connection).await?
                && lease::lock_free(connection, source.kind, &self.holder).await?.is_none()
            {
                return Err(Failure::HeldByAnother);
            }
            schema::migrate(connection).await?;
            self.is_migrated = true;
        }
        let mut transaction = connection.begin_with(begin(source.kind)).await?;
        let Taken::Held(held) = lease::take(&mut transaction, source.kind, &self.holder, clock_ms).await? else {
            transaction.rollback().await?;
            return Err(Failure::HeldByAnother);
        };
        let generations = lease::generations(&mut transaction).await?;
        transaction.commit().await?;
        if self.opened != source.file() {
            return Err(Failure::FileGone);
        }
        self.file = self.opened;
        self.has_log = source.has_log();
        let has_held = self.last_held.replace(held.generation).is_some();
        self.held = Some(held);
        if has_held {
            tracing::error!(
                store.url = %source,
                "the store begins a new epoch, since what was committed may be lost: devices that come back are told so"
            );
            // Before the epoch: a position of the new one has no number of before.
            parts.on_new_epoch.lock().iter().for_each(|forget| forget());
            parts.epochs.set(generations);
            // And after it: what was read before may have been noted meanwhile.
            parts.on_new_epoch.lock().iter().for_each(|forget| forget());
        } else {
            parts.epochs.set(generations);
        }
        Ok(())
    }

    /// Makes it possible to read a store that cannot be written, if this process has not held it yet.
    async fn read_epochs(&mut self) -> Result<(), Failure> {
        let parts = self.database.parts();
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        if parts.epochs.current().is_none() && schema::has_lease(connection).await? {
            parts.epochs.set(lease::generations(connection).await?);
        }
        Ok(())
    }

    /// Writes something, as much as could not be written.
    async fn probe(&mut self) -> Result<(), Failure> {
        let bytes = self.unwritten.map(|bytes| (bytes * 2 + PROBE_BYTES).min(MAX_PROBE_BYTES));
        let mut transaction = self.begin().await?;
        if let Some(bytes) = bytes {
            insert_probe(&mut transaction.inner, bytes).await?;
        }
        let writes = transaction.commit().await?;
        self.committed(writes)?;
        if bytes.is_some() {
            let mut transaction = self.begin().await?;
            transaction.inner.execute("DROP TABLE probe").await?;
            let writes = transaction.commit().await?;
            self.committed(writes)?;
        }
        Ok(())
    }

    /// Writes a batch, and with it changes that wait. Without any, renews the lease.
    pub(super) async fn write(&mut self, batch: &mut Batch, queues: &mut Queues) -> Result<Vec<Appended>, Failure> {
        let database = self.database.clone();
        if batch.messages.is_empty() && !queues.has_changes() && database.parts().source.kind != Kind::Postgres {
            self.lock()?;
            return Ok(Vec::new());
        }
        let epoch = database.parts().epochs.current().ok_or(sqlx::Error::PoolClosed)?;
        let generation = self.held.as_ref().map_or(0, |held| held.generation);
        let mut transaction = self.begin().await?;
        let now_ms = transaction.now_ms;
        let appended = append_all(&mut transaction.inner, (&epoch, generation), now_ms, &batch.messages).await?;
        let begun = Instant::now();
        while let Some(mut changes) = queues.take_change() {
            let made = changes.make(&mut transaction.inner, now_ms).await;
            let (done, failed) = made.map_or_else(|error| (Ok(()), Some(error)), |done| (done, None));
            // What failed alone is answered with the batch.
            batch.changed(changes, done);
            if let Some(error) = failed {
                return Err(error.into());
            }
            if queues.has_emits() || begun.elapsed() >= CHANGES {
                break;
            }
        }
        let writes = transaction.commit().await?;
        self.committed(writes)?;
        Ok(appended)
    }

    async fn begin(&mut self) -> Result<Begun<'_>, Failure> {
        let parts = self.database.parts();
        let kind = parts.source.kind;
        let (Some(connection), Some(held)) = (&mut self.connection, &self.held) else {
            return Err(sqlx::Error::PoolClosed.into());
        };
        let mut inner = connection.begin_with(begin(kind)).await?;
        let (clock_ms, ahead_ms) = (parts.clock.now().as_millisecond(), parts.clock.ahead_ms());
        match held.renew(&mut inner, kind, clock_ms - ahead_ms).await? {
            Renewed::Yes { writes, now_ms } => {
                let now_ms = now_ms + ahead_ms;
                parts.skew_ms.store(now_ms - clock_ms, Ordering::Relaxed);
                Ok(Begun { inner, writes, now_ms })
            }
            Renewed::Lost => {
                inner.rollback().await?;
                Err(Failure::Lost)
            }
        }
    }

    /// What was committed is on disk, as long as the file is the one at the path.
    fn committed(&mut self, writes: i64) -> Result<(), Failure> {
        let source = &self.database.parts().source;
        if source.kind == Kind::Sqlite && (source.file() != self.file || (self.has_log && !source.has_log())) {
            return Err(Failure::FileGone);
        }
        if let Some(held) = &mut self.held {
            held.committed(writes);
        }
        Ok(())
    }

    /// Gives the lease back.
    pub(super) async fn close(&mut self) {
        if let (Some(connection), Some(held)) = (&mut self.connection, &self.held) {
            // If it fails, the lease ends by itself.
            let _ = lease::give_back(connection, held).await;
        }
        self.database.parts().readers.clear();
        if let Some(connection) = self.connection.take() {
            let _ = connection.close().await;
        }
        self.lock = None;
    }
}

/// A transaction of this process's generation.
struct Begun<'a> {
    inner: Transaction<'a, Any>,
    writes: i64,
    /// The time of day by the database's clock.
    now_ms: i64,
}

impl Begun<'_> {
    async fn commit(self) -> sqlx::Result<i64> {
        self.inner.commit().await?;
        Ok(self.writes)
    }
}

/// The statement that begins a transaction. SQLite locks the file at once: a transaction that reads first could not write after another one has.
pub(super) fn begin(kind: Kind) -> &'static str {
    match kind {
        Kind::SqliteInMemory | Kind::Sqlite => "BEGIN IMMEDIATE",
        Kind::Postgres => "BEGIN",
    }
}

/// Writes so much into a table that is dropped then. What can be compressed would need no room.
async fn insert_probe(connection: &mut AnyConnection, bytes: usize) -> sqlx::Result<()> {
    connection.execute("DROP TABLE IF EXISTS probe").await?;
    let sql = if connection.backend_name() == "SQLite" {
        format!("CREATE TABLE probe AS SELECT RANDOMBLOB({bytes}) AS payload")
    } else {
        format!(
            "CREATE TABLE probe AS SELECT STRING_AGG(SHA256(n::TEXT::BYTEA), '') AS payload FROM GENERATE_SERIES(1, {}) n",
            bytes / 32
        )
    };
    statement(sql).execute(connection).await.map(|_| ())
}
