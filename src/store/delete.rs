//! Deletions. The writer groups those that wait, and makes each group by one statement (on SQLite, by several in one transaction).
//!
//! Nodes that share a PostgreSQL may delete the same messages at the same time. Each statement locks its rows first, ordered by room and position,
//! so that two of them do not deadlock. A group has either ids or positions: two statements in one transaction would lock rows out of that order.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::{Any, AnyConnection, Row, any::AnyArguments, query::Query};
use tokio::sync::oneshot;

use super::{
    Error, Store,
    rows::{Rows, is_sqlite, parts},
};
use crate::message::{MessageId, RoomName};

/// Maximum number of rows that one group deletes in SQLite. Emits wait meanwhile.
const MAX_ROWS_SQLITE: usize = 1_000;
/// The same limit for PostgreSQL. It is higher because each transaction takes three round trips, and low enough for `statement_timeout` (7 s): if no row
/// is in the database's memory, and each of the two pages for a row takes 0.5 ms to read, the statement takes 4 s.
const MAX_ROWS_POSTGRES: usize = 4_000;

/// A deletion of messages of a mailbox.
pub(super) struct Deletion {
    room: RoomName,
    target: Target,
    /// The answer, if the transaction is committed.
    outcome: Result<Step, Error>,
    answer: oneshot::Sender<Result<Step, Error>>,
}

/// The messages to delete.
enum Target {
    Ids(Vec<MessageId>),
    /// All up to this position, inclusive.
    UpTo(i64),
}

/// Result of one transaction of a deletion.
#[derive(Clone, Copy, Default)]
pub(super) struct Step {
    deleted: u64,
    /// Whether messages may be left to delete.
    has_more: bool,
}

/// Returns the maximum number of rows that one group of deletions deletes.
pub(super) fn max_rows(is_sqlite: bool) -> usize {
    if is_sqlite { MAX_ROWS_SQLITE } else { MAX_ROWS_POSTGRES }
}

impl Store {
    /// Deletes the messages of a mailbox that have these ids. Returns how many there were. Devices that resume are told of no gap.
    pub async fn delete(&self, room: &RoomName, ids: &[MessageId]) -> Result<u64, Error> {
        Ok(self.delete_step(room, Target::Ids(ids.to_vec())).await?.deleted)
    }

    /// Deletes the messages of a mailbox up to a position, inclusive. Returns how many there were. This takes one transaction or more: if it fails, the
    /// first messages may be deleted.
    pub async fn delete_to(&self, room: &RoomName, position: u64) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let step = self.delete_step(room, Target::UpTo(position.cast_signed())).await?;
            deleted += step.deleted;
            if !step.has_more {
                return Ok(deleted);
            }
        }
    }

    async fn delete_step(&self, room: &RoomName, target: Target) -> Result<Step, Error> {
        let room = room.clone();
        self.inner.database.delete(|answer| Deletion { room, target, outcome: Ok(Step::default()), answer }).await
    }
}

impl Deletion {
    /// Whether this deletion can be added to a group, which then deletes `max_rows` rows at most. Deletions up to a position share that number.
    pub(super) fn joins(&self, group: &[Self], max_rows: usize) -> bool {
        match self.ids() {
            Some(own) => {
                let others: Option<usize> = group.iter().map(Self::ids).sum();
                others.is_some_and(|others| others + own <= max_rows)
            }
            None => group.iter().all(|other| other.ids().is_none()),
        }
    }

    /// The number of its ids, if it is by ids.
    fn ids(&self) -> Option<usize> {
        match &self.target {
            Target::Ids(ids) => Some(ids.len()),
            Target::UpTo(_) => None,
        }
    }

    /// Sets the outcome of a deletion that failed while others of its group succeeded.
    pub(super) fn failed(&mut self, error: sqlx::Error) {
        self.outcome = Err(error.into());
    }

    fn add(&mut self, deleted: u64, has_more: bool) {
        if let Ok(step) = &mut self.outcome {
            step.deleted += deleted;
            step.has_more |= has_more;
        }
    }

    pub(super) fn answer(self, committed: Result<(), Error>) {
        // The caller may be gone.
        let _ = self.answer.send(committed.and(self.outcome));
    }
}

/// Makes these deletions, within a transaction.
pub(super) async fn write(connection: &mut AnyConnection, deletions: &mut [Deletion], now_ms: i64) -> sqlx::Result<()> {
    // A transaction that was rolled back may have made them before.
    for deletion in deletions.iter_mut() {
        deletion.outcome = Ok(Step::default());
    }
    let mut messages = BTreeMap::new();
    let mut limits = BTreeMap::<RoomName, i64>::new();
    for (n, deletion) in deletions.iter().enumerate() {
        match &deletion.target {
            // If several deletions name a message, the first one counts it.
            Target::Ids(ids) => {
                for id in ids {
                    messages.entry((deletion.room.clone(), id.to_string())).or_insert(n);
                }
            }
            Target::UpTo(position) => {
                let last = limits.entry(deletion.room.clone()).or_insert(*position);
                *last = (*last).max(*position);
            }
        }
    }
    for n in delete_by_id(connection, &messages, now_ms).await? {
        deletions[n].add(1, false);
    }
    delete_up_to(connection, &limits, deletions, now_ms).await
}

/// Deletes messages by room and id; the values are numbers of deletions. Returns the number of the deletion for each message that was there.
pub(super) async fn delete_by_id(
    connection: &mut AnyConnection,
    messages: &BTreeMap<(RoomName, String), usize>,
    now_ms: i64,
) -> sqlx::Result<Vec<usize>> {
    let all: Vec<_> = messages.keys().collect();
    let mut deleted = Vec::new();
    for part in parts(connection, all.len()) {
        let keys = all[part].iter();
        let mut rows = Rows::new(connection, keys.map(|(room, id)| [room.as_str().into(), id.as_str().into()]))?;
        let condition =
            format!("(room, message_id) IN ({}) AND expires_at > {}", rows.sql().to_owned(), rows.add(now_ms)?);
        let sql = if is_sqlite(connection) {
            format!("DELETE FROM messages WHERE {condition} RETURNING room, message_id")
        } else {
            let locked = format!(
                "SELECT messages.ctid FROM messages WHERE {condition} ORDER BY room COLLATE \"C\", position FOR UPDATE"
            );
            delete_locked(&locked, "room, message_id")
        };
        for row in rows.query(sql).fetch_all(&mut *connection).await? {
            let (room, id): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            deleted.extend(RoomName::new(&room).ok().and_then(|room| messages.get(&(room, id)).copied()));
        }
    }
    Ok(deleted)
}

/// Deletes the first messages of each mailbox, up to its limit.
async fn delete_up_to(
    connection: &mut AnyConnection,
    limits: &BTreeMap<RoomName, i64>,
    deletions: &mut [Deletion],
    now_ms: i64,
) -> sqlx::Result<()> {
    if limits.is_empty() {
        return Ok(());
    }
    let share = (max_rows(is_sqlite(connection)) / limits.len()).max(1);
    let mut deleted = HashMap::<String, Vec<i64>>::new();
    for query in statements_up_to(connection, limits, (now_ms, share))? {
        for row in query.fetch_all(&mut *connection).await? {
            deleted.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
        }
    }
    let is_full = |(room, positions): (&String, &Vec<i64>)| (positions.len() >= share).then(|| room.clone());
    let has_more: HashSet<String> = deleted.iter().filter_map(is_full).collect();
    for deletion in deletions {
        let Target::UpTo(to) = deletion.target else { continue };
        let Some(left) = deleted.get_mut(deletion.room.as_str()) else { continue };
        // If several deletions cover a message, the first one counts it.
        let own = left.extract_if(.., |position| *position <= to).count();
        deletion.add(own as u64, has_more.contains(deletion.room.as_str()));
    }
    Ok(())
}

/// Returns the statements that delete `share` messages of each mailbox, or all up to its limit if these are fewer. SQLite has no `LATERAL`: there it is
/// one statement for each mailbox.
///
/// PostgreSQL applies `LIMIT` after `FOR UPDATE`: rows that another node deletes meanwhile do not count. So if fewer than `share` rows are deleted,
/// none is left.
fn statements_up_to(
    connection: &AnyConnection,
    limits: &BTreeMap<RoomName, i64>,
    (now_ms, share): (i64, usize),
) -> sqlx::Result<Vec<Query<'static, Any, AnyArguments>>> {
    let share = i64::try_from(share).unwrap_or(i64::MAX);
    if is_sqlite(connection) {
        let sql = "DELETE FROM messages WHERE room = $1 AND position IN (SELECT position FROM messages \
                   WHERE room = $1 AND position <= $2 AND expires_at > $3 ORDER BY position LIMIT $4) RETURNING room, position";
        let of_one =
            |(room, to): (&RoomName, &i64)| sqlx::query(sql).bind(room.to_string()).bind(*to).bind(now_ms).bind(share);
        return Ok(limits.iter().map(of_one).collect());
    }
    // The rooms come in the order of the map, which is that of the collation "C".
    let mut rows = Rows::new(connection, limits.iter().map(|(room, to)| [room.as_str().into(), (*to).into()]))?;
    let locked = format!(
        "SELECT first.ctid FROM ({}) AS limits (room, last) CROSS JOIN LATERAL (SELECT messages.ctid FROM messages \
         WHERE messages.room = limits.room AND messages.position <= limits.last AND messages.expires_at > {} \
         ORDER BY messages.position LIMIT {} FOR UPDATE) AS first",
        rows.sql().to_owned(),
        rows.add(now_ms)?,
        rows.add(share)?
    );
    Ok(vec![rows.query(delete_locked(&locked, "room, position"))])
}

/// Returns a statement for PostgreSQL that deletes the rows that a query locks, and returns these columns. The rows are found by their place (`ctid`),
/// which does not change while they are locked: however many rows PostgreSQL expects, it does not read the whole table.
fn delete_locked(query: &str, columns: &str) -> String {
    format!(
        "WITH locked AS ({query}) DELETE FROM messages WHERE ctid = ANY (ARRAY(SELECT ctid FROM locked)) RETURNING {columns}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn deletion(target: Target) -> Deletion {
        let room = RoomName::new("team:1").unwrap();
        Deletion { room, target, outcome: Ok(Step::default()), answer: oneshot::channel().0 }
    }

    fn of_ids(count: usize) -> Deletion {
        deletion(Target::Ids(vec![MessageId::at(Clock::system().now()); count]))
    }

    #[test]
    fn a_group_names_as_many_ids_as_it_may_delete_rows() {
        let group = [of_ids(600), of_ids(300)];
        assert!(of_ids(100).joins(&group, max_rows(true)) && !of_ids(101).joins(&group, max_rows(true)));
        assert!(of_ids(3_100).joins(&group, max_rows(false)) && !of_ids(3_101).joins(&group, max_rows(false)));
    }

    #[test]
    fn a_group_has_either_ids_or_positions() {
        let (ids, up_to) = ([of_ids(1)], [deletion(Target::UpTo(1))]);
        assert!(!of_ids(1).joins(&up_to, 1_000) && !deletion(Target::UpTo(1)).joins(&ids, 1_000));
        assert!(deletion(Target::UpTo(1)).joins(&up_to, 1_000));
    }
}
