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
const ADDITIONS: [&[&str]; 4] = [
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
    &[
        // The machine that has swept the store the last time, and its uptime then, see `steady_clock.rs`.
        "ALTER TABLE store ADD COLUMN swept_boot TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE store ADD COLUMN swept_uptime_ms BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE store ADD COLUMN since_jump_ms BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE store ADD COLUMN deleted_by_jump BIGINT NOT NULL DEFAULT 0",
    ],
];
/// A table and a column of each addition.
const ADDED: [(&str, &str); ADDITIONS.len()] =
    [("store", "version"), ("store", "instance"), ("first_resumes", "user_id"), ("store", "swept_boot")];
const EPOCH_LENGTH: usize = 16;

/// The tables as they were found.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    /// All migrations are recorded, and no others.
    are_migrated: bool,
    /// How many additions there are.
    version: usize,
}

impl Tables {
    /// Whether they have a lease.
    pub(super) fn have_lease(self) -> bool {
        self.version > 0
    }

    /// Whether nothing is to be changed.
    pub(super) fn are_current(self) -> bool {
        self.are_migrated && self.version >= ADDITIONS.len()
    }
}

/// Looks at the tables, in two round trips: a database may be far away.
pub(super) async fn look(connection: &mut AnyConnection) -> sqlx::Result<Tables> {
    let version = version(connection).await?;
    // The version is in a table that the first migration has made.
    let are_migrated = version > 0 && migrations(connection).await? == recorded(migrator(connection));
    Ok(Tables { are_migrated, version })
}

/// Makes the tables that migrations make. Refused if a newer version of Bugle has changed them in a way that this one does not know.
pub(super) async fn migrate(connection: &mut AnyConnection) -> sqlx::Result<()> {
    let migrator = migrator(connection);
    migrator.run_direct(None, connection, false).await.map_err(|error| sqlx::Error::Migrate(error.into()))
}

/// Adds what is missing then, in few round trips.
pub(super) async fn add(connection: &mut AnyConnection) -> sqlx::Result<()> {
    let begin = if is_sqlite(connection) { "BEGIN IMMEDIATE" } else { "BEGIN; LOCK TABLE store" };
    let mut transaction = connection.begin_with(begin).await?;
    // Another process may have added it meanwhile.
    let version = match version(&mut transaction).await? {
        // Its row may have been deleted.
        0 => added(&mut transaction).await?,
        version => version,
    };
    // Positions of before generations carry this epoch.
    let mut script =
        vec![format!("INSERT INTO store (id, epoch) VALUES (1, '{}') ON CONFLICT (id) DO NOTHING", new_epoch())];
    script.extend(ADDITIONS.into_iter().skip(version).flatten().map(ToString::to_string));
    script.push(format!("UPDATE store SET version = {} WHERE id = 1", ADDITIONS.len().max(version)));
    sqlx::raw_sql(sqlx::AssertSqlSafe(script.join("; "))).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Whether there are tables of Bugle's: an empty database in the place of one that had some is none to be used.
pub(super) async fn has_tables(connection: &mut AnyConnection) -> sqlx::Result<bool> {
    if !is_sqlite(connection) {
        return Ok(true);
    }
    let sql = "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'store'";
    Ok(sqlx::query(sql).fetch_one(connection).await?.try_get::<i64, _>(0)? > 0)
}

/// An epoch that no store has had.
pub(super) fn new_epoch() -> String {
    Uuid::new_v4().simple().to_string()[..EPOCH_LENGTH].to_owned()
}

/// How many additions the row of the store has counted. 0: there may be no tables, or the row was deleted.
async fn version(connection: &mut AnyConnection) -> sqlx::Result<usize> {
    if !has_column(connection, "store", "version").await? {
        return Ok(0);
    }
    let row = sqlx::raw_sql("SELECT version FROM store WHERE id = 1").fetch_optional(connection).await?;
    let version = row.map_or(Ok(0), |row| row.try_get::<i64, _>(0))?;
    Ok(usize::try_from(version).unwrap_or_default())
}

/// How many additions the tables show. The changes of an addition are committed together: one column stands for them.
async fn added(connection: &mut AnyConnection) -> sqlx::Result<usize> {
    for (version, (table, column)) in ADDED.into_iter().enumerate() {
        if !has_column(connection, table, column).await? {
            return Ok(version);
        }
    }
    Ok(ADDED.len())
}

async fn has_column(connection: &mut AnyConnection, table: &str, column: &str) -> sqlx::Result<bool> {
    let sql = if is_sqlite(connection) {
        format!("SELECT COUNT(*) FROM PRAGMA_TABLE_INFO('{table}') WHERE name = '{column}'")
    } else {
        format!(
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = '{table}' AND column_name = '{column}' \
             AND table_schema = ANY(CURRENT_SCHEMAS(FALSE))"
        )
    };
    // Without parameters a statement is not prepared, which would be a round trip.
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)? > 0)
}

/// The migrations that the database has recorded, as [`recorded`] writes them.
async fn migrations(connection: &mut AnyConnection) -> sqlx::Result<Vec<String>> {
    let row = if is_sqlite(connection) {
        "SELECT version || ':' || LOWER(HEX(checksum)) FROM _sqlx_migrations WHERE success ORDER BY version"
    } else {
        "SELECT version || ':' || ENCODE(checksum, 'hex') FROM _sqlx_migrations WHERE success ORDER BY version"
    };
    let rows = sqlx::raw_sql(row).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// What the database records of these migrations.
fn recorded(migrator: &Migrator) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    migrator.iter().map(|migration| format!("{}:{}", migration.version, hex(&migration.checksum))).collect()
}

fn migrator(connection: &AnyConnection) -> &'static Migrator {
    if is_sqlite(connection) { &SQLITE } else { &POSTGRES }
}

fn is_sqlite(connection: &AnyConnection) -> bool {
    connection.backend_name() == "SQLite"
}
