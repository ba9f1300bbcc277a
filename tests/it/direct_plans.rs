//! How PostgreSQL finds direct messages among a million.

use bugle::clock::Clock;
use bugle::store::{Before, DirectPage, Of, Sharing, Store};

use crate::direct_store::{ALL, open, send, user};
use crate::harness::{count, execute, new_database, no_connections};
use crate::store::Kind;

/// A million messages among a thousand users, and conversations of 300 of them. It is quicker without the indexes, which are made anew then.
const FILL: &str = "DO $$ DECLARE made TEXT; dropped TEXT; start BIGINT := EXTRACT(EPOCH FROM NOW())::BIGINT * 1000 - 1000000; BEGIN \
    SELECT STRING_AGG(indexdef, '; '), STRING_AGG(indexname, ', ') INTO made, dropped FROM pg_indexes \
    WHERE tablename = 'direct_messages' AND indexname <> 'direct_messages_pkey'; \
    EXECUTE 'DROP INDEX ' || dropped; \
    INSERT INTO direct_messages SELECT LPAD(TO_HEX(n), 8, '0') || '-0000-7000-8000-000000000000', 'u' || n % 1000, 'u' || (n / 1000) % 1000, 'x', \
    CASE WHEN n % 3 = 0 THEN 't' || n % 5000 END, CASE WHEN n % 4 = 0 THEN 'l' || n % 5000 END, n % 2, start + n, start + n \
    FROM GENERATE_SERIES(1, 1000000) AS n; \
    INSERT INTO conversations SELECT 'u' || a, 'u' || b, start + a * 1000 + b, LPAD(TO_HEX(a * 1000 + b), 8, '0') || '-0000-7000-8000-000000000000', 1, 1 \
    FROM GENERATE_SERIES(1, 300) AS a, GENERATE_SERIES(1, 300) AS b ON CONFLICT DO NOTHING; \
    EXECUTE made; END $$";
const SCANS: &str = "SELECT COALESCE(SUM(seq_scan), 0)::BIGINT FROM pg_stat_user_tables WHERE relname IN ('direct_messages', 'conversations')";

#[tokio::test]
async fn lists_of_a_million_messages_read_no_table_from_its_beginning() {
    let url = new_database();
    let kind = Kind::of(url.clone());
    let open = || open(&kind, &Clock::system(), Sharing::Single, 1_000_000);
    // What a connection has counted is there once it has ended. The tables are small meanwhile, and are read whole.
    let close = async |store: Store| {
        store.close();
        no_connections(&url).await;
    };
    let store = open();
    let message = send(&store, "u1", "u2", "x").await;
    close(store).await;
    execute(&url, FILL);
    execute(&url, "ANALYZE direct_messages");
    execute(&url, "ANALYZE conversations");
    let before = count(&url, SCANS);
    let (store, one) = (open(), user("u1"));
    let far = DirectPage { limit: 50, offset: 100, before: Before::Time(i64::MAX) };
    for of in [Of::Peer(user("u2")), Of::Transaction("t3".into()), Of::Listing("l4".into())] {
        for page in [ALL, far, DirectPage { before: Before::Message(message.id), ..ALL }] {
            store.direct_messages(&one, &of, page).await.unwrap();
        }
    }
    store.conversations(&one, 50, Before::Now).await.unwrap();
    store.conversations(&one, 50, Before::Message(message.id)).await.unwrap();
    store.count_unread_direct(&one).await.unwrap();
    store.read_conversation(&one, &user("u2")).await.unwrap();
    store.read_direct(&user("u2"), &[message.id]).await.unwrap();
    store.delete_direct(message.id).await.unwrap();
    store.sweep().await.unwrap();
    close(store).await;
    assert_eq!(count(&url, SCANS), before, "a statement reads a table from its beginning");
}
