use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    AnyConnection, AnyPool, Connection, Executor, Row,
    any::{AnyPoolOptions, install_default_drivers},
    migrate::Migrator,
};
use tokio::{
    sync::{OnceCell, watch},
    time::timeout,
};
use uuid::Uuid;

use super::{Config, Error};

static FOR_SQLITE: Migrator = sqlx::migrate!("src/store/migrations/sqlite");
static FOR_POSTGRES: Migrator = sqlx::migrate!("src/store/migrations/postgres");

/// The deadline of each operation, and of getting a connection for it. A database that pauses for 5 s, as for a checkpoint or a fail-over of its
/// disk, delays what is stored and refuses nothing.
const PATIENCE: Duration = Duration::from_secs(8);
const READERS: u32 = 4;
/// A connection that was idle for so long is tested before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(1);

/// Connections to a database whose tables are there.
#[derive(Clone)]
pub(super) struct Database {
    kind: Kind,
    writers: AnyPool,
    readers: AnyPool,
    /// Nobody else's questions are in the way there.
    probes: AnyPool,
    epoch: Arc<OnceCell<Arc<str>>>,
    /// Whether messages can be kept, as far as is known.
    reachable: Arc<watch::Sender<bool>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    SqliteInMemory,
    Sqlite,
    Postgres,
}

impl Database {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        install_default_drivers();
        let url = config.url();
        let kind = match url.split(':').next() {
            Some("sqlite") if url.contains(":memory:") => Kind::SqliteInMemory,
            Some("sqlite") => Kind::Sqlite,
            Some("postgres" | "postgresql") => Kind::Postgres,
            Some(_) | None => return Err(Error::Url),
        };
        let url = match kind {
            // A file that is not there is made.
            Kind::Sqlite if !url.contains('?') => format!("{url}?mode=rwc"),
            Kind::SqliteInMemory | Kind::Sqlite | Kind::Postgres => url.to_owned(),
        };
        let pool = |max| {
            let options = AnyPoolOptions::new().max_connections(max).acquire_timeout(PATIENCE);
            // A connection that was used lately is not tested: that would cost each statement a second round trip.
            let options = options.test_before_acquire(false).before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < TESTED_AFTER {
                        return Ok(true);
                    }
                    connection.ping().await.map(|()| true)
                })
            });
            let options = match kind {
                // What is in memory ends with its one connection.
                Kind::SqliteInMemory => options.idle_timeout(None).max_lifetime(None),
                Kind::Sqlite | Kind::Postgres => options,
            };
            let options = options.after_connect(move |connection, _| Box::pin(prepare(kind, connection)));
            options.connect_lazy(&url).map_err(|_| Error::Url)
        };
        let writers = pool(1)?;
        let (readers, probes) = match kind {
            Kind::SqliteInMemory => (writers.clone(), writers.clone()),
            Kind::Sqlite | Kind::Postgres => (pool(READERS)?, pool(1)?),
        };
        Ok(Self {
            kind,
            writers,
            readers,
            probes,
            epoch: Arc::default(),
            reachable: Arc::new(watch::Sender::new(true)),
        })
    }

    /// Changes something, in one transaction. One at a time.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.check()?;
        self.write_regardless(work).await
    }

    /// The same, though the database did not answer the last time.
    async fn write_regardless<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.run(&self.writers, |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                let done = work(&mut transaction).await?;
                transaction.commit().await?;
                Ok(done)
            })
        })
        .await
    }

    /// Reads something.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.check()?;
        self.run(&self.readers, work).await
    }

    async fn run<T, F>(&self, pool: &AnyPool, work: F) -> Result<T, Error>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        let asked = async {
            self.epoch().await?;
            let mut connection = pool.acquire().await?;
            let done = timeout(PATIENCE, work(&mut connection)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
            if done.is_err() && self.kind == Kind::Postgres {
                // Whatever it still waits for is of no interest any more.
                connection.close_on_drop();
            }
            done
        };
        // Longer than each step of it may take.
        let done = timeout(PATIENCE * 2, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        Ok(done?)
    }

    /// Whose numbers positions are: made once for a database, so that one that was made anew continues no sequence.
    pub(super) async fn epoch(&self) -> sqlx::Result<Arc<str>> {
        self.epoch.get_or_try_init(|| self.migrate()).await.cloned()
    }

    pub(super) fn known_epoch(&self) -> Option<Arc<str>> {
        self.epoch.get().cloned()
    }

    async fn migrate(&self) -> sqlx::Result<Arc<str>> {
        let migrator = match self.kind {
            Kind::SqliteInMemory | Kind::Sqlite => &FOR_SQLITE,
            Kind::Postgres => &FOR_POSTGRES,
        };
        migrator.run(&self.writers).await.map_err(|error| sqlx::Error::Migrate(error.into()))?;
        let epoch = Uuid::new_v4().simple().to_string();
        let sql = "INSERT INTO store (id, epoch) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";
        sqlx::query(sql).bind(&epoch[..16]).execute(&self.writers).await?;
        let row = sqlx::query("SELECT epoch FROM store WHERE id = 1").fetch_one(&self.writers).await?;
        Ok(row.try_get::<String, _>(0)?.into())
    }

    fn check(&self) -> Result<(), Error> {
        if *self.reachable.borrow() { Ok(()) } else { Err(Error::Unreachable) }
    }

    pub(super) fn reachable(&self) -> watch::Receiver<bool> {
        self.reachable.subscribe()
    }

    /// Whether messages can be kept: noted by each write, and by a probe while there are none. A read that fails says nothing
    /// of writes.
    pub(super) fn note(&self, is_reachable: bool) {
        self.reachable.send_if_modified(|before| std::mem::replace(before, is_reachable) != is_reachable);
    }

    /// Asks for something small, and takes note whether that was done: something to be written, if the last time it was not.
    pub(super) async fn probe(&self) -> Result<(), Error> {
        let done = if *self.reachable.borrow() {
            self.run(&self.probes, |connection| {
                Box::pin(async move { connection.execute("SELECT 1").await.map(|_| ()) })
            })
            .await
        } else {
            self.write_regardless(|connection| {
                Box::pin(
                    async move { connection.execute("UPDATE store SET epoch = epoch WHERE id = 1").await.map(|_| ()) },
                )
            })
            .await
        };
        self.note(done.is_ok());
        done
    }
}

async fn prepare(kind: Kind, connection: &mut AnyConnection) -> sqlx::Result<()> {
    match kind {
        Kind::SqliteInMemory | Kind::Sqlite => {
            connection.execute("PRAGMA journal_mode = WAL").await?;
            connection.execute("PRAGMA synchronous = FULL").await?;
            connection.execute("PRAGMA busy_timeout = 3000").await?;
        }
        // It gives up before we do, and then nothing of it happens later.
        Kind::Postgres => {
            connection.execute("SET statement_timeout = '7s'").await?;
            connection.execute("SET idle_in_transaction_session_timeout = '8s'").await?;
        }
    }
    Ok(())
}
