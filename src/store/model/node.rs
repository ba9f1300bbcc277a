//! A node's link to the database in memory, and its writer.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    super::{
        Appended, Error, NewMessage, Status,
        database::Database,
        deadlines::PATIENCE,
        lookups::Lookup,
        writer::{Append, RETRY},
    },
    Away, Memory, State,
    data::Data,
};

/// How often the lease is renewed while nothing is written.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A node's link. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(in crate::store) struct Link {
    memory: Memory,
    node: usize,
    /// When the lookups began that are under way.
    lookups: Arc<Mutex<BTreeMap<u64, Instant>>>,
}

impl From<Away> for Error {
    fn from(_: Away) -> Self {
        sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()).into()
    }
}

impl Link {
    pub(super) fn new(memory: Memory, node: usize) -> Self {
        Self { memory, node, lookups: Arc::default() }
    }

    /// Reads something, as it is at one moment. What is of another generation than this node's is not read: positions would be told in the wrong
    /// epoch.
    pub(in crate::store) async fn read<T>(
        &self,
        database: &Database,
        read: impl FnOnce(&Data) -> T,
    ) -> Result<T, Error> {
        if !database.status().can_read() {
            return Err(Error::Unreachable);
        }
        let epoch = database.parts().epochs.current();
        let reading = self.run(|State { data, .. }| (data.epoch() == epoch.as_ref()).then(|| read(data)));
        let done = timeout(PATIENCE * 2, reading).await.map_err(|_| Error::from(sqlx::Error::PoolTimedOut))??;
        done.ok_or(Error::Unreachable)
    }

    /// Changes something, in a transaction of its own.
    pub(in crate::store) async fn write<T>(
        &self,
        database: &Database,
        write: impl FnOnce(&mut Data) -> T,
    ) -> Result<T, Error> {
        if !database.status().can_write() {
            return Err(Error::Unreachable);
        }
        let epoch = database.parts().epochs.current().ok_or(Error::Unreachable)?;
        let writing = self.run(|state| state.is_held(&epoch).then(|| write(&mut state.data)));
        let written = timeout(PATIENCE * 2, writing).await.map_err(|_| Error::from(sqlx::Error::PoolTimedOut))??;
        written.ok_or(Error::Unreachable)
    }

    /// Answers a lookup, unless it fails.
    pub(in crate::store) async fn look_up(&self, database: &Database, lookup: Lookup) -> Result<(), Error> {
        let number = {
            let mut lookups = self.lookups.lock();
            let number = lookups.last_key_value().map_or(0, |(last, _)| last + 1);
            lookups.insert(number, Instant::now());
            number
        };
        let _done = scopeguard::guard((), |()| {
            self.lookups.lock().remove(&number);
        });
        if matches!(lookup, Lookup::Mailbox(..)) {
            self.memory.state.lock().mailbox_lookups += 1;
        }
        self.read(database, |data| data.answer(lookup)).await
    }

    pub(in crate::store) fn is_slow(&self, than: Duration) -> bool {
        self.lookups.lock().values().any(|since| since.elapsed() > than)
    }

    async fn run<T>(&self, run: impl FnOnce(&mut State) -> T) -> Result<T, Away> {
        self.memory.pass(self.node).await?;
        let done = run(&mut self.memory.state.lock());
        self.memory.pass(self.node).await?;
        Ok(done)
    }

    /// The same, to its end, even if who asked has given up: it may just be committed.
    fn run_on<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Away>> {
        let link = self.clone();
        #[expect(clippy::disallowed_methods, reason = "the database is none of the server's tasks")]
        let running = tokio::spawn(async move { link.run(run).await });
        async move { running.await.unwrap_or(Err(Away)) }
    }
}

impl State {
    fn is_held(&mut self, epoch: &str) -> bool {
        self.data.renew(self.instance, epoch)
    }
}

/// A node's writer, as `writer.rs` and `session.rs` have it.
pub(super) async fn write(database: Database, link: Link, mut appends: mpsc::Receiver<Append>) {
    let mut is_reached = false;
    loop {
        if !is_reached {
            is_reached = join(&database, &link).await;
        }
        if !is_reached {
            while let Ok(append) = appends.try_recv() {
                let _ = append.answer.send(Err(Error::Unreachable));
            }
            database.parts().statuses.set(Status::Unreachable);
            sleep(RETRY).await;
            continue;
        }
        let is_unwritable = link.memory.links.borrow()[link.node].is_unwritable;
        database.parts().statuses.set(if is_unwritable { Status::Unwritable } else { Status::Serving });
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            count = appends.recv_many(&mut batch, 64) => if count == 0 {
                return;
            },
            () = sleep(HEARTBEAT) => {}
        }
        if is_unwritable {
            for append in batch {
                let _ = append.answer.send(Err(Error::Unreachable));
            }
            continue;
        }
        let messages = batch.iter().flat_map(|append| append.messages.clone()).collect();
        let written = transact(&database, &link, messages).await;
        if written.is_err() {
            is_reached = false;
            database.parts().statuses.set(Status::Unreachable);
        }
        let mut written = written.map(Vec::into_iter);
        for Append { messages, answer } in batch {
            let appended = match &mut written {
                Ok(appended) => Ok(appended.by_ref().take(messages.len()).collect()),
                Err(error) => Err(error.clone()),
            };
            // Who asked may be gone.
            let _ = answer.send(appended);
        }
    }
}

async fn transact(database: &Database, link: &Link, messages: Vec<NewMessage>) -> Result<Vec<Appended>, Error> {
    let (began, epoch) = (Instant::now(), database.parts().epochs.current().unwrap_or_default());
    let transaction = link.run_on(move |state| {
        let is_held = state.is_held(&epoch);
        is_held.then(|| state.data.append(&messages, began))
    });
    let appended = timeout(PATIENCE, transaction).await.map_err(|_| Error::from(sqlx::Error::PoolTimedOut))??;
    appended.ok_or(Error::Unreachable)
}

/// Adopts the generation of the store, or begins one.
async fn join(database: &Database, link: &Link) -> bool {
    let joining = link.run(|state| state.data.join(state.instance));
    let Ok(Ok(generations)) = timeout(PATIENCE, joining).await else { return false };
    let (parts, current) = (database.parts(), database.parts().epochs.current());
    if generations.last().map(|generation| &generation.epoch) == current.as_ref() {
        return true;
    }
    let forget = || {
        if current.is_some() {
            parts.on_new_epoch.lock().iter().for_each(|forget| forget());
        }
    };
    forget();
    parts.epochs.set(generations);
    forget();
    true
}
