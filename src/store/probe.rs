//! Whether there is room on the disk again: what could not be written is written twice over, and taken away.

use sqlx::{AnyConnection, Executor};

use super::rows::statement;

/// What is written besides twice what there was no room for.
const BYTES: usize = 64 << 10;
const MAX_BYTES: usize = 4 << 20;

/// What to write if there was no room for so many bytes.
pub(super) fn size(unwritten: usize) -> usize {
    (unwritten * 2 + BYTES).min(MAX_BYTES)
}

/// Writes so much into a table that is dropped then. What can be compressed would need no room.
pub(super) async fn insert(connection: &mut AnyConnection, bytes: usize) -> sqlx::Result<()> {
    connection.execute("DROP TABLE IF EXISTS probe").await?;
    let sql = if connection.backend_name() == "SQLite" {
        format!("CREATE TABLE probe AS SELECT RANDOMBLOB({bytes}) AS payload")
    } else {
        format!(
            "CREATE TABLE probe AS SELECT STRING_AGG(SHA256(n::TEXT::BYTEA), '') AS payload FROM GENERATE_SERIES(1, {}) n",
            bytes / 32
        )
    };
    statement(sql).execute(connection).await.map(|_| ())
}

pub(super) async fn remove(connection: &mut AnyConnection) -> sqlx::Result<()> {
    connection.execute("DROP TABLE probe").await.map(|_| ())
}
