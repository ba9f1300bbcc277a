//! The tables. There are two sequences of changes:
//!
//! - `migrations/{sqlite,postgres}`, recorded in `_sqlx_migrations`. An older version of Bugle refuses a database that has more of these.
//! - [`ADDITIONS`], counted in `store.version`: columns with defaults, and tables that an older version does without. It runs on a database that
//!   has more of these, so that an upgrade can be rolled back.

use sqlx::{AnyConnection, Connection, Row, migrate::Migrator};
use uuid::Uuid;

static SQLITE: Migrator = sqlx::migrate!("src/store/migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("src/store/migrations/postgres");

/// What each version adds, for both databases.
const ADDITIONS: [&[&str]; 3] = [
    &[
        "ALTER TABLE store ADD COLUMN version BIGINT NOT NULL DEFAULT 0",
        // The lease, see `lease.rs`.
        "ALTER TABLE store ADD COLUMN generation BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE store ADD COLUMN holder TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE store ADD COLUMN writes BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE store ADD COLUMN ends_at BIGINT NOT NULL DEFAULT 0",
        // How far retention has followed the time of day, see `steady_clock.rs`.
        "ALTER TABLE store ADD COLUMN swept_at BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE store ADD COLUMN behind_ms BIGINT NOT NULL DEFAULT 0",
        // The generation that stored the message. 0: a version of Bugle that had none.
        "ALTER TABLE messages ADD COLUMN generation BIGINT NOT NULL DEFAULT 0",
    ],
    // Whose generation it is, if nodes share it, see `shared_lease.rs`.
    &["ALTER TABLE store ADD COLUMN instance TEXT NOT NULL DEFAULT ''"],
    &[
        // Where devices of a user begin that resume for the first time, until it expires, see `watermarks/first_resumes.rs`.
        "CREATE TABLE first_resumes (user_id TEXT NOT NULL PRIMARY KEY, begins_after BIGINT NOT NULL, expires_at BIGINT NOT NULL)",
        "CREATE INDEX first_resumes_by_end ON first_resumes (expires_at)",
    ],
];
const EPOCH_LENGTH: usize = 16;

/// Brings the tables up to date. Refused if a newer version of Bugle has changed them in a way that this one does not know.
pub(super) async fn migrate(connection: &mut AnyConnection) -> sqlx::Result<()> {
    let migrator = if is_sqlite(connection) { &SQLITE } else { &POSTGRES };
    migrator.run_direct(None, connection, false).await.map_err(|error| sqlx::Error::Migrate(error.into()))?;
    // Positions of before generations carry it.
    let sql = "INSERT INTO store (id, epoch) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";
    sqlx::query(sql).bind(new_epoch()).execute(&mut *connection).await?;
    if version(connection).await? < ADDITIONS.len() {
        add(connection).await?;
    }
    Ok(())
}

/// Whether there are tables of Bugle's: an empty database in the place of one that had some is none to be used.
pub(super) async fn has_tables(connection: &mut AnyConnection) -> sqlx::Result<bool> {
    if !is_sqlite(connection) {
        return Ok(true);
    }
    let sql = "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'store'";
    Ok(sqlx::query(sql).fetch_one(connection).await?.try_get::<i64, _>(0)? > 0)
}

/// Whether the tables have a lease.
pub(super) async fn has_lease(connection: &mut AnyConnection) -> sqlx::Result<bool> {
    Ok(version(connection).await? > 0)
}

/// An epoch that no store has had.
pub(super) fn new_epoch() -> String {
    Uuid::new_v4().simple().to_string()[..EPOCH_LENGTH].to_owned()
}

async fn add(connection: &mut AnyConnection) -> sqlx::Result<()> {
    let begin = if is_sqlite(connection) { "BEGIN IMMEDIATE" } else { "BEGIN; LOCK TABLE store" };
    let mut transaction = connection.begin_with(begin).await?;
    // Another process may have added them meanwhile.
    let version = version(&mut transaction).await?;
    for addition in ADDITIONS.into_iter().skip(version) {
        for statement in addition {
            sqlx::query(*statement).execute(&mut *transaction).await?;
        }
    }
    let version = i64::try_from(ADDITIONS.len().max(version)).unwrap_or(i64::MAX);
    sqlx::query("UPDATE store SET version = $1 WHERE id = 1").bind(version).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// How many additions there are.
async fn version(connection: &mut AnyConnection) -> sqlx::Result<usize> {
    let columns = if is_sqlite(connection) {
        "SELECT COUNT(*) FROM PRAGMA_TABLE_INFO('store') WHERE name = 'version'"
    } else {
        "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 'store' AND column_name = 'version' \
         AND table_schema = ANY(CURRENT_SCHEMAS(FALSE))"
    };
    if sqlx::query(columns).fetch_one(&mut *connection).await?.try_get::<i64, _>(0)? == 0 {
        return Ok(0);
    }
    let row = sqlx::query("SELECT version FROM store WHERE id = 1").fetch_one(connection).await?;
    Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default())
}

fn is_sqlite(connection: &AnyConnection) -> bool {
    connection.backend_name() == "SQLite"
}
