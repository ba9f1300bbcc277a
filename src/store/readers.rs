use std::{num::NonZero, sync::Arc, thread::available_parallelism, time::Duration};

use parking_lot::Mutex;
use sqlx::{AnyConnection, Connection};
use tokio::{
    sync::{Semaphore, SemaphorePermit, TryAcquireError},
    time::{Instant, timeout},
};

use super::{
    Error,
    database::is_limit,
    source::{Kind, Source},
};

/// Connections for reads. To read a SQLite file takes this machine's processors, which emits need, too: no more than there are read at one time.
const MAX: usize = 4;
/// A connection that was idle for so long is tested before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(1);
/// What a test may take.
const PING: Duration = Duration::from_secs(1);
/// How long reads share the connections that there are after the database has refused another one.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// A pool of connections for reads. Unlike the library's, it does not insist on more connections than the database gives: reads share those.
pub(super) struct Readers {
    source: Arc<Source>,
    max: usize,
    pool: Mutex<Pool>,
    /// As many as there are idle connections. Closed with the pool.
    idle: Semaphore,
}

#[derive(Default)]
struct Pool {
    idle: Vec<(AnyConnection, Instant)>,
    /// Connections that are open, or are being opened.
    open: usize,
    refused_at: Option<Instant>,
    /// Connections of before [`Readers::clear`] are not used again.
    age: u64,
}

/// A connection that is closed when it is dropped, as it may be in the middle of a read, unless it was given back.
pub(super) struct Reader<'a> {
    readers: &'a Readers,
    connection: Option<AnyConnection>,
    age: u64,
    is_done: bool,
}

impl Readers {
    pub(super) fn new(source: Arc<Source>) -> Self {
        let max = match source.kind {
            Kind::Sqlite | Kind::SqliteInMemory => available_parallelism().map_or(1, NonZero::get).min(MAX),
            Kind::Postgres => MAX,
        };
        Self { source, max, pool: Mutex::default(), idle: Semaphore::new(0) }
    }

    /// Reads that run at one time.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Closes all connections: those that read now, when they are done.
    pub(super) fn clear(&self) {
        let idle = self.take_idle(&mut self.pool.lock());
        drop(idle);
    }

    /// Closes the pool: each connection that reads is closed when it is done, and no other one is opened. Returns the idle connections, which
    /// are closed when they are dropped.
    pub(super) fn close(&self) -> Vec<AnyConnection> {
        let mut pool = self.pool.lock();
        self.idle.close();
        self.take_idle(&mut pool)
    }

    /// What it returns is to be dropped without the lock.
    fn take_idle(&self, pool: &mut Pool) -> Vec<AnyConnection> {
        pool.age += 1;
        pool.refused_at = None;
        while let Ok(permit) = self.idle.try_acquire() {
            permit.forget();
        }
        pool.open -= pool.idle.len();
        pool.idle.drain(..).map(|(connection, _)| connection).collect()
    }

    /// A connection. [`Error::Unavailable`] says that none could be opened; if the database gives no more, that there is none.
    pub(super) async fn acquire(&self) -> Result<Reader<'_>, Error> {
        loop {
            let permit = match self.idle.try_acquire() {
                Ok(permit) => permit,
                Err(TryAcquireError::Closed) => return Err(Error::Closed),
                Err(TryAcquireError::NoPermits) if self.may_open() => match self.open().await {
                    Ok(reader) => return Ok(reader),
                    Err(error) if !is_limit(&error) || self.pool.lock().open == 0 => return Err(error.into()),
                    // Others have connections, and no further one is opened for a while.
                    Err(_) => continue,
                },
                Err(TryAcquireError::NoPermits) => self.idle.acquire().await.map_err(|_| Error::Closed)?,
            };
            if let Some(reader) = self.take(permit).await {
                return Ok(reader);
            }
        }
    }

    async fn take(&self, permit: SemaphorePermit<'_>) -> Option<Reader<'_>> {
        permit.forget();
        let (connection, used_at, age) = {
            let mut pool = self.pool.lock();
            let (connection, used_at) = pool.idle.pop()?;
            (connection, used_at, pool.age)
        };
        let mut reader = Reader { readers: self, connection: Some(connection), age, is_done: false };
        if used_at.elapsed() >= TESTED_AFTER {
            timeout(PING, reader.connection()?.ping()).await.ok()?.ok()?;
        }
        Some(reader)
    }

    /// Counts one more connection if there may be one.
    fn may_open(&self) -> bool {
        let mut pool = self.pool.lock();
        let is_refused = pool.refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR) && pool.open > 0;
        let may = pool.open < self.max && !is_refused;
        pool.open += usize::from(may);
        may
    }

    /// Opens the connection that was counted.
    async fn open(&self) -> sqlx::Result<Reader<'_>> {
        let mut reader = Reader { readers: self, connection: None, age: self.pool.lock().age, is_done: false };
        let opened = self.source.connect(true).await;
        if opened.as_ref().is_err_and(is_limit) {
            self.pool.lock().refused_at = Some(Instant::now());
        }
        reader.connection = Some(opened?);
        Ok(reader)
    }
}

impl Reader<'_> {
    /// There is one until the reader is dropped.
    pub(super) fn connection(&mut self) -> Option<&mut AnyConnection> {
        self.connection.as_mut()
    }

    /// Gives the connection back, for the next read.
    pub(super) fn give_back(mut self) {
        self.is_done = true;
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.pool.lock();
        let is_kept = self.is_done && self.age == pool.age && !self.readers.idle.is_closed();
        match self.connection.take().filter(|_| is_kept) {
            Some(connection) => pool.idle.push((connection, Instant::now())),
            None => pool.open -= 1,
        }
        // Also without a connection: a read that waits may open one now.
        self.readers.idle.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::runtime::Builder;

    use super::*;
    use crate::store::{Config, Sharing};

    /// Of a database that is not there.
    fn readers() -> Readers {
        let url = "postgres:///bugle?host=/nowhere".into();
        let config = Config { url, max_age: Duration::from_hours(1), max_messages: 100 };
        Readers::new(Arc::new(Source::new(&config, Sharing::Single).unwrap()))
    }

    #[test]
    fn a_read_that_cannot_connect_while_another_one_has_a_connection_is_told_so_at_once() {
        let (answer, answered) = mpsc::channel();
        // Without a pause no other task of its thread would run.
        thread::spawn(move || {
            let readers = readers();
            readers.pool.lock().open = 1;
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let refused = runtime.block_on(readers.acquire()).is_err();
            answer.send((refused, readers.pool.lock().open)).expect("the test waits");
        });
        assert_eq!(answered.recv_timeout(Duration::from_mins(1)), Ok((true, 1)));
    }
}
