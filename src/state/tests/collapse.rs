use super::*;
use crate::state::{DeferredFrame, Offered, SharedCollapse};

const LONG: Duration = Duration::from_mins(1);

async fn offer(collapse: &SharedCollapse, key: &str, frame: &str) -> Offered {
    collapse.offer(&room("a"), &event("x"), key, frame.into()).await.unwrap()
}

async fn ended(collapse: &SharedCollapse, key: &str) -> Option<String> {
    let frame = collapse.window_ended(&room("a"), &event("x"), key).await.unwrap();
    frame.map(|frame| String::from_utf8(frame.frame).unwrap())
}

#[tokio::test]
async fn the_first_opens_a_window_and_the_last_of_all_nodes_waits_for_its_end() {
    let server = RedisServer::start();
    let (a, b) = (server.connect().await, server.connect().await);
    let (a, b) = (SharedCollapse::new(a, LONG, 9), SharedCollapse::new(b, LONG, 9));
    assert_eq!(offer(&a, "k", "1").await, Offered::Opens);
    assert_eq!(offer(&b, "k", "2").await, Offered::Deferred);
    assert_eq!(offer(&a, "k", "3").await, Offered::Deferred);
    assert_eq!(offer(&b, "l", "4").await, Offered::Opens, "another key");
    let other = b.offer(&room("b"), &event("x"), "k", Vec::new()).await;
    assert_eq!(other, Ok(Offered::Opens), "another room");
    assert_eq!(ended(&a, "k").await.as_deref(), Some("3"));
    assert_eq!(offer(&b, "k", "5").await, Offered::Deferred, "the next window");
    assert_eq!(ended(&a, "k").await.as_deref(), Some("5"));
    assert_eq!(ended(&a, "k").await, None);
    assert_eq!(offer(&b, "k", "6").await, Offered::Opens);
}

#[tokio::test]
async fn all_that_waits_of_a_topic_is_taken_in_the_order_in_which_it_came() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let collapse = SharedCollapse::new(shards.clone(), LONG, 99);
    let keys: Vec<_> = (0..12).map(|number| format!("{number} \n")).collect();
    for key in &keys {
        assert_eq!(offer(&collapse, key, "first").await, Offered::Opens);
    }
    collapse.offer(&room("a"), &event("y"), "k", "first".into()).await.unwrap();
    collapse.offer(&room("a"), &event("y"), "k", "another".into()).await.unwrap();
    for key in keys.iter().rev().chain(&keys[..1]) {
        assert_eq!(offer(&collapse, key, key).await, Offered::Deferred);
    }
    let taken = collapse.take_earlier(&room("a"), &event("x")).await.unwrap();
    assert!(taken.is_sorted_by(|a, b| a.order < b.order));
    let expected = keys.iter().rev().map(|key| (key.clone(), key.clone().into_bytes()));
    let taken = taken.into_iter().map(|DeferredFrame { key, frame, .. }| (key, frame));
    assert!(taken.eq(expected));
    assert_eq!(collapse.take_earlier(&room("a"), &event("x")).await, Ok(Vec::new()));
    assert_eq!(offer(&collapse, &keys[0], "1").await, Offered::Deferred, "the windows are open still");
}

#[tokio::test]
async fn windows_and_the_bytes_that_wait_are_bounded() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let collapse = SharedCollapse::with_max_bytes(shards.clone(), LONG, 2, 100);
    assert_eq!(offer(&collapse, "k", "1").await, Offered::Opens);
    assert_eq!(offer(&collapse, "l", "1").await, Offered::Opens);
    assert_eq!(offer(&collapse, "m", "1").await, Offered::Full);
    assert_eq!(offer(&collapse, "k", &"a".repeat(60)).await, Offered::Deferred);
    assert_eq!(offer(&collapse, "k", &"b".repeat(60)).await, Offered::Deferred, "it takes the place of the other");
    assert_eq!(offer(&collapse, "l", &"a".repeat(60)).await, Offered::Full);
    assert_eq!(ended(&collapse, "k").await, Some("b".repeat(60)));
    assert_eq!(offer(&collapse, "l", &"a".repeat(60)).await, Offered::Deferred);
    assert_eq!(collapse.take_earlier(&room("a"), &event("x")).await.map(|taken| taken.len()), Ok(1));
    assert_eq!((ended(&collapse, "k").await, ended(&collapse, "l").await), (None, None));
    assert_eq!(offer(&collapse, "m", "1").await, Offered::Opens);
    let bytes: usize = shards.all()[0].query(redis::cmd("HGET").arg("p:sums:c").arg("b")).await.unwrap();
    assert_eq!(bytes, 0);
}

#[tokio::test]
async fn a_window_whose_node_is_gone_ends_by_itself() {
    let server = RedisServer::start();
    let shards = server.connect().await;
    let collapse = SharedCollapse::new(shards.clone(), Duration::from_millis(1), 2);
    for key in ["k", "l"] {
        assert_eq!(offer(&collapse, key, "1").await, Offered::Opens);
        assert_eq!(offer(&collapse, key, "2").await, Offered::Deferred);
    }
    eventually(async || offer(&collapse, "k", "3").await == Offered::Opens).await;
    assert_eq!(ended(&collapse, "k").await, None, "what waited for the node is older");
    eventually(async || {
        collapse.sweep().await.unwrap();
        keys(&shards).await == ["p:sums:c"]
    })
    .await;
    let bytes: usize = shards.all()[0].query(redis::cmd("HGET").arg("p:sums:c").arg("b")).await.unwrap();
    assert_eq!(bytes, 0);
}

#[tokio::test]
async fn nodes_know_which_events_are_collapsed() {
    let server = RedisServer::start_shards(2);
    let (a, b) = (server.connect().await, server.connect().await);
    let (a, b) = (SharedCollapse::new(a, LONG, 9), SharedCollapse::new(b, LONG, 9));
    for name in ["x", "y", "user:", "z"] {
        assert_eq!(a.note_event(&event(name)).await, Ok(true));
        assert_eq!(b.note_event(&event(name)).await, Ok(false));
    }
    assert_eq!(b.events().await, Ok(["user:", "x", "y", "z"].map(event).into()));
}
