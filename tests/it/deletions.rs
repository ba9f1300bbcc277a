//! Deletions that the writer makes together, over each database, and those that several nodes make at the same time.

use std::time::Duration;

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::MessageId;
use bugle::store::{Config, Error, Sharing, Status, Store};
use futures_util::future::{BoxFuture, join, join_all};

use crate::harness::{
    OpenTransaction, SlowProxy, count, deadline, execute, new_database, no_connections, waits_for_lock,
};
use crate::store::{Kind, kinds, message, open_for, position, room, texts, wait_for};

/// Opens a store that does not trim its mailboxes during a test.
async fn open(kind: &Kind, sharing: Sharing) -> Store {
    let config = Config { max_messages: 100_000, ..kind.config() };
    let store = Store::open(&config, sharing, Clock::system(), &Lifecycle::new()).expect("the store opens");
    wait_for(&store, Status::Serving).await;
    store
}

/// Stores messages in a mailbox. Returns their ids.
async fn fill(store: &Store, name: &str, count: usize) -> Vec<MessageId> {
    let messages: Vec<_> = (0..count).map(|n| message(name, &n.to_string())).collect();
    let ids = messages.iter().map(|message| message.id).collect();
    deadline("the appends", store.append(messages)).await.expect("they are kept");
    ids
}

#[tokio::test]
async fn deletions_of_one_room_and_of_others_that_wait_together_are_all_made() {
    for kind in kinds() {
        let store = open_for(&kind, &Clock::system(), 10_000);
        let all = fill(&store, "many", 2_500).await;
        let (many, few, empty) = (room("many"), room("few"), room("empty"));
        let ids = [all[2_480], all[2_490]];
        position(&store, message("few", "1")).await;
        let deletions = join_all([
            Box::pin(store.delete_to(&many, 100)) as BoxFuture<_>,
            Box::pin(store.delete(&many, &ids)),
            Box::pin(store.delete(&many, &ids[1..])),
            Box::pin(store.delete_to(&few, 10)),
            Box::pin(store.delete_to(&many, 2_400)),
            Box::pin(store.delete_to(&empty, 10)),
        ]);
        let deleted: Vec<_> = deadline("the deletions", deletions)
            .await
            .into_iter()
            .map(|deleted| deleted.expect("it is made"))
            .collect();
        assert_eq!(deleted, [100, 2, 0, 1, 2_300, 0], "{}", kind.url);
        assert_eq!(texts(&store, "many", 0).await.len(), 98);
    }
}

#[tokio::test]
async fn a_deletion_up_to_a_position_leaves_nothing_though_another_node_deletes_some_of_it_meanwhile() {
    let kind = Kind::of(new_database());
    let store = open(&kind, Sharing::Cluster).await;
    // More than one transaction deletes.
    fill(&store, "many", 4_500).await;
    let other = OpenTransaction::begin(&kind.url, "DELETE FROM messages WHERE position <= 1000");
    let many = room("many");
    let (deleted, ()) = join(store.delete_to(&many, 4_400), async {
        waits_for_lock(&kind.url).await;
        other.commit();
    })
    .await;
    assert_eq!(deleted.expect("it is made"), 3_400);
    assert_eq!(texts(&store, "many", 0).await.len(), 100);
}

#[tokio::test]
async fn a_deletion_by_ids_does_not_count_what_another_node_deletes_meanwhile() {
    let kind = Kind::of(new_database());
    let store = open(&kind, Sharing::Cluster).await;
    let ids = fill(&store, "many", 100).await;
    let other = OpenTransaction::begin(&kind.url, "DELETE FROM messages WHERE position <= 30");
    let many = room("many");
    let (deleted, ()) = join(store.delete(&many, &ids[..80]), async {
        waits_for_lock(&kind.url).await;
        other.commit();
    })
    .await;
    assert_eq!(deleted.expect("it is made"), 50);
    assert_eq!(texts(&store, "many", 0).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_delete_the_same_messages_count_each_once_and_do_not_deadlock() {
    let kind = Kind::of(new_database());
    let nodes = [open(&kind, Sharing::Cluster).await, open(&kind, Sharing::Cluster).await];
    let names: Vec<_> = (0..8).map(|n| format!("team:{n}")).collect();
    for _ in 0..5 {
        let filled = join_all(names.iter().map(|name| fill(&nodes[0], name, 300))).await;
        let deletions = (0..16_usize).map(|n| {
            // The second node takes mailboxes and messages in the opposite order.
            let (store, at) = (&nodes[n % 2], if n % 2 == 0 { n / 2 } else { 7 - n / 2 });
            let (mailbox, mut ids) = (room(&names[at]), filled[at].clone());
            if n % 2 == 1 {
                ids.reverse();
            }
            async move {
                let by_id = store.delete(&mailbox, &ids[..200]);
                let (by_id, up_to) = join(by_id, store.delete_to(&mailbox, i64::MAX.cast_unsigned())).await;
                let left = texts(store, mailbox.as_str(), 0).await;
                assert!(left.is_empty(), "{} are left of {}", left.len(), mailbox.as_str());
                by_id.expect("it is made") + up_to.expect("it is made")
            }
        });
        let deleted = deadline("the deletions", join_all(deletions)).await;
        assert_eq!(deleted.iter().sum::<u64>(), 8 * 300, "{deleted:?}");
    }
    nodes.iter().for_each(Store::close);
    no_connections(&kind.url).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = CURRENT_DATABASE()";
    assert_eq!(count(&kind.url, deadlocks), 0);
}

#[tokio::test]
async fn deletions_that_wait_are_not_written_in_one_transaction_if_they_name_too_many_ids() {
    const DELETIONS: usize = 20;
    let proxy = SlowProxy::start(&new_database(), Duration::ZERO).await;
    let store = open(&Kind::of(proxy.url().to_owned()), Sharing::Cluster).await;
    let ids = fill(&store, "many", DELETIONS * 500).await;
    proxy.take_transactions();
    let many = room("many");
    let deletions = join_all(ids.chunks(500).map(|own| store.delete(&many, own)));
    let deleted = deadline("the deletions", deletions).await;
    assert!(deleted.iter().all(|deleted| matches!(deleted, Ok(500))), "{deleted:?}");
    let firsts: Vec<_> = ids.iter().step_by(500).map(MessageId::to_string).collect();
    let of_one = proxy.take_transactions().into_iter();
    let of_one = of_one.map(|transaction| firsts.iter().filter(|id| transaction.has(id)).count()).filter(|n| *n > 0);
    let of_one: Vec<_> = of_one.collect();
    assert_eq!(of_one.iter().sum::<usize>(), DELETIONS);
    assert!(of_one.iter().all(|count| *count <= 8) && of_one.contains(&8), "{of_one:?} deletions in a transaction");
}

#[tokio::test]
async fn of_deletions_that_wait_together_one_of_damaged_data_fails_alone() {
    for sharing in [Sharing::Single, Sharing::Cluster] {
        let kind = Kind::of(new_database());
        let store = open(&kind, sharing).await;
        let names: Vec<_> = (0..10).map(|n| format!("team:{n}")).collect();
        let filled = join_all(names.iter().map(|name| fill(&store, name, 4))).await;
        execute(
            &kind.url,
            "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'damaged' USING ERRCODE = 'XX001'; END $$; \
             CREATE TRIGGER damaged BEFORE DELETE ON messages FOR EACH ROW WHEN (OLD.room = 'team:5') EXECUTE FUNCTION damage()",
        );
        let rooms: Vec<_> = names.iter().map(|name| room(name)).collect();
        let by_id = rooms.iter().zip(&filled).map(|(room, ids)| store.delete(room, &ids[2..]));
        let up_to = rooms.iter().map(|room| store.delete_to(room, 2));
        let (by_id, up_to) = deadline("the deletions", join(join_all(by_id), join_all(up_to))).await;
        for deleted in [by_id, up_to] {
            for (n, deleted) in deleted.iter().enumerate() {
                let is_expected =
                    if n == 5 { matches!(deleted, Err(Error::Damaged(_))) } else { matches!(deleted, Ok(2)) };
                assert!(is_expected, "{sharing:?}: {n}: {deleted:?}");
            }
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(texts(&store, name, 0).await.len(), if n == 5 { 4 } else { 0 });
        }
    }
}

#[tokio::test]
async fn deletions_do_not_read_the_whole_table() {
    let kind = Kind::of(new_database());
    let first = open(&kind, Sharing::Cluster).await;
    position(&first, message("other", "1")).await;
    first.close();
    no_connections(&kind.url).await;
    // One mailbox has half of all messages. No node sweeps meanwhile, which may read all.
    execute(
        &kind.url,
        "INSERT INTO messages (room, position, message_id, event, kind, except_users, stored_at, expires_at, payload, generation) \
         SELECT CASE WHEN n % 2 = 0 THEN 'big' ELSE 'user:' || n % 999 END, n, n, event, kind, except_users, stored_at, expires_at, \
         payload, generation FROM messages, GENERATE_SERIES(2, 100000) AS n; \
         UPDATE store SET swept_at = (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT + 59000, behind_ms = 0",
    );
    execute(&kind.url, "ANALYZE");
    execute(&kind.url, "SELECT pg_stat_reset()");
    let store = open(&kind, Sharing::Cluster).await;
    // PostgreSQL plans a statement for all values after it was executed five times.
    for n in 0..8 {
        let ids: Vec<_> = (0..2).map(|_| message("big", "1").id).collect();
        for name in ["big", "user:7"] {
            assert_eq!(store.delete(&room(name), &ids[n % 2..]).await.unwrap(), 0);
        }
        let (big, user) = (room("big"), room("user:7"));
        let deleted = join(store.delete_to(&big, n as u64 * 10_000), store.delete_to(&user, n as u64 * 10_000)).await;
        assert!(matches!(deleted, (Ok(big), Ok(_)) if big == if n == 0 { 0 } else { 5_000 }), "{deleted:?}");
    }
    store.close();
    no_connections(&kind.url).await;
    let scans = |kind_of_scan: &str| {
        count(&kind.url, &format!("SELECT {kind_of_scan} FROM pg_stat_user_tables WHERE relname = 'messages'"))
    };
    assert_eq!((scans("seq_scan"), scans("idx_scan") > 0), (0, true));
}
