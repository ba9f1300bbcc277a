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
    database::Database,
    deadlines::Allowance,
    rows::{Rows, list, padded, parts, statement},
};
use crate::lifecycle::Lifecycle;
use crate::message::{Position, RoomName, UserId};
#[cfg(test)]
use crate::store::broken::{Rule, is_broken};

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
    /// The generation that stored the last message of a room up to a position; 0: there is none.
    Generation((RoomName, u64), oneshot::Sender<Result<i64, Error>>),
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
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            return model.is_slow(than);
        }
        self.inner.lookups.reading_since.lock().is_some_and(|since| since.elapsed() > than)
    }

    /// Whether a position is one of this store, and what stood there when it was given stands there still: not so after a restore of an older
    /// backup. A number past the last one that was given is not looked at.
    pub async fn stands(&self, room: &RoomName, position: &Position) -> Result<bool, Error> {
        #[cfg(test)]
        if is_broken(Rule::LostPositionFalls) {
            return Ok(true);
        }
        let database = &self.inner.database;
        database
            .within(Allowance::Other, async {
                if database.epoch().await? == position.epoch {
                    return Ok(true);
                }
                let stored = self.look_up(|answer| Lookup::Generation((room.clone(), position.number), answer)).await?;
                // After the read: another node may have begun the epoch, which this one comes to know.
                let generation = database.parts().epochs.number(&position.epoch);
                Ok(generation.is_some_and(|generation| stored <= generation))
            })
            .await
    }

    pub(super) async fn written_watermark(&self, user: &UserId) -> Result<Written, Error> {
        self.look_up(|answer| Lookup::Watermark(user.clone(), answer)).await
    }

    async fn look_up<T>(&self, lookup: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Lookup) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        #[cfg(test)]
        if let Some(model) = &self.inner.model {
            model.look_up(&self.inner.database, lookup(answer)).await?;
            return answered.await.map_err(|_| Error::Closed)?;
        }
        // With the wait for the lookups before it.
        let looking_up = async {
            self.inner.lookups.sender.send(lookup(answer)).await.map_err(|_| Error::Closed)?;
            answered.await.map_err(|_| Error::Closed)?
        };
        self.inner.database.within(Allowance::Other, looking_up).await
    }
}

impl Lookup {
    /// Whether the caller has stopped waiting.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Mailbox(_, answer) => answer.is_closed(),
            Self::Watermark(_, answer) => answer.is_closed(),
            Self::Generation(_, answer) => answer.is_closed(),
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
            if !lookup.is_abandoned() {
                let _ = read_together(database, vec![lookup]).await;
            }
        }
    }
}

/// Reads lookups and answers them. Gives several back if the data of one is damaged.
async fn read_together(database: &Database, batch: Vec<Lookup>) -> Result<(), Vec<Lookup>> {
    let (mut rooms, mut users, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for lookup in &batch {
        match lookup {
            Lookup::Mailbox(room, _) => rooms.push(room.clone()),
            Lookup::Watermark(user, _) => users.push(user.clone()),
            Lookup::Generation(position, _) => positions.push(position.clone()),
        }
    }
    let read = database.read(move |connection| {
        Box::pin(async move {
            let mailboxes = mailboxes(connection, &rooms).await?;
            let watermarks = watermarks(connection, &users).await?;
            Ok((mailboxes, watermarks, generations(connection, &positions).await?))
        })
    });
    let read = read.await;
    if batch.len() > 1 && read.as_ref().is_err_and(Error::is_damage) {
        return Err(batch);
    }
    // A caller may have stopped waiting: then its answer is dropped.
    for lookup in batch {
        match lookup {
            Lookup::Mailbox(room, answer) => {
                drop(answer.send(found(&read, |(mailboxes, ..)| mailboxes.get(room.as_str()).copied())));
            }
            Lookup::Watermark(user, answer) => {
                drop(answer.send(found(&read, |(_, watermarks, _)| {
                    watermarks.get(user.as_str()).copied().unwrap_or_default()
                })));
            }
            Lookup::Generation((room, number), answer) => drop(answer.send(found(&read, |(.., generations)| {
                generations.get(&(room.to_string(), number)).copied().unwrap_or_default()
            }))),
        }
    }
    Ok(())
}

fn found<R, T>(read: &Result<R, Error>, find: impl FnOnce(&R) -> T) -> Result<T, Error> {
    read.as_ref().map(find).map_err(Clone::clone)
}

async fn generations(
    connection: &mut AnyConnection,
    positions: &[(RoomName, u64)],
) -> sqlx::Result<HashMap<(String, u64), i64>> {
    let mut generations = HashMap::new();
    for part in parts(connection, positions.len()) {
        let seen = positions[part].iter();
        let rows =
            Rows::new(connection, seen.map(|(room, number)| [room.as_str().into(), number.cast_signed().into()]))?;
        let sql = format!(
            "WITH seen (room, position) AS ({}) SELECT seen.room, seen.position, \
             (SELECT messages.generation FROM messages WHERE messages.room = seen.room \
             AND messages.position <= seen.position ORDER BY messages.position DESC LIMIT 1) FROM seen",
            rows.sql()
        );
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            let (room, number, generation): (String, i64, Option<i64>) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            generations.insert((room, number.cast_unsigned()), generation.unwrap_or_default());
        }
    }
    Ok(generations)
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
    for (chunk, count) in padded(&keys) {
        let mut query = statement(format!("{select} IN ({})", list(connection, 1, count)));
        for key in chunk {
            query = query.bind(key.borrow().to_owned());
        }
        rows.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}
