//! Small reads that each connect needs. Those that come while others are under way are read together, by few statements: a database that is
//! 5 ms away answers each connect of a storm in a few round trips, not in one after the other.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sqlx::{AnyConnection, Row, any::AnyRow};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Mailbox, Store,
    append::{chunks, statement},
    database::Database,
};
use crate::lifecycle::Lifecycle;
use crate::message::{RoomName, UserId};

/// Lookups that are read at one time.
const MAX_BATCH: usize = 128;
/// Lookups that wait; those who bring more wait, too.
const QUEUE: usize = 4_096;

/// Takes lookups for the task that reads them.
pub(super) struct Lookups {
    sender: mpsc::Sender<Lookup>,
    reading_since: ReadingSince,
}

/// Since when the lookups are read that are being read.
type ReadingSince = Arc<Mutex<Option<Instant>>>;

impl Lookups {
    /// Starts the task that reads what comes, until the store is closed.
    pub(super) fn start(database: Database, lifecycle: &Lifecycle, closed: CancellationToken) -> Self {
        let (sender, lookups) = mpsc::channel(QUEUE);
        let reading_since = ReadingSince::default();
        lifecycle.spawn_vital("store lookups", run(database, lookups, reading_since.clone(), closed));
        Self { sender, reading_since }
    }
}

/// A lookup, and where its result goes.
pub(super) enum Lookup {
    Mailbox(RoomName, oneshot::Sender<Result<Option<Mailbox>, Error>>),
    Watermark(UserId, oneshot::Sender<Result<Written, Error>>),
}

/// What the database knows of the messages that a user's devices have proven.
#[derive(Clone, Copy, Default)]
pub(super) struct Written {
    /// The watermark; 0: none.
    pub(super) watermark: u64,
    /// Whether messages up to it are skipped.
    pub(super) has_skipped: bool,
}

impl Store {
    /// How a room's mailbox stands; none if nothing was ever kept there.
    pub async fn mailbox(&self, room: &RoomName) -> Result<Option<Mailbox>, Error> {
        self.look_up(|answer| Lookup::Mailbox(room.clone(), answer)).await
    }

    /// Whether the lookups that are being read take longer than this.
    pub fn is_slow(&self, than: Duration) -> bool {
        self.inner.lookups.reading_since.lock().is_some_and(|since| since.elapsed() > than)
    }

    pub(super) async fn written_watermark(&self, user: &UserId) -> Result<Written, Error> {
        self.look_up(|answer| Lookup::Watermark(user.clone(), answer)).await
    }

    async fn look_up<T>(&self, lookup: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Lookup) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.inner.lookups.sender.send(lookup(answer)).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

impl Lookup {
    /// Whether who asked is gone.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Mailbox(_, answer) => answer.is_closed(),
            Self::Watermark(_, answer) => answer.is_closed(),
        }
    }
}

/// Reads what comes, all that waits at one time, until the store is closed.
async fn run(
    database: Database,
    mut lookups: mpsc::Receiver<Lookup>,
    reading_since: ReadingSince,
    closed: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            count = lookups.recv_many(&mut batch, MAX_BATCH) => if count == 0 {
                return;
            }
        }
        batch.retain(|lookup| !lookup.is_abandoned());
        *reading_since.lock() = Some(Instant::now());
        tokio::select! {
            () = closed.cancelled() => return,
            () = read_all(&database, std::mem::take(&mut batch)) => {}
        }
        *reading_since.lock() = None;
    }
}

async fn read_all(database: &Database, batch: Vec<Lookup>) {
    if batch.is_empty() {
        return;
    }
    if let Err(batch) = read_together(database, batch).await {
        // One of them is of damaged data, and must not fail the others.
        for lookup in batch {
            let _ = read_together(database, vec![lookup]).await;
        }
    }
}

/// Reads lookups and answers them. Gives several back if the data of one is damaged.
async fn read_together(database: &Database, batch: Vec<Lookup>) -> Result<(), Vec<Lookup>> {
    let (mut rooms, mut users) = (Vec::new(), Vec::new());
    for lookup in &batch {
        match lookup {
            Lookup::Mailbox(room, _) => rooms.push(room.clone()),
            Lookup::Watermark(user, _) => users.push(user.clone()),
        }
    }
    let read = database.read(move |connection| {
        Box::pin(async move {
            let mailboxes = mailboxes(connection, &rooms).await?;
            Ok((mailboxes, watermarks(connection, &users).await?))
        })
    });
    let read = read.await;
    if batch.len() > 1 && read.as_ref().is_err_and(Error::is_damage) {
        return Err(batch);
    }
    // Who asked may be gone.
    for lookup in batch {
        match (lookup, &read) {
            (Lookup::Mailbox(room, answer), Ok((mailboxes, _))) => {
                drop(answer.send(Ok(mailboxes.get(room.as_str()).copied())));
            }
            (Lookup::Watermark(user, answer), Ok((_, watermarks))) => {
                drop(answer.send(Ok(watermarks.get(user.as_str()).copied().unwrap_or_default())));
            }
            (Lookup::Mailbox(_, answer), Err(error)) => drop(answer.send(Err(error.clone()))),
            (Lookup::Watermark(_, answer), Err(error)) => drop(answer.send(Err(error.clone()))),
        }
    }
    Ok(())
}

async fn mailboxes(connection: &mut AnyConnection, rooms: &[RoomName]) -> sqlx::Result<HashMap<String, Mailbox>> {
    let rows = rows_of(connection, "SELECT room, last, trimmed FROM mailboxes WHERE room", rooms).await?;
    let mailbox = |row: &AnyRow| {
        let (last, trimmed): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        Ok((row.try_get(0)?, Mailbox { last: last.cast_unsigned(), trimmed: trimmed.cast_unsigned() }))
    };
    rows.iter().map(mailbox).collect()
}

async fn watermarks(connection: &mut AnyConnection, users: &[UserId]) -> sqlx::Result<HashMap<String, Written>> {
    let rows = rows_of(connection, "SELECT user_id, position FROM delivered_marks WHERE user_id", users).await?;
    let mut written = HashMap::<String, Written>::new();
    for row in &rows {
        written.entry(row.try_get(0)?).or_default().watermark = row.try_get::<i64, _>(1)?.cast_unsigned();
    }
    let rows = rows_of(connection, "SELECT DISTINCT user_id FROM passed_over WHERE user_id", users).await?;
    for row in &rows {
        written.entry(row.try_get(0)?).or_default().has_skipped = true;
    }
    Ok(written)
}

/// The rows of a statement whose end is a list of these keys.
async fn rows_of<K>(connection: &mut AnyConnection, select: &str, keys: &[K]) -> sqlx::Result<Vec<AnyRow>>
where
    K: std::borrow::Borrow<str> + Clone + std::hash::Hash + Eq,
{
    let keys: Vec<_> = keys.iter().collect::<HashSet<_>>().into_iter().cloned().collect();
    let mut rows = Vec::new();
    for chunk in chunks(&keys) {
        let places: Vec<_> = (1..=chunk.len()).map(|place| format!("${place}")).collect();
        let mut query = statement(format!("{select} IN ({})", places.join(", ")));
        for key in chunk {
            query = query.bind(key.borrow().to_owned());
        }
        rows.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}
