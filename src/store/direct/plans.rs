//! How SQLite executes the statements about direct messages. `tests/it` asks PostgreSQL.

use sqlx::{AnyConnection, Connection, Row, any::install_default_drivers};

use super::{
    deletion::ends_sql,
    read::{Of, UNREAD, conversations_sql, list_sql},
    reading::READ_CONVERSATION,
    retention::{DELETE_OLD, full_sql},
    tables::TABLES,
};
use crate::message::UserId;

/// The steps of a statement's plan.
async fn plan(connection: &mut AnyConnection, sql: &str) -> Vec<String> {
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(explain).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[tokio::test]
async fn no_statement_reads_a_whole_table_or_sorts_one() {
    install_default_drivers();
    let mut connection = AnyConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(TABLES.join("; "))).execute(&mut connection).await.unwrap();
    let peer = UserId::new("bob").unwrap();
    let statements = [
        list_sql(&Of::Peer(peer)),
        list_sql(&Of::Transaction("1".into())),
        list_sql(&Of::Listing("1".into())),
        conversations_sql(),
        UNREAD.to_owned(),
        READ_CONVERSATION.to_owned(),
        DELETE_OLD.to_owned(),
        full_sql(100_000),
        ends_sql("created_at"),
        ends_sql("created_at DESC"),
    ];
    for sql in statements {
        let plan = plan(&mut connection, &sql).await;
        // The two ranges of a list, which are as long as a page, are put together and sorted.
        let is_of_page = |step: &str| step.contains("one_way") || step.contains("both_ways");
        let scans = plan.iter().filter(|step| step.starts_with("SCAN") && !is_of_page(step));
        assert_eq!(scans.collect::<Vec<_>>(), [""; 0], "{sql}: {plan:#?}");
        let searches = plan.iter().filter(|step| step.starts_with("SEARCH"));
        assert!(searches.clone().count() > 0, "{sql}: {plan:#?}");
        assert!(searches.into_iter().all(|step| step.contains("INDEX")), "{sql}: {plan:#?}");
    }
}
