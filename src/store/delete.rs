//! Deletions, many of them by few statements: those that wait for the writer are done together.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::{Any, AnyConnection, Row, any::AnyArguments, query::Query};
use tokio::sync::oneshot;

use super::{
    Error, Store,
    rows::{Rows, is_sqlite, parts},
};
use crate::message::{MessageId, RoomName};

/// Messages of one mailbox that are deleted by one statement up to a position, so that writers need not wait long.
const ROWS: i64 = 1_000;
/// The same of all mailboxes together.
const ROWS_OF_SQLITE: i64 = ROWS;
/// The database may be far away: few transactions take less time than many.
const ROWS_OF_POSTGRES: i64 = 8 * ROWS;

/// A deletion of messages of a mailbox.
pub(super) struct Deletion {
    room: RoomName,
    which: Deleted,
    /// What to answer once it is committed.
    outcome: Result<Step, Error>,
    answer: oneshot::Sender<Result<Step, Error>>,
}

enum Deleted {
    Messages(Vec<MessageId>),
    /// Those up to this position, this one included.
    UpTo(i64),
}

/// What one deletion has done.
#[derive(Clone, Copy, Default)]
pub(super) struct Step {
    count: u64,
    /// There may be more to delete.
    goes_on: bool,
}

impl Store {
    /// Deletes these messages of a mailbox, those that are there. Says how many. The holes that they leave count as whole.
    pub async fn delete(&self, room: &RoomName, ids: &[MessageId]) -> Result<u64, Error> {
        Ok(self.delete_some(room, Deleted::Messages(ids.to_vec())).await?.count)
    }

    /// Deletes the messages of a mailbox up to a position, this one included, some at a time: if the store fails in between, the first
    /// ones are gone. Says how many.
    pub async fn delete_to(&self, room: &RoomName, position: u64) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let step = self.delete_some(room, Deleted::UpTo(position.cast_signed())).await?;
            deleted += step.count;
            if !step.goes_on {
                return Ok(deleted);
            }
        }
    }

    async fn delete_some(&self, room: &RoomName, which: Deleted) -> Result<Step, Error> {
        let room = room.clone();
        self.inner.database.delete(|answer| Deletion { room, which, outcome: Ok(Step::default()), answer }).await
    }
}

impl Deletion {
    /// It alone could not be done.
    pub(super) fn failed(&mut self, error: sqlx::Error) {
        self.outcome = Err(error.into());
    }

    fn add(&mut self, deleted: u64, goes_on: bool) {
        if let Ok(step) = &mut self.outcome {
            step.count += deleted;
            step.goes_on |= goes_on;
        }
    }

    pub(super) fn answer(self, committed: Result<(), Error>) {
        // The caller may be gone.
        let _ = self.answer.send(committed.and(self.outcome));
    }
}

/// Does these deletions, within a transaction.
pub(super) async fn write(connection: &mut AnyConnection, deletions: &mut [Deletion], now_ms: i64) -> sqlx::Result<()> {
    for deletion in deletions.iter_mut() {
        deletion.outcome = Ok(Step::default());
    }
    let mut messages = BTreeMap::new();
    let mut positions = BTreeMap::<RoomName, i64>::new();
    for (n, deletion) in deletions.iter().enumerate() {
        match &deletion.which {
            // Who names a message first has deleted it.
            Deleted::Messages(ids) => {
                for id in ids {
                    messages.entry((deletion.room.clone(), id.to_string())).or_insert(n);
                }
            }
            Deleted::UpTo(position) => {
                let last = positions.entry(deletion.room.clone()).or_insert(*position);
                *last = (*last).max(*position);
            }
        }
    }
    for n in delete_messages(connection, &messages, now_ms).await? {
        deletions[n].add(1, false);
    }
    delete_positions(connection, &positions, deletions, now_ms).await
}

/// Returns the number of the deletion for each message that was there.
async fn delete_messages(
    connection: &mut AnyConnection,
    messages: &BTreeMap<(RoomName, String), usize>,
    now_ms: i64,
) -> sqlx::Result<Vec<usize>> {
    let all: Vec<_> = messages.keys().collect();
    let mut deleted = Vec::new();
    for part in parts(connection, all.len()) {
        let keys = all[part].iter();
        let mut rows = Rows::new(connection, keys.map(|(room, id)| [room.as_str().into(), id.as_str().into()]))?;
        let sql = format!(
            "DELETE FROM messages WHERE (room, message_id) IN ({}) AND expires_at > {} RETURNING room, message_id",
            rows.sql().to_owned(),
            rows.add(now_ms)?
        );
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            let (room, id): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            deleted.extend(RoomName::new(&room).ok().and_then(|room| messages.get(&(room, id)).copied()));
        }
    }
    Ok(deleted)
}

/// Deletes the first messages of each mailbox up to a position.
async fn delete_positions(
    connection: &mut AnyConnection,
    positions: &BTreeMap<RoomName, i64>,
    deletions: &mut [Deletion],
    now_ms: i64,
) -> sqlx::Result<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let of_all = if is_sqlite(connection) { ROWS_OF_SQLITE } else { ROWS_OF_POSTGRES };
    let of_each = (of_all / i64::try_from(positions.len()).unwrap_or(of_all)).clamp(1, ROWS);
    let mut deleted = HashMap::<String, Vec<i64>>::new();
    for query in first_up_to(connection, positions, (now_ms, of_each))? {
        for row in query.fetch_all(&mut *connection).await? {
            deleted.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
        }
    }
    let are_more: HashSet<String> = deleted
        .iter()
        .filter(|(_, positions)| i64::try_from(positions.len()).is_ok_and(|count| count >= of_each))
        .map(|(room, _)| room.clone())
        .collect();
    for deletion in deletions {
        let Deleted::UpTo(to) = deletion.which else { continue };
        let Some(left) = deleted.get_mut(deletion.room.as_str()) else { continue };
        // What two of them name was deleted by the first one.
        let own = left.extract_if(.., |position| *position <= to).count();
        deletion.add(own as u64, are_more.contains(deletion.room.as_str()));
    }
    Ok(())
}

/// The statements that do that: for SQLite one for each mailbox, as it has no `LATERAL`.
fn first_up_to(
    connection: &AnyConnection,
    positions: &BTreeMap<RoomName, i64>,
    (now_ms, of_each): (i64, i64),
) -> sqlx::Result<Vec<Query<'static, Any, AnyArguments>>> {
    if is_sqlite(connection) {
        let sql = "DELETE FROM messages WHERE room = $1 AND position IN (SELECT position FROM messages \
                   WHERE room = $1 AND position <= $2 AND expires_at > $3 ORDER BY position LIMIT $4) RETURNING room, position";
        let of_one = |(room, to): (&RoomName, &i64)| {
            sqlx::query(sql).bind(room.to_string()).bind(*to).bind(now_ms).bind(of_each)
        };
        return Ok(positions.iter().map(of_one).collect());
    }
    let mut rows = Rows::new(connection, positions.iter().map(|(room, to)| [room.as_str().into(), (*to).into()]))?;
    let sql = format!(
        "DELETE FROM messages WHERE (room, position) IN (SELECT first.room, first.position \
         FROM ({}) AS limits (room, last) CROSS JOIN LATERAL (SELECT messages.room, messages.position FROM messages \
         WHERE messages.room = limits.room AND messages.position <= limits.last AND messages.expires_at > {} \
         ORDER BY messages.position LIMIT {}) AS first) RETURNING room, position",
        rows.sql().to_owned(),
        rows.add(now_ms)?,
        rows.add(of_each)?
    );
    Ok(vec![rows.query(sql)])
}
