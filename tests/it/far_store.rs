//! A PostgreSQL that the nodes of a cluster share and that is far away: round trips are counted.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::{Payload, UserId};
use bugle::store::{Appended, NewMessage, Status, Store, Which};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::harness::{SlowProxy, deadline, new_database};
use crate::shared_store::{Node, keyed};
use crate::store::{Kind, message, open_with, position, room, wait_for};

/// Of each direction.
const DELAY: Duration = Duration::from_millis(5);
const EMITTERS: usize = 8;

async fn start(delay: Duration) -> (Node, SlowProxy) {
    let proxy = SlowProxy::start(&new_database(), delay).await;
    (Node::open(&Kind::of(proxy.url().to_owned())).await, proxy)
}

/// Appends messages together. Returns the round trips of their transaction.
async fn round_trips(node: &Node, proxy: &SlowProxy, messages: Vec<NewMessage>) -> usize {
    let id = messages[0].id.to_string();
    let appended = deadline("the appends", node.store.append(messages)).await.expect("they are kept");
    assert!(appended.iter().all(|appended| matches!(appended, Appended::New { .. })), "{appended:?}");
    let transactions = proxy.take_transactions().into_iter().filter(|transaction| transaction.has(&id));
    transactions.map(|transaction| transaction.round_trips).sum()
}

#[tokio::test]
async fn the_round_trips_of_a_transaction_of_emits_do_not_depend_on_their_number() {
    let (node, proxy) = start(Duration::ZERO).await;
    let name = |n: usize| format!("user:{}", n % 40);
    let plain = |count: usize| (0..count).map(|n| message(&name(n), "1")).collect::<Vec<_>>();
    let with_keys = |count: usize| (0..count).map(|n| keyed(&name(n), &Uuid::new_v4().to_string())).collect::<Vec<_>>();
    // The statements are prepared, which takes a round trip for each.
    for count in [1, 2] {
        round_trips(&node, &proxy, with_keys(count)).await;
    }
    for count in [1, 3, 100] {
        assert_eq!(round_trips(&node, &proxy, plain(count)).await, 4, "begin, positions, messages, commit");
        assert_eq!(round_trips(&node, &proxy, with_keys(count)).await, 6, "also what is known, and keys");
    }
}

#[tokio::test]
async fn what_a_message_consists_of_is_stored_to_the_letter() {
    let (node, _proxy) = start(Duration::ZERO).await;
    let odd = [r#"{"a\\\"":"{,}"}"#, r#""\"""#, "\"NULL\"", "\"\u{1f600}\"", r#"["\\x41", ""]"#];
    let messages: Vec<_> = odd.iter().map(|json| keyed(r#"team:{"a,\b"}"#, json)).collect();
    let messages = messages.into_iter().zip(odd).map(|(keyed, json)| {
        let except_users = vec![UserId::new(r#"a"\,{}"#).unwrap()];
        NewMessage { payload: message("a", json).payload, except_users, ..keyed }
    });
    let mut messages: Vec<_> = messages.collect();
    messages[1].payload = Payload::None;
    messages[3].payload = Payload::Binary(vec![0, 0xff, b'\\'].into());
    node.store.append(messages.clone()).await.unwrap();
    let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    let read = node.store.messages_by_id(&messages[0].room, &ids).await.unwrap();
    assert_eq!(read.len(), odd.len());
    for (read, message) in read.iter().zip(&messages) {
        assert_eq!((read.id, &read.event), (message.id, &message.event));
        assert_eq!(read.payload, message.payload);
        assert_eq!(read.except_users, message.except_users);
    }
    let again = messages.into_iter().map(|first| NewMessage { id: message("a", "1").id, ..first }).collect();
    let known = node.store.append(again).await.unwrap();
    assert!(known.iter().all(|appended| matches!(appended, Appended::Known { .. })), "{known:?}");
}

#[tokio::test]
async fn many_changes_that_wait_are_written_between_few_batches_of_emits_that_keep_coming() {
    const CHANGES: usize = 40;
    let (node, proxy) = start(DELAY).await;
    let (team, reader) = (room("team:read"), UserId::new("42").unwrap());
    let messages: Vec<_> = (0..CHANGES).map(|_| message("team:read", "1")).collect();
    let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    deadline("the appends", node.store.append(messages)).await.expect("they are kept");
    let are_done = AtomicBool::new(false);
    let emit = async |n: usize| {
        while !are_done.load(Ordering::SeqCst) {
            position(&node.store, message(&format!("user:emitted-{n}"), "1")).await;
        }
    };
    let changes = (0..CHANGES).map(async |n| {
        let mailbox = room(&format!("user:{n}"));
        node.store.mark_read(&team, &reader, Which::Message(ids[n])).await.unwrap();
        assert_eq!(node.store.delete(&team, &ids[n..=n]).await.unwrap(), 1);
        assert_eq!(node.store.delete_to(&mailbox, 1).await.unwrap(), 0);
    });
    let changing = async {
        proxy.take_transactions();
        deadline("the changes", join_all(changes)).await;
        are_done.store(true, Ordering::SeqCst);
        proxy.take_transactions()
    };
    let (transactions, _) = tokio::join!(changing, join_all((0..EMITTERS).map(emit)));
    let emitting = transactions.iter().filter(|transaction| transaction.has("user:emitted-")).count();
    // Each one by itself, they come after 120.
    assert!(emitting <= 12, "{emitting} batches of emits meanwhile");
}

#[tokio::test]
async fn emits_are_written_while_changes_keep_coming() {
    let (node, proxy) = start(DELAY).await;
    let is_done = AtomicBool::new(false);
    let change = async |n: usize| {
        while !is_done.load(Ordering::SeqCst) {
            node.store.delete_to(&room(&format!("user:{n}")), 1).await.unwrap();
        }
    };
    let emitting = async {
        for _ in 0..10 {
            position(&node.store, message("user:emitted", "1")).await;
        }
        is_done.store(true, Ordering::SeqCst);
        proxy.take_transactions()
    };
    let (transactions, _) = tokio::join!(emitting, join_all((0..EMITTERS).map(change)));
    let is_emit: Vec<_> = transactions.iter().map(|transaction| transaction.has("user:emitted")).collect();
    let longest = is_emit.split(|is_emit| *is_emit).map(<[bool]>::len).max();
    assert!(longest.is_some_and(|longest| longest <= 18), "{longest:?} transactions of changes in a row");
}

/// A store that this process alone uses, and its tasks.
fn open_alone(proxy: &SlowProxy) -> (Store, Lifecycle) {
    let lifecycle = Lifecycle::new();
    (open_with(&Kind::of(proxy.url().to_owned()), &Clock::system(), 1_000, &lifecycle), lifecycle)
}

async fn close(store: Store, lifecycle: &Lifecycle) {
    lifecycle.stop();
    store.close();
    deadline("the store's tasks to end", lifecycle.ended()).await;
}

#[tokio::test]
async fn a_database_is_opened_in_few_round_trips() {
    let proxy = SlowProxy::start(&new_database(), Duration::ZERO).await;
    // The tables are made; then they are there.
    for max in [45, 25] {
        proxy.take_round_trips();
        let (store, lifecycle) = open_alone(&proxy);
        wait_for(&store, Status::Serving).await;
        let round_trips = proxy.take_round_trips();
        assert!(round_trips <= max, "{round_trips} round trips");
        close(store, &lifecycle).await;
    }
}

/// Waits for a real time: each of many steps is short, and all together are longer than the deadline of one.
#[tokio::test]
async fn a_new_database_that_is_far_away_is_opened() {
    let proxy = SlowProxy::start(&new_database(), Duration::from_millis(125)).await;
    let (store, _lifecycle) = open_alone(&proxy);
    let mut statuses = store.watch_status();
    let settled = statuses.wait_for(|status| *status != Status::Opening);
    let status =
        *tokio::time::timeout(Duration::from_mins(1), settled).await.expect("it is known").expect("it is open");
    assert_eq!(status, Status::Serving, "at the first attempt");
}

#[tokio::test]
async fn a_store_that_is_being_opened_far_away_ends_when_it_is_stopped() {
    for text in
        ["statement_timeout", "pg_advisory_lock", "CREATE TABLE mailboxes", "ADD COLUMN", "UPDATE store SET generation"]
    {
        let proxy = SlowProxy::start(&new_database(), Duration::from_millis(10)).await;
        let reached = proxy.sees(&[text]);
        let (store, lifecycle) = open_alone(&proxy);
        deadline(text, reached).await;
        proxy.set_delay(Duration::from_millis(500));
        close(store, &lifecycle).await;
    }
}
