use sqlx::{AnyConnection, Connection, Row};

use super::super::rows::is_sqlite;

/// The tables. Times are milliseconds since 1970.
pub(super) const TABLES: [&str; 14] = [
    "CREATE TABLE IF NOT EXISTS direct_messages (id TEXT NOT NULL PRIMARY KEY, sender_id TEXT NOT NULL, receiver_id TEXT NOT NULL, \
     content TEXT NOT NULL, transaction_id TEXT, listing_id TEXT, is_read BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)",
    // A conversation is two ranges of this index, one for each direction.
    "CREATE INDEX IF NOT EXISTS direct_messages_by_sides ON direct_messages (sender_id, receiver_id, created_at)",
    "CREATE INDEX IF NOT EXISTS direct_messages_unread ON direct_messages (receiver_id, sender_id, created_at) WHERE is_read = 0",
    "CREATE INDEX IF NOT EXISTS direct_messages_by_age ON direct_messages (created_at)",
    "CREATE INDEX IF NOT EXISTS direct_messages_sent_in_transaction ON direct_messages (sender_id, transaction_id, created_at, id) \
     WHERE transaction_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS direct_messages_got_in_transaction ON direct_messages (receiver_id, transaction_id, created_at, id) \
     WHERE transaction_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS direct_messages_sent_in_listing ON direct_messages (sender_id, listing_id, created_at, id) \
     WHERE listing_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS direct_messages_got_in_listing ON direct_messages (receiver_id, listing_id, created_at, id) \
     WHERE listing_id IS NOT NULL",
    // What one side sees of a conversation: the last message, how many there are, and how many of them that side has not read.
    "CREATE TABLE IF NOT EXISTS conversations (user_id TEXT NOT NULL, peer_id TEXT NOT NULL, last_at BIGINT NOT NULL, last_id TEXT NOT NULL, \
     total BIGINT NOT NULL, unread BIGINT NOT NULL, PRIMARY KEY (user_id, peer_id))",
    "CREATE INDEX IF NOT EXISTS conversations_by_time ON conversations (user_id, last_at, peer_id)",
    "CREATE INDEX IF NOT EXISTS conversations_full ON conversations (total) WHERE total > 1000",
    // Whether a user has blocked another one, and until when a backend allows the two a conversation.
    "CREATE TABLE IF NOT EXISTS conversation_rules (user_id TEXT NOT NULL, peer_id TEXT NOT NULL, blocked BIGINT NOT NULL DEFAULT 0, \
     granted_until BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (user_id, peer_id))",
    "CREATE INDEX IF NOT EXISTS conversation_rules_by_end ON conversation_rules (granted_until) WHERE granted_until > 0",
    "CREATE INDEX IF NOT EXISTS conversation_rules_by_peer ON conversation_rules (peer_id)",
];

/// Makes the tables, unless they are there.
pub(in crate::store) async fn ensure(connection: &mut AnyConnection) -> sqlx::Result<()> {
    if are_there(connection).await? {
        return Ok(());
    }
    // Nodes that start at one time would make the same table.
    let begin = if is_sqlite(connection) { "BEGIN IMMEDIATE" } else { "BEGIN; LOCK TABLE store" };
    let mut transaction = connection.begin_with(begin).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(TABLES.join("; "))).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Whether the last one is: all are made in one transaction.
async fn are_there(connection: &mut AnyConnection) -> sqlx::Result<bool> {
    let sql = if is_sqlite(connection) {
        "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'conversation_rules'"
    } else {
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'conversation_rules' AND table_schema = ANY(CURRENT_SCHEMAS(FALSE))"
    };
    Ok(sqlx::raw_sql(sql).fetch_one(connection).await?.try_get::<i64, _>(0)? > 0)
}
