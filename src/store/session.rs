use std::sync::Arc;

use sqlx::{AnyConnection, Connection};
use uuid::Uuid;

use super::{
    Sharing, Status,
    begun::{Begun, Inner},
    database::{Database, is_cancelled, is_newer_schema, is_unwritable},
    deadlines::Allowance,
    direct,
    epochs::Generation,
    error::is_damaged,
    failure::Failure,
    files::{Files, Known},
    lease::{self, Held, Renewed, Taken},
    paths::FileId,
    probe,
    schema::{self, Tables},
    shared_lease::{self, Beat},
    source::{Content, Kind},
};

/// The writer's connection, and what this process holds of the store.
pub(super) struct Session {
    pub(super) database: Database,
    /// The name of this process in the lease.
    holder: String,
    files: Files,
    pub(super) connection: Option<AnyConnection>,
    /// The tables are up to date.
    is_migrated: bool,
    pub(super) held: Option<Held>,
    /// Of a lease that nodes share.
    pub(super) beat: Beat,
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

impl Session {
    pub(super) fn new(database: Database) -> Self {
        let holder = match database.parts().source.sharing {
            Sharing::Single => Uuid::new_v4().simple().to_string(),
            Sharing::Cluster => shared_lease::HOLDER.to_owned(),
        };
        Self {
            files: Files::new(database.parts().source.clone()),
            database,
            holder,
            connection: None,
            is_migrated: false,
            held: None,
            beat: Beat::default(),
            last_held: None,
            file: None,
            has_log: false,
            opened: None,
            content: None,
            is_doubtful: true,
            unwritten: None,
        }
    }

    /// Whether other nodes write to the store, too.
    pub(super) fn is_shared(&self) -> bool {
        self.database.parts().source.sharing == Sharing::Cluster
    }

    pub(super) fn kind(&self) -> Kind {
        self.database.parts().source.kind
    }

    /// Where what is stored now belongs: its epoch, and its generation.
    pub(super) fn place(&self) -> Result<(Arc<str>, i64), Failure> {
        let epoch = self.database.parts().epochs.current().ok_or(sqlx::Error::PoolClosed)?;
        Ok((epoch, self.held.as_ref().map_or(0, |held| held.generation)))
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
            Failure::Sql(_) | Failure::Uncommitted(_) | Failure::TimedOut | Failure::Lost | Failure::Lock(_) => {
                Status::Unreachable
            }
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
                self.database.parts().readers.clear();
            }
            Failure::Sql(error) if is_damaged(error) || is_cancelled(error) => {}
            // Connections for reads are as dead.
            Failure::Sql(_) | Failure::Uncommitted(_) | Failure::TimedOut => self.database.parts().readers.clear(),
            Failure::HeldByAnother | Failure::Lock(_) => {}
        }
    }

    /// Connects, takes the lease, and sees whether something can be written, as far as that is not known. Each step has the time of a
    /// transaction: a database that is far away is reached, however many steps it takes.
    pub(super) async fn reach(&mut self) -> Result<(), Failure> {
        let database = self.database.clone();
        step(&database, self.lock()).await?;
        if self.connection.is_none() {
            step(&database, self.connect()).await?;
        }
        if self.held.is_none() {
            let taken = self.take_steps(&database).await;
            if matches!(&taken, Err(Failure::Sql(error)) if is_unwritable(error)) {
                step(&database, self.read_epochs()).await?;
            }
            taken?;
        }
        if self.is_doubtful {
            step(&database, self.probe()).await?;
            self.is_doubtful = false;
            self.unwritten = None;
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let source = &self.database.parts().source;
        let before = self.files.file().await?;
        let mut connection = source.connect(self.file.is_some()).await?;
        let opened = self.files.file().await?;
        if before.is_some() && before != opened {
            return Err(Failure::FileGone);
        }
        if self.file.is_some() && self.held.is_none() && !schema::has_tables(&mut connection).await? {
            return Err(Failure::FileGone);
        }
        self.opened = opened;
        self.connection = Some(connection);
        self.is_migrated = false;
        self.is_doubtful = true;
        Ok(())
    }

    /// Locks the SQLite file that stands at the path, so that no other process uses it.
    pub(super) async fn lock(&mut self) -> Result<(), Failure> {
        if self.kind() != Kind::Sqlite {
            return Ok(());
        }
        let known = Known { is_held: self.held.is_some(), file: self.file, content: self.content };
        let (content, locked) = self.files.lock(known).await?;
        self.content = content;
        locked
    }

    /// Brings the tables up to date, and takes the lease.
    async fn take_steps(&mut self, database: &Database) -> Result<(), Failure> {
        let found = step(database, self.look()).await?;
        if !found.is_none_or(Tables::are_current) {
            step(database, async { Ok(schema::migrate(self.connection()?).await?) }).await?;
            step(database, async { Ok(schema::add(self.connection()?).await?) }).await?;
        }
        if self.database.parts().direct.is_some() {
            step(database, async { Ok(direct::ensure(self.connection()?).await?) }).await?;
        }
        self.is_migrated = true;
        step(database, self.take()).await
    }

    /// Looks at the tables, unless they are known to be up to date, and whether the lease is free.
    async fn look(&mut self) -> Result<Option<Tables>, Failure> {
        let (is_migrated, kind, holder) = (self.is_migrated, self.kind(), self.holder.clone());
        let connection = self.connection()?;
        let found = if is_migrated { None } else { Some(schema::look(connection).await?) };
        // Until the lease is free, this process only reads: to take the lease locks the tables against the holder, and to migrate them changes those of a
        // holder that may be of another version.
        if found.is_none_or(Tables::have_lease) && lease::free_generation(connection, kind, &holder).await?.is_none() {
            return Err(Failure::HeldByAnother);
        }
        Ok(found)
    }

    fn connection(&mut self) -> Result<&mut AnyConnection, Failure> {
        Ok(self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?)
    }

    /// Begins a generation, or adopts that of other nodes.
    async fn take(&mut self) -> Result<(), Failure> {
        let parts = self.database.parts();
        let (source, clock_ms) = (&parts.source, parts.clock.now().as_millisecond());
        let is_shared = self.is_shared();
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        let mut transaction = connection.begin_with(lease::begin_to_take(source.kind)).await?;
        let taken = if is_shared {
            shared_lease::join(&mut transaction, self.last_held).await?
        } else {
            lease::take(&mut transaction, source.kind, &self.holder, clock_ms).await?
        };
        let (held, is_begun) = match taken {
            Taken::Held(held) => (held, true),
            Taken::Adopted(held) => (held, false),
            Taken::ByAnother => {
                transaction.rollback().await?;
                return Err(Failure::HeldByAnother);
            }
        };
        let generations = lease::generations(&mut transaction).await?;
        transaction.commit().await?;
        let (file, has_log) = self.files.file_and_log().await?;
        if self.opened != file {
            return Err(Failure::FileGone);
        }
        self.file = self.opened;
        self.has_log = has_log;
        self.beat = Beat::default();
        let has_held = self.last_held.replace(held.generation).is_some();
        self.held = Some(held);
        self.set_epochs(generations, has_held, is_begun);
        Ok(())
    }

    /// `has_held`: this process has held an earlier generation. `is_begun`: it has begun this one itself.
    fn set_epochs(&self, generations: Vec<Generation>, has_held: bool, is_begun: bool) {
        let parts = self.database.parts();
        if !has_held {
            parts.epochs.set(generations);
            return;
        }
        let (url, path) = (&*parts.source, parts.source.logged_path());
        if !is_begun {
            // Only nodes over PostgreSQL follow another one.
            tracing::warn!(store.url = %url, "another node has begun a new epoch of the store: this one follows");
        } else if self.is_shared() {
            tracing::warn!(
                store.url = %url,
                "the database was restarted, replaced or restored: the store begins a new epoch, and devices that come back are told if \
                 what they have seen is lost"
            );
        } else {
            tracing::error!(
                store.url = %url,
                store.path = path,
                "the store begins a new epoch, since what was committed may be lost: devices that come back are told so"
            );
        }
        // Before the epoch: a position of the new one has no number of before.
        parts.on_new_epoch.lock().iter().for_each(|forget| forget());
        parts.epochs.set(generations);
        // And after it: what was read before may have been noted meanwhile.
        parts.on_new_epoch.lock().iter().for_each(|forget| forget());
    }

    /// Makes it possible to read a store that cannot be written, if this process has not held it yet.
    async fn read_epochs(&mut self) -> Result<(), Failure> {
        let parts = self.database.parts();
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        if parts.epochs.current().is_none() && schema::look(connection).await?.have_lease() {
            parts.epochs.set(lease::generations(connection).await?);
        }
        Ok(())
    }

    /// Writes something, as much as could not be written.
    async fn probe(&mut self) -> Result<(), Failure> {
        let bytes = self.unwritten.map(probe::size);
        let is_shared = self.is_shared();
        if is_shared {
            self.renew().await?;
        }
        let mut transaction = self.begin().await?;
        if let Some(bytes) = bytes {
            probe::insert(&mut transaction.inner, bytes).await?;
            // Another node may write its own.
            if is_shared {
                probe::remove(&mut transaction.inner).await?;
            }
        }
        let writes = transaction.commit().await?;
        self.committed(writes).await?;
        if bytes.is_some() && !is_shared {
            let mut transaction = self.begin().await?;
            probe::remove(&mut transaction.inner).await?;
            let writes = transaction.commit().await?;
            self.committed(writes).await?;
        }
        Ok(())
    }

    pub(super) async fn begin(&mut self) -> Result<Begun<'_>, Failure> {
        let (kind, is_shared) = (self.kind(), self.is_shared());
        let clock = &self.database.parts().clock;
        let held = self.held.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        let (inner, renewed) = if is_shared {
            let mut inner = Inner::take(&mut self.connection).map_err(Failure::Uncommitted)?;
            match shared_lease::begin(&mut inner, held).await {
                Ok(renewed) => (inner, renewed),
                Err(error) => return Err(inner.fail(error).await),
            }
        } else {
            let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            let mut inner = connection.begin_with(begin(kind)).await.map_err(Failure::before_commit)?;
            let now_ms = clock.now().as_millisecond() - clock.ahead_ms();
            let renewed = held.renew(&mut inner, kind, now_ms).await.map_err(Failure::before_commit)?;
            (Inner::Alone(inner), renewed)
        };
        match renewed {
            Renewed::Yes { writes, now_ms } => Ok(Begun { inner, writes, now_ms: self.database.note_time(now_ms) }),
            Renewed::Lost => {
                inner.rollback().await?;
                Err(Failure::Lost)
            }
        }
    }

    /// What was committed is on disk, as long as the file is the one at the path.
    pub(super) async fn committed(&mut self, writes: i64) -> Result<(), Failure> {
        if self.kind() == Kind::Sqlite {
            let (file, has_log) = self.files.file_and_log().await?;
            if file != self.file || (self.has_log && !has_log) {
                return Err(Failure::FileGone);
            }
        }
        if let Some(held) = &mut self.held {
            held.committed(writes);
        }
        Ok(())
    }

    /// Gives the lease back, unless other nodes may hold it, too, and closes all connections.
    pub(super) async fn close(&mut self) {
        let is_shared = self.is_shared();
        if let (Some(connection), Some(held), false) = (&mut self.connection, &self.held, is_shared) {
            // If it fails, the lease ends by itself.
            let _ = lease::give_back(connection, held).await;
        }
        let connections = self.database.parts().readers.close().into_iter().chain(self.connection.take());
        for connection in connections {
            let _ = connection.close().await;
        }
        // Reads that have not ended yet keep SQLite's own locks, see `byte_lock.rs`.
        let _ = self.files.unlock().await;
    }
}

/// Runs one step of reaching the database, which has the time of a transaction.
async fn step<T>(database: &Database, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    database.deadlines().within(Allowance::Transaction, work).await.unwrap_or(Err(Failure::TimedOut))
}

/// The statement that begins a transaction of a process that is alone. SQLite locks the file at once: a transaction that reads first could not write
/// after another one has.
fn begin(kind: Kind) -> &'static str {
    match kind {
        Kind::SqliteInMemory | Kind::Sqlite => "BEGIN IMMEDIATE",
        Kind::Postgres => "BEGIN",
    }
}
