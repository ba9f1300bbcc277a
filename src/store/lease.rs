//! The lease: one process holds the store at a time. Its generation is a row in the database, and each of its transactions begins with that row:
//! it checks the generation, counts the write, and locks the row, so that a transaction whose connection was lost ends before the next one begins.
//!
//! A database that has fewer writes of the generation than the holder has committed was restored, or is a standby that lagged: the holder takes a
//! new generation, whose epoch no device has seen. A process also locks a file beside a SQLite file; with that lock it takes the lease at once. Over
//! PostgreSQL the lease of a process that was killed ends after [`LEASE`].

use sqlx::{AnyConnection, Row};

use super::{epochs::Generation, schema, source::Kind};

/// How long a lease lasts after the last write, in milliseconds. With [`super::writer::RETRY`] it is less than five seconds.
pub(super) const LEASE_MS: i64 = 4_000;
/// Generations that are remembered: positions of older ones are told not to be recovered.
const MAX_GENERATIONS: usize = 1_000;

/// What this process holds.
pub(super) struct Held {
    pub(super) generation: i64,
    /// Transactions of the generation that have surely been committed. Those of a cluster are not counted.
    writes: i64,
}

/// Whether a lease could be taken.
pub(super) enum Taken {
    Held(Held),
    /// Other nodes hold it, too, and have begun its generation.
    Adopted(Held),
    /// Another process has it.
    ByAnother,
}

/// Whether a transaction may go on.
pub(super) enum Renewed {
    /// So many transactions of the generation there are with it; the time of day by the database's clock.
    Yes { writes: i64, now_ms: i64 },
    /// Another process has taken the lease, or the database has lost transactions.
    Lost,
}

impl Held {
    pub(super) fn of_cluster(generation: i64) -> Self {
        Self { generation, writes: 0 }
    }

    /// Renews the lease, as the first statement of a transaction. `clock_ms`: this process's clock, which is SQLite's, too.
    pub(super) async fn renew(
        &self,
        connection: &mut AnyConnection,
        kind: Kind,
        clock_ms: i64,
    ) -> sqlx::Result<Renewed> {
        let row = match kind {
            Kind::Sqlite | Kind::SqliteInMemory => {
                let sql = "UPDATE store SET writes = writes + 1 WHERE id = 1 AND generation = ? AND writes >= ? RETURNING writes";
                sqlx::query(sql).bind(self.generation).bind(self.writes).fetch_optional(connection).await?
            }
            Kind::Postgres => {
                let sql = "UPDATE store SET writes = writes + 1, ends_at = $3 + (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT \
                           WHERE id = 1 AND generation = $1 AND writes >= $2 \
                           RETURNING writes, (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT";
                let query = sqlx::query(sql).bind(self.generation).bind(self.writes).bind(LEASE_MS);
                query.fetch_optional(connection).await?
            }
        };
        let Some(row) = row else {
            return Ok(Renewed::Lost);
        };
        let now_ms = if kind == Kind::Postgres { row.try_get(1)? } else { clock_ms };
        Ok(Renewed::Yes { writes: row.try_get(0)?, now_ms })
    }

    /// The transaction that made it so many was committed.
    pub(super) fn committed(&mut self, writes: i64) {
        self.writes = writes;
    }
}

/// Takes the lease if it is free, or this process's. Within a transaction that [`begin_to_take`] has begun.
pub(super) async fn take(
    connection: &mut AnyConnection,
    kind: Kind,
    holder: &str,
    clock_ms: i64,
) -> sqlx::Result<Taken> {
    let Some(generation) = free_generation(connection, kind, holder).await? else {
        return Ok(Taken::ByAnother);
    };
    let mut generations = generations(connection).await?;
    let last = generations.last().map_or(0, |last| last.number);
    let generation = generation.max(last) + 1;
    let sql = match kind {
        Kind::Sqlite | Kind::SqliteInMemory => {
            "UPDATE store SET generation = $1, holder = $2, writes = 0, ends_at = $3 + $4 WHERE id = 1"
        }
        Kind::Postgres => {
            "UPDATE store SET generation = $1, holder = $2, writes = 0, \
             ends_at = $3 + (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT WHERE id = 1"
        }
    };
    let query = sqlx::query(sql).bind(generation).bind(holder).bind(LEASE_MS);
    let query = if kind == Kind::Postgres { query } else { query.bind(clock_ms) };
    query.execute(&mut *connection).await?;
    generations.push(Generation { number: generation, epoch: schema::new_epoch().into() });
    let forgotten = generations.len().saturating_sub(MAX_GENERATIONS);
    generations.drain(..forgotten);
    write_generations(connection, &generations).await?;
    Ok(Taken::Held(Held { generation, writes: 0 }))
}

/// The statement that begins a transaction that takes the lease: over PostgreSQL it waits for all that write to the store.
pub(super) fn begin_to_take(kind: Kind) -> &'static str {
    match kind {
        Kind::SqliteInMemory | Kind::Sqlite => "BEGIN IMMEDIATE",
        Kind::Postgres => "BEGIN; LOCK TABLE store IN EXCLUSIVE MODE",
    }
}

/// The last generation. `None`: another process holds the lease.
pub(super) async fn free_generation(
    connection: &mut AnyConnection,
    kind: Kind,
    holder: &str,
) -> sqlx::Result<Option<i64>> {
    let row = match kind {
        // Its file is locked.
        Kind::Sqlite | Kind::SqliteInMemory => {
            sqlx::query("SELECT generation, 1 FROM store WHERE id = 1").fetch_one(connection).await?
        }
        Kind::Postgres => {
            let sql = "SELECT generation, CASE WHEN holder IN ('', $1) \
                       OR ends_at <= (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT THEN 1::BIGINT ELSE 0::BIGINT END \
                       FROM store WHERE id = 1";
            sqlx::query(sql).bind(holder).fetch_one(connection).await?
        }
    };
    let is_free = row.try_get::<i64, _>(1)? != 0;
    Ok(if is_free { Some(row.try_get(0)?) } else { None })
}

/// Gives the lease back, so that the next process need not wait for its end.
pub(super) async fn give_back(connection: &mut AnyConnection, held: &Held) -> sqlx::Result<()> {
    let sql = "UPDATE store SET holder = '', ends_at = 0 WHERE id = 1 AND generation = $1";
    sqlx::query(sql).bind(held.generation).execute(connection).await.map(|_| ())
}

/// All generations that are known, the last one last.
pub(super) async fn generations(connection: &mut AnyConnection) -> sqlx::Result<Vec<Generation>> {
    let rows = sqlx::query("SELECT epoch FROM store WHERE id IN (1, 2) ORDER BY id").fetch_all(connection).await?;
    let texts: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?;
    let mut texts = texts.into_iter();
    let first = texts.next().map(|epoch| Generation { number: 0, epoch: epoch.into() });
    let later = texts.next().unwrap_or_default();
    let generation = |text: &str| {
        let (number, epoch) = text.split_once(':')?;
        Some(Generation { number: number.parse().ok()?, epoch: epoch.into() })
    };
    Ok(first.into_iter().chain(later.split(' ').filter_map(generation)).collect())
}

/// Keeps them as a text in a row of their own, but for the first one, which versions without generations know.
async fn write_generations(connection: &mut AnyConnection, generations: &[Generation]) -> sqlx::Result<()> {
    let text = |generation: &Generation| format!("{}:{}", generation.number, generation.epoch);
    let texts: Vec<_> = generations.iter().filter(|generation| generation.number > 0).map(text).collect();
    let sql = "INSERT INTO store (id, epoch) VALUES (2, $1) ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch";
    sqlx::query(sql).bind(texts.join(" ")).execute(connection).await.map(|_| ())
}

/// Forgets all epochs that were ever given out: devices that come back are told that they may have missed something.
pub(super) async fn forget_generations(connection: &mut AnyConnection) -> sqlx::Result<()> {
    write_generations(connection, &[]).await?;
    let sql = "UPDATE store SET epoch = $1 WHERE id = 1";
    sqlx::query(sql).bind(schema::new_epoch()).execute(connection).await.map(|_| ())
}
