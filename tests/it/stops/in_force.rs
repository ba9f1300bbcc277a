//! Whether a fault is in force, seen from outside of the server: a stop over a healthy store must not pass for one in a fault.

use std::{
    fs, io,
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::faults::{FAR, Fault, Scene, TERMINATE, few, name};
use crate::harness::{SlowProxy, ask, count, deadline, eventually, execute, seen_by, waits_for_lock};

/// What was there before a fault.
#[derive(Default)]
pub(super) struct Before {
    /// The number of the database's file.
    inode: Option<u64>,
    /// The time at PostgreSQL, in microseconds.
    time: Option<u64>,
}

impl Before {
    pub(super) fn now(file: &Path, url: &str) -> Self {
        let time = "SELECT (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000000)::BIGINT";
        Self { inode: inode(file), time: (!url.is_empty()).then(|| count(url, time)) }
    }
}

fn inode(file: &Path) -> Option<u64> {
    fs::metadata(file).ok().map(|metadata| metadata.ino())
}

impl Scene {
    /// Waits until the fault is in force, which is so at once or as soon as the server uses the store; fails if it is not.
    pub(super) async fn is_in_force(&self) {
        let (file, url, fault) = (&self.file(), &*self.url, self.fault);
        match fault {
            Fault::Sqlite | Fault::Postgres => {}
            Fault::SqliteDeleted => assert_eq!(inode(file), None, "{fault}"),
            Fault::SqliteRestored => {
                let inode = inode(file);
                assert!(inode.is_some() && inode != self.before.inode, "{fault}: {inode:?}");
            }
            Fault::SqliteFull => assert_eq!(self.write_beside(), io::ErrorKind::StorageFull, "{fault}"),
            Fault::SqliteReadOnly => assert_eq!(self.write_beside(), io::ErrorKind::ReadOnlyFilesystem, "{fault}"),
            Fault::SqliteBusy => assert!(is_locked(file).await, "{fault}"),
            Fault::SqliteHeld | Fault::PostgresHeld => {
                let is_told = async || ask(self.server.admin, "GET", "/readyz", "").await.text().contains(HELD);
                eventually("the server to wait for the other process", is_told).await;
            }
            Fault::SqliteDamaged => assert!(is_damaged(file).await, "{fault}"),
            Fault::PostgresFar => {
                assert!(self.proxy().take_round_trips() > 0, "{fault}: its link is not used");
                let begun = Instant::now();
                assert!(accepts(self.proxy().url()), "{fault}");
                // To connect and to ask takes three round trips at least.
                assert!(begun.elapsed() >= FAR * 6, "{fault}: {:?}", begun.elapsed());
            }
            Fault::PostgresHangs | Fault::PostgresHangsSinceStart => self.is_held_back().await,
            Fault::SharedHangs => {
                assert!(self.is_node(), "{fault}");
                self.is_held_back().await;
            }
            Fault::PostgresStopped | Fault::SharedStopped => {
                assert_eq!(self.is_node(), fault == Fault::SharedStopped, "{fault}");
                let port = self.postgres.as_ref().expect("it has one").port;
                assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{fault}");
            }
            Fault::PostgresCuts => self.are_cut().await,
            Fault::PostgresLimit => {
                assert!(!accepts(&url.replace("postgres@", &format!("{}@", few(url)))), "{fault}");
                // One may have been about to begin.
                let are_none = async || {
                    execute(url, TERMINATE);
                    self.count_outside("pg_stat_activity", &format!("usename = '{}'", few(url))) == 0
                };
                eventually("the server's connections to be cut", are_none).await;
            }
            Fault::PostgresReadOnly => {
                let is_read_only = "SELECT (CURRENT_SETTING('transaction_read_only') = 'on')::INT";
                assert_eq!(count(url, is_read_only), 1, "{fault}");
                self.are_cut().await;
            }
            Fault::PostgresDropped => assert_eq!(self.count_outside("pg_database", "TRUE"), 0, "{fault}"),
            Fault::PostgresTableLocked => waits_for_lock(url).await,
        }
    }

    async fn is_held_back(&self) {
        deadline("something to be held back", self.proxy().holds()).await;
    }

    /// Whether the server listens for what other nodes send.
    fn is_node(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| !redis.cli(&["PUBSUB", "CHANNELS"]).is_empty())
    }

    /// Waits until no connection is left that was there before the fault.
    async fn are_cut(&self) {
        let time = self.before.time.expect("it is noted");
        let older = format!("backend_start <= TO_TIMESTAMP({time} / 1000000.0)");
        let are_cut = async || self.count_outside("pg_stat_activity", &older) == 0;
        eventually("the server's connections to be cut", are_cut).await;
    }

    /// The rows about the database in a table of the whole server, over a connection to another database.
    fn count_outside(&self, table: &str, condition: &str) -> u64 {
        let name = name(&self.url);
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE datname = '{name}' AND {condition}");
        count(&self.url.replace(name, "postgres"), &sql)
    }

    /// Why the server cannot write a file beside its database.
    fn write_beside(&self) -> io::ErrorKind {
        let directory = seen_by(self.server.id(), self.file().parent().expect("it is in one"));
        fs::write(directory.join("beside"), [1]).expect_err("nothing can be written").kind()
    }

    fn proxy(&self) -> &SlowProxy {
        self.proxy.as_ref().expect("it has one")
    }
}

/// What a server that waits for another one says.
const HELD: &str = "another process holds the store";

/// Whether another connection has locked the database for writing.
async fn is_locked(file: &Path) -> bool {
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::ZERO);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the file opens");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.is_err()
}

/// Whether a message cannot be read.
async fn is_damaged(file: &Path) -> bool {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the file opens");
    let read = sqlx::query("SELECT payload FROM messages").fetch_all(&mut connection).await;
    read.is_err_and(|error| error.to_string().contains("malformed"))
}

fn accepts(url: &str) -> bool {
    Command::new("psql").args([url, "-qc", "SELECT 1"]).output().expect("psql runs").status.success()
}
