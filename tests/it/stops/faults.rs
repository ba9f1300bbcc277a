//! The faults of a store, and how they strike.

use std::{
    any::Any,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{
    in_force::Before,
    load::{CONFIG, USER},
};
use crate::harness::{
    Launch, OpenTransaction, OwnMounts, Postgres, ServerProcess, SlowProxy, TestRedis, damage, execute, fill,
    new_database, set_read_only,
};

/// The delay of each direction to a PostgreSQL that is far away.
pub(super) const FAR: Duration = Duration::from_millis(20);

/// What the store does while the server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Sqlite,
    SqliteDeleted,
    SqliteRestored,
    SqliteFull,
    SqliteReadOnly,
    SqliteBusy,
    SqliteHeld,
    SqliteDamaged,
    Postgres,
    PostgresFar,
    PostgresHangs,
    PostgresHangsSinceStart,
    PostgresStopped,
    PostgresCuts,
    PostgresLimit,
    PostgresReadOnly,
    PostgresDropped,
    PostgresTableLocked,
    PostgresHeld,
    /// The database of a node.
    SharedHangs,
    SharedStopped,
}

/// A server, and what the fault needs.
pub struct Scene {
    pub server: ServerProcess,
    pub(super) fault: Fault,
    /// Of SQLite, where the file is.
    directory: TempDir,
    /// Of PostgreSQL.
    pub(super) url: String,
    pub(super) proxy: Option<SlowProxy>,
    pub(super) postgres: Option<Postgres>,
    /// Of a node.
    pub(super) redis: Option<TestRedis>,
    pub(super) before: Before,
    /// What goes on, or is locked, as long as the scene.
    held: Vec<Box<dyn Any + Send>>,
}

impl Fault {
    pub const EACH: [Self; 21] = [
        Self::Sqlite,
        Self::SqliteDeleted,
        Self::SqliteRestored,
        Self::SqliteFull,
        Self::SqliteReadOnly,
        Self::SqliteBusy,
        Self::SqliteHeld,
        Self::SqliteDamaged,
        Self::Postgres,
        Self::PostgresFar,
        Self::PostgresHangs,
        Self::PostgresHangsSinceStart,
        Self::PostgresStopped,
        Self::PostgresCuts,
        Self::PostgresLimit,
        Self::PostgresReadOnly,
        Self::PostgresDropped,
        Self::PostgresTableLocked,
        Self::PostgresHeld,
        Self::SharedHangs,
        Self::SharedStopped,
    ];

    /// Whether the server has never written to the store.
    pub fn strikes_before_start(self) -> bool {
        matches!(self, Self::SqliteReadOnly | Self::SqliteHeld | Self::PostgresHeld | Self::PostgresHangsSinceStart)
    }

    /// Whether the server notices it: it is not ready any more, refuses what needs a table that is locked, or logs that messages cannot be read.
    pub fn is_noticed(self) -> bool {
        !matches!(self, Self::Sqlite | Self::Postgres | Self::PostgresFar | Self::PostgresCuts)
    }

    fn is_sqlite(self) -> bool {
        use Fault::{
            Sqlite, SqliteBusy, SqliteDamaged, SqliteDeleted, SqliteFull, SqliteHeld, SqliteReadOnly, SqliteRestored,
        };
        matches!(
            self,
            Sqlite
                | SqliteDeleted
                | SqliteRestored
                | SqliteFull
                | SqliteReadOnly
                | SqliteBusy
                | SqliteHeld
                | SqliteDamaged
        )
    }

    fn is_shared(self) -> bool {
        matches!(self, Self::SharedHangs | Self::SharedStopped)
    }

    /// Starts a server. The error is why this machine cannot.
    pub(super) async fn prepare(self) -> Result<Scene, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut proxy, mut postgres, mut held) = (None, None, Vec::<Box<dyn Any + Send>>::new());
        let mut url = String::new();
        let mut store = format!("sqlite:{}", file(&directory).display());
        if !self.is_sqlite() {
            url = new_database();
            if matches!(self, Self::PostgresStopped | Self::SharedStopped) {
                let own = Postgres::start(&["-c", "ssl=off"], |_| ());
                url = own.url(&own.new_database());
                postgres = Some(own);
            }
            let delay = if self == Self::PostgresFar { FAR } else { Duration::ZERO };
            let own = SlowProxy::start(&url, delay).await;
            if self == Self::PostgresHangsSinceStart {
                own.hang();
            }
            store = if self == Self::PostgresLimit { of_few(&url) } else { own.url().to_owned() };
            proxy = Some(own);
        }
        let redis = self.is_shared().then(|| TestRedis::start(false));
        let engine = redis.as_ref().map(TestRedis::url);
        let mut variables = vec![("BUGLE_STORE__URL", &*store)];
        variables.extend(engine.as_deref().map(|url| ("BUGLE_CLUSTER__REDIS", url)));
        let launch = Launch { config: CONFIG, variables: &variables, ..Launch::default() };
        let start = |launch: Launch| launch.start().unwrap_or_else(|logged| panic!("{self} does not start:\n{logged}"));
        let mut mounts = None;
        if self == Self::SqliteFull {
            mounts = Some(OwnMounts::small_disk(directory.path())?);
        } else if self == Self::SqliteReadOnly {
            // It makes the file.
            let first = start(launch);
            first.is_ready(true).await;
            assert!(first.stop().await.is_good);
            mounts = Some(OwnMounts::read_only(directory.path())?);
        } else if self == Self::SqliteDamaged {
            let first = start(launch);
            first.is_ready(true).await;
            store_some(&first).await;
            assert!(first.stop().await.is_good);
            damage(&file(&directory), DAMAGED).await;
        } else if matches!(self, Self::SqliteHeld | Self::PostgresHeld) {
            let holder = start(launch);
            holder.is_ready(true).await;
            held.push(Box::new(holder));
        }
        let runner = mounts.as_ref().map(OwnMounts::runner).unwrap_or_default();
        let server = start(Launch { runner: &runner, ..launch });
        Ok(Scene { server, fault: self, directory, url, proxy, postgres, redis, before: Before::default(), held })
    }
}

/// A text that only a message of [`Fault::SqliteDamaged`] has.
const DAMAGED: &str = "\"second-";

/// Stores messages for a user of the load, each on a page of the database of its own.
async fn store_some(server: &ServerProcess) {
    let (backend, rest) = (server.backend().await, "x".repeat(3_000));
    for name in ["first", "second", "third"] {
        backend.store_in(&format!("user:{USER}"), "e", &format!("\"{name}-{rest}\"")).await;
    }
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("bugle.db")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// The URL of the same database for a user whose connections are limited when the fault strikes.
fn of_few(url: &str) -> String {
    let role = few(url);
    execute(url, &format!("CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}"));
    url.replace("postgres@", &format!("{role}@"))
}

pub(super) fn few(url: &str) -> String {
    format!("few_{}", name(url))
}

pub(super) fn name(url: &str) -> &str {
    url.rsplit('/').next().expect("it names a database")
}

impl Scene {
    /// The database, if it is SQLite.
    pub(super) fn file(&self) -> PathBuf {
        file(&self.directory)
    }

    pub(super) async fn strike(&mut self) {
        let (path, url) = (self.file(), &self.url);
        self.before = Before::now(&path, url);
        match self.fault {
            Fault::Sqlite
            | Fault::SqliteReadOnly
            | Fault::SqliteHeld
            | Fault::SqliteDamaged
            | Fault::Postgres
            | Fault::PostgresFar
            | Fault::PostgresHangsSinceStart
            | Fault::PostgresHeld => {}
            Fault::SqliteDeleted => {
                for suffix in ["", "-wal", "-shm", ".lock"] {
                    fs::remove_file(beside(&path, suffix)).expect("it is there");
                }
            }
            Fault::SqliteRestored => restore_copy(&path),
            Fault::SqliteFull => fill(self.server.id(), self.directory.path()),
            Fault::SqliteBusy => self.held.push(Box::new(lock_file(&path).await)),
            Fault::PostgresHangs | Fault::SharedHangs => self.proxy.as_ref().expect("it has one").hang(),
            Fault::PostgresStopped | Fault::SharedStopped => self.postgres.as_ref().expect("it has one").stop(),
            Fault::PostgresCuts => self.held.push(Box::new(cut_all(url.clone()))),
            Fault::PostgresLimit => {
                // On its own, so that it is committed before the server connects again.
                execute(url, &format!("ALTER ROLE {} CONNECTION LIMIT 0", few(url)));
                execute(url, TERMINATE);
            }
            Fault::PostgresReadOnly => set_read_only(url, true),
            Fault::PostgresDropped => {
                let sql = format!("DROP DATABASE {} WITH (FORCE)", name(url));
                execute(&url.replace(name(url), "postgres"), &sql);
            }
            Fault::PostgresTableLocked => {
                self.held.push(Box::new(OpenTransaction::begin(url, "LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")));
            }
        }
    }
}

/// Ends all connections to a database.
pub(super) const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = CURRENT_DATABASE() \
                         AND pid <> pg_backend_pid()";

/// Replaces a file by a copy of it that another database has written meanwhile.
fn restore_copy(path: &Path) {
    let copy = beside(path, ".copy");
    let mut vacuum = Command::new("python3");
    vacuum.args(["-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', [sys.argv[2]])"]);
    assert!(vacuum.args([path, &copy]).status().expect("python3 runs").success());
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(path, suffix)).expect("it is there");
    }
    fs::rename(copy, path).expect("it can be replaced");
}

/// Locks the database as another process does that writes to it.
async fn lock_file(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_mins(1));
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the file opens");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.expect("the file is locked");
    connection
}

/// Ends all connections again and again.
fn cut_all(url: String) -> JoinSet<()> {
    let mut cutting = JoinSet::new();
    cutting.spawn(async move {
        loop {
            let url = url.clone();
            tokio::task::spawn_blocking(move || execute(&url, TERMINATE)).await.expect("it does not panic");
        }
    });
    cutting
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite: no fault",
            Self::SqliteDeleted => "SQLite: file deleted",
            Self::SqliteRestored => "SQLite: file replaced by a backup",
            Self::SqliteFull => "SQLite: disk full",
            Self::SqliteReadOnly => "SQLite: read-only since the start",
            Self::SqliteBusy => "SQLite: locked by a writer of another program",
            Self::SqliteHeld => "SQLite: held by another Bugle",
            Self::SqliteDamaged => "SQLite: messages damaged",
            Self::Postgres => "PostgreSQL: no fault",
            Self::PostgresFar => "PostgreSQL: 20 ms away",
            Self::PostgresHangs => "PostgreSQL: hangs",
            Self::PostgresHangsSinceStart => "PostgreSQL: hangs since the start",
            Self::PostgresStopped => "PostgreSQL: stopped",
            Self::PostgresCuts => "PostgreSQL: connections cut again and again",
            Self::PostgresLimit => "PostgreSQL: connection limit",
            Self::PostgresReadOnly => "PostgreSQL: read-only",
            Self::PostgresDropped => "PostgreSQL: database dropped",
            Self::PostgresTableLocked => "PostgreSQL: table locked",
            Self::PostgresHeld => "PostgreSQL: held by another Bugle",
            Self::SharedHangs => "PostgreSQL of a node: hangs",
            Self::SharedStopped => "PostgreSQL of a node: stopped",
        })
    }
}
