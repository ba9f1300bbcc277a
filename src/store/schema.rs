//! The tables. There are two sequences of migrations:
//!
//! - `migrations/{sqlite,postgres}`, recorded in `_sqlx_migrations`. An older version of Bugle refuses a database that has more of these.
//! - `migrations/additions/{sqlite,postgres}`, recorded in `_bugle_additions`: new tables, and new columns with defaults. An older version runs on a
//!   database that has more of these, so that an upgrade can be rolled back.

use std::borrow::Cow;

use sqlx::{AnyConnection, migrate::Migrator};
use uuid::Uuid;

static SQLITE: Migrator = sqlx::migrate!("src/store/migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("src/store/migrations/postgres");
static SQLITE_ADDITIONS: Migrator = sqlx::migrate!("src/store/migrations/additions/sqlite");
static POSTGRES_ADDITIONS: Migrator = sqlx::migrate!("src/store/migrations/additions/postgres");

/// Where applied additions are recorded.
const ADDITIONS: &str = "_bugle_additions";

/// Brings the tables up to date. Refused if a newer version of Bugle has changed them in a way that this one does not know.
pub(super) async fn migrate(connection: &mut AnyConnection) -> sqlx::Result<()> {
    let is_sqlite = connection.backend_name() == "SQLite";
    let (base, additions) = if is_sqlite { (&SQLITE, &SQLITE_ADDITIONS) } else { (&POSTGRES, &POSTGRES_ADDITIONS) };
    let additions = Migrator {
        migrations: Cow::Borrowed(&additions.migrations),
        table_name: Cow::Borrowed(ADDITIONS),
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    for migrator in [base, &additions] {
        migrator.run_direct(None, connection, false).await.map_err(|error| sqlx::Error::Migrate(error.into()))?;
    }
    // Positions of before generations carry it.
    let epoch = Uuid::new_v4().simple().to_string();
    let sql = "INSERT INTO store (id, epoch) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";
    sqlx::query(sql).bind(&epoch[..16]).execute(connection).await.map(|_| ())
}
