//! The lease of a cluster: its nodes hold one generation together, and write at the same time. No transaction locks the lease's row: each begins with
//! a weak lock of the table, which those of other nodes share, and reads the row. Who begins a generation locks the table against them, so that no
//! transaction of the generation before ends after that.
//!
//! The generation belongs to one *instance* of the database: its server since it was started, and the table as it is there. Another instance may have
//! lost what was committed (it was restored, or is a standby that was promoted), so that the first node that sees it begins a new generation, and
//! the others adopt that. A lost connection changes nothing. The lease lasts as long as any node renews it.

use std::sync::Arc;

use sqlx::{AnyConnection, Row};
use tokio::time::Instant;

use super::{
    lease::{self, Held, LEASE_MS, Renewed, Taken},
    rows::statement,
    source::Kind,
    writer::HEARTBEAT,
};
use crate::message::RoomName;

/// The holder's name. That of a process that is alone is random.
pub(super) const HOLDER: &str = "cluster";
const NOW: &str = "(EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT";
const INSTANCE: &str = "((EXTRACT(EPOCH FROM PG_POSTMASTER_START_TIME()) * 1000000)::BIGINT || ':' || TABLEOID || ':' \
                        || PG_RELATION_FILENODE(TABLEOID))";
/// A lease that another node has renewed so lately is left alone, in milliseconds.
const RENEWED_LATELY_MS: i64 = 500;

/// What this node does for the lease.
#[derive(Default)]
pub(super) struct Beat {
    at: Option<Instant>,
    /// The last message that it has committed, in the generation that it holds: a database without it has lost something.
    committed: Option<(RoomName, u64)>,
}

impl Beat {
    pub(super) fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at.elapsed() >= HEARTBEAT)
    }

    pub(super) fn committed(&mut self, room: RoomName, position: u64) {
        self.committed = Some((room, position));
    }

    /// Renews the lease, unless another node just has.
    pub(super) async fn renew(&mut self, connection: &mut AnyConnection, held: &Held) -> sqlx::Result<Renewed> {
        let begun = Instant::now();
        let sql = format!(
            "WITH renewed AS (UPDATE store SET ends_at = {NOW} + $1 WHERE id = 1 AND generation = $2 AND instance = {INSTANCE} \
             AND ends_at < {NOW} + $3) SELECT {NOW} FROM store WHERE id = 1 AND generation = $2 AND instance = {INSTANCE} \
             AND ($4 = '' OR EXISTS (SELECT 1 FROM mailboxes WHERE room = $4 AND last >= $5))"
        );
        let (room, position) = self.committed.as_ref().map_or(("", 0), |(room, position)| (room.as_str(), *position));
        let query = statement(sql).bind(LEASE_MS).bind(held.generation).bind(LEASE_MS - RENEWED_LATELY_MS);
        let row = query.bind(room).bind(position.cast_signed()).fetch_optional(connection).await?;
        self.at = Some(begun);
        renewed(row.as_ref())
    }
}

/// Begins a transaction, and says whether it may go on. All in one round trip: a database may be far away.
pub(super) async fn begin(connection: &mut AnyConnection, held: &Held) -> sqlx::Result<Renewed> {
    // A statement without parameters may be several. The last one sees what was committed before the table was locked.
    let sql = format!(
        "BEGIN; LOCK TABLE store IN ROW EXCLUSIVE MODE; \
         SELECT {NOW} FROM store WHERE id = 1 AND generation = {} AND instance = {INSTANCE}",
        held.generation
    );
    let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    renewed(sql.fetch_all(connection).await?.first())
}

/// Whether this generation, with its epoch, is still the one that stores.
pub(super) async fn is_current(
    connection: &mut AnyConnection,
    generation: Option<(i64, Arc<str>)>,
) -> sqlx::Result<bool> {
    let Some((number, epoch)) = generation else { return Ok(false) };
    let sql = format!(
        "SELECT 1::BIGINT FROM store WHERE id = 1 AND generation = $1 AND instance = {INSTANCE} \
         AND EXISTS (SELECT 1 FROM store WHERE id = 2 AND epoch LIKE '%' || $2)"
    );
    let last = format!("{number}:{epoch}");
    Ok(statement(sql).bind(number).bind(last).fetch_optional(connection).await?.is_some())
}

fn renewed(row: Option<&sqlx::any::AnyRow>) -> sqlx::Result<Renewed> {
    Ok(match row {
        Some(row) => Renewed::Yes { writes: 0, now_ms: row.try_get(0)? },
        None => Renewed::Lost,
    })
}

/// Adopts the generation that other nodes hold, or begins one. Within a transaction that has locked the table. `last_held`: the generation that this
/// node has held until it found that something is lost.
pub(super) async fn join(connection: &mut AnyConnection, last_held: Option<i64>) -> sqlx::Result<Taken> {
    let sql = format!(
        "UPDATE store SET ends_at = {NOW} + $1 WHERE id = 1 AND holder = $2 AND ends_at > {NOW} AND instance = {INSTANCE} \
         AND generation <> $3 RETURNING generation"
    );
    let query = statement(sql).bind(LEASE_MS).bind(HOLDER).bind(last_held.unwrap_or(-1));
    if let Some(row) = query.fetch_optional(&mut *connection).await? {
        return Ok(Taken::Adopted(Held::of_cluster(row.try_get(0)?)));
    }
    let taken = lease::take(connection, Kind::Postgres, HOLDER, 0).await?;
    if matches!(taken, Taken::Held(_)) {
        statement(format!("UPDATE store SET instance = {INSTANCE} WHERE id = 1")).execute(connection).await?;
    }
    Ok(taken)
}
