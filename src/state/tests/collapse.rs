use super::*;
use crate::cluster::Engine;
use crate::message::Payload;
use crate::state::{EmitCall, NotPublished, RetainedPut, SharedCollapse, SharedRetained};

const LONG: Duration = Duration::from_mins(1);
/// What frames of these tests begin with: a version, an incarnation, a number.
const OFFERED: &[u8] = b"Vincarnatnumber_0";
const ENDED: &[u8] = b"wAnotherInumber_1";

/// A node that collapses emits of the event `x` to the room `a`.
struct Node {
    shards: Shards,
    retained: SharedRetained,
    collapse: SharedCollapse,
}

impl Node {
    async fn new(server: &RedisServer, window: Duration, limits: (usize, usize)) -> Self {
        let shards = server.connect().await;
        let retained = SharedRetained::new(shards.clone(), 9, 10_000);
        let collapse = SharedCollapse::with_max_bytes(shards.clone(), retained.clone(), window, limits);
        Self { shards, retained, collapse }
    }

    async fn with_windows(server: &RedisServer) -> Self {
        Self::new(server, LONG, (99, 100_000)).await
    }

    fn engine(&self) -> &Engine {
        &self.shards.all()[0]
    }

    async fn run(&self, call: &redis::Cmd) -> Result<u64, NotPublished> {
        let number: i64 = self.engine().run(call).await.unwrap();
        u64::try_from(number).map_err(|_| NotPublished::of(number))
    }

    async fn offer(&self, key: &str, frame: &str) -> Result<u64, NotPublished> {
        let (room, event) = (room("a"), event("x"));
        self.run(&self.collapse.offer_command(key, &call((&room, &event), frame, None))).await
    }

    async fn ended(&self, key: &str) -> Result<u64, NotPublished> {
        self.run(&self.collapse.end_command(&room("a"), &event("x"), key, ENDED)).await
    }

    /// Publishes an emit without a key.
    async fn publish(&self, frame: &str) -> Result<u64, NotPublished> {
        let (room, event) = (room("a"), event("x"));
        self.run(&self.collapse.publish_command(&call((&room, &event), frame, None))).await
    }

    /// The same of one whose frame is its value, which is retained; with a collapse key it is offered.
    async fn retain(&self, key: Option<&str>, json: &str) -> Result<u64, NotPublished> {
        let (caller, room, event, payload) = (caller(), room("a"), event("x"), Payload::json(json).unwrap());
        let put = RetainedPut { caller: &caller, payload: &payload, except_users: &[], ttl: None };
        let call = call((&room, &event), json, Some(put));
        self.run(&match key {
            Some(key) => self.collapse.offer_command(key, &call),
            None => self.collapse.publish_command(&call),
        })
        .await
    }

    async fn value(&self) -> Option<String> {
        let value = self.retained.get(&room("a"), "x").await.unwrap()?;
        let Payload::Json(raw) = value.payload else { panic!("it is JSON") };
        Some(raw.get().to_owned())
    }

    async fn waiting_bytes(&self) -> usize {
        self.engine().query(redis::cmd("HGET").arg("p:sums:c").arg("b")).await.unwrap()
    }
}

fn call<'a>(
    (room, event): (&'a RoomName, &'a EventName),
    frame: &'a str,
    retained: Option<RetainedPut<'a>>,
) -> EmitCall<'a> {
    EmitCall { retained, start: OFFERED, rest: frame.as_bytes(), ..super::call(room, event) }
}

/// A frame of the channel: what it begins with, and the rest up to where it says when it was sent again.
fn parts(frame: &[u8]) -> (String, String) {
    let rest = &frame[41..];
    let end = rest.iter().position(|byte| *byte == 8).unwrap_or(rest.len());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&frame[..17]), text(&rest[..end]))
}

fn frames(starts: &[(&str, &str)]) -> Vec<(String, String)> {
    starts.iter().map(|(start, rest)| ((*start).to_owned(), (*rest).to_owned())).collect()
}

#[tokio::test]
async fn the_first_opens_a_window_and_the_last_of_all_nodes_waits_for_its_end() {
    let server = RedisServer::start();
    let (a, b) = (Node::with_windows(&server).await, Node::with_windows(&server).await);
    let mut subscriber = server.subscribe("c").await;
    assert_eq!(a.offer("k", "1").await, Ok(1));
    assert_eq!(b.offer("k", "2").await, Err(NotPublished::Deferred));
    assert_eq!(a.offer("k", "3").await, Err(NotPublished::Deferred));
    assert_eq!(b.offer("l", "4").await, Ok(1), "another key");
    assert_eq!(a.ended("k").await, Ok(1));
    assert_eq!(b.offer("k", "5").await, Err(NotPublished::Deferred), "the next window");
    assert_eq!(a.ended("k").await, Ok(1));
    assert_eq!(a.ended("k").await, Err(NotPublished::NothingWaits));
    assert_eq!(b.offer("k", "6").await, Ok(1));
    let offered = str::from_utf8(OFFERED).unwrap();
    // The version in which it was written, and the node that ends the window.
    let ended = ["V", str::from_utf8(&ENDED[1..]).unwrap()].concat();
    for expected in frames(&[(offered, "1"), (offered, "4"), (&ended, "3"), (&ended, "5"), (offered, "6")]) {
        assert_eq!(parts(&subscriber.recv().await.unwrap()), expected);
    }
}

#[tokio::test]
async fn what_waited_says_that_it_is_sent_now() {
    use prost::Message as _;
    let server = RedisServer::start();
    let node = Node::with_windows(&server).await;
    let mut subscriber = server.subscribe("c").await;
    for _ in 0..2 {
        // An old one.
        let _ = node.offer("k", "\u{8}\u{1}").await;
    }
    node.ended("k").await.unwrap();
    let (seconds, _): (i64, u64) = node.engine().query(&redis::cmd("TIME")).await.unwrap();
    for expected in [0, seconds] {
        let frame = subscriber.recv().await.unwrap();
        let sent_at = crate::proto::bus::v1::Frame::decode(&frame[41..]).unwrap().sent_at_ms / 1_000;
        assert!((expected - 60..=expected + 60).contains(&sent_at), "{sent_at} {expected}");
    }
}

#[tokio::test]
async fn all_that_waits_of_a_topic_is_published_in_its_order_before_an_emit_without_a_key() {
    let server = RedisServer::start();
    let node = Node::with_windows(&server).await;
    let keys: Vec<_> = (0..12).map(|number| format!("{number} \n")).collect();
    for key in &keys {
        assert_eq!(node.offer(key, "first").await, Ok(0));
    }
    let (room, other) = (room("a"), event("y"));
    for expected in [Ok(0), Err(NotPublished::Deferred)] {
        let call = call((&room, &other), "another event", None);
        assert_eq!(node.run(&node.collapse.offer_command("k", &call)).await, expected);
    }
    for key in keys.iter().rev().chain(&keys[..1]) {
        assert_eq!(node.offer(key, key).await, Err(NotPublished::Deferred));
    }
    let mut subscriber = server.subscribe("c").await;
    assert_eq!(node.publish("last").await, Ok(1));
    assert_eq!(node.publish("alone").await, Ok(1));
    for key in keys.iter().rev() {
        // Nobody waits for the answers: the number is 0.
        let expected = ("Vincarnat\0\0\0\0\0\0\0\0".to_owned(), key.clone());
        assert_eq!(parts(&subscriber.recv().await.unwrap()), expected);
    }
    for last in ["last", "alone"] {
        assert_eq!(parts(&subscriber.recv().await.unwrap()).1, last);
    }
    assert_eq!(node.offer(&keys[0], "1").await, Err(NotPublished::Deferred), "the windows are open still");
}

#[tokio::test]
async fn windows_and_the_bytes_that_wait_are_bounded() {
    let server = RedisServer::start();
    let node = Node::new(&server, LONG, (2, 200)).await;
    let (one, other) = ("a".repeat(100), "b".repeat(100));
    assert_eq!(node.offer("k", "1").await, Ok(0));
    assert_eq!(node.offer("l", "1").await, Ok(0));
    assert_eq!(node.offer("m", "1").await, Err(NotPublished::CollapseFull));
    assert_eq!(node.offer("k", &one).await, Err(NotPublished::Deferred));
    assert_eq!(node.offer("k", &other).await, Err(NotPublished::Deferred), "it takes the place of the other");
    assert_eq!(node.offer("l", &one).await, Err(NotPublished::CollapseFull));
    node.ended("k").await.unwrap();
    assert_eq!(node.offer("l", &one).await, Err(NotPublished::Deferred));
    node.publish("takes it along").await.unwrap();
    for key in ["k", "l"] {
        assert_eq!(node.ended(key).await, Err(NotPublished::NothingWaits));
    }
    assert_eq!(node.offer("m", "1").await, Ok(0));
    assert_eq!(node.waiting_bytes().await, 0);
}

#[tokio::test]
async fn a_window_whose_node_is_gone_ends_by_itself() {
    let server = RedisServer::start();
    let node = Node::new(&server, Duration::from_millis(1), (2, 10_000)).await;
    for key in ["k", "l"] {
        assert_eq!(node.offer(key, "1").await, Ok(0));
        assert_eq!(node.offer(key, "2").await, Err(NotPublished::Deferred));
    }
    eventually(async || node.offer("k", "3").await == Ok(0)).await;
    assert_eq!(node.ended("k").await, Err(NotPublished::NothingWaits), "what waited for the node is older");
    eventually(async || {
        node.collapse.sweep().await.unwrap();
        keys(&node.shards).await == ["p:sums:c"]
    })
    .await;
    assert_eq!(node.waiting_bytes().await, 0);
}

#[tokio::test]
async fn what_waits_is_retained_when_it_is_published_unless_a_later_one_was() {
    let server = RedisServer::start();
    let node = Node::with_windows(&server).await;
    node.retain(Some("k"), "1").await.unwrap();
    assert_eq!(node.retain(Some("k"), "2").await, Err(NotPublished::Deferred));
    assert_eq!(node.value().await.as_deref(), Some("1"));
    node.ended("k").await.unwrap();
    assert_eq!(node.value().await.as_deref(), Some("2"));

    assert_eq!(node.retain(Some("k"), "3").await, Err(NotPublished::Deferred));
    node.retain(Some("l"), "4").await.unwrap();
    node.ended("k").await.unwrap();
    assert_eq!(node.value().await.as_deref(), Some("4"), "3 is older");

    assert_eq!(node.retain(Some("k"), "5").await, Err(NotPublished::Deferred));
    node.retain(None, "6").await.unwrap();
    assert_eq!(node.value().await.as_deref(), Some("6"));

    assert_eq!(node.retain(Some("k"), "7").await, Err(NotPublished::Deferred));
    assert_eq!(node.retain(Some("l"), "8").await, Err(NotPublished::Deferred));
    assert_eq!(node.retain(Some("k"), "9").await, Err(NotPublished::Deferred));
    node.ended("l").await.unwrap();
    node.ended("k").await.unwrap();
    assert_eq!(node.value().await.as_deref(), Some("9"), "it came last, though 8 is published at the same time");
    let waiting: Vec<String> = node.engine().query(redis::cmd("KEYS").arg("p:c:*")).await.unwrap();
    assert!(waiting.is_empty(), "{waiting:?}");
}

#[tokio::test]
async fn a_value_that_cannot_be_kept_is_rejected_before_it_waits_and_published_if_it_does() {
    let server = RedisServer::start();
    let (node, long) = (Node::with_windows(&server).await, format!("\"{}\"", "a".repeat(9_000)));
    let full = Err(NotPublished::RetainedFull(crate::state::RetainedFull::RoomBytes));
    let too_long = format!("\"{}\"", "a".repeat(11_000));
    assert_eq!(node.retain(Some("k"), &too_long).await, full);
    node.retain(Some("k"), "1").await.expect("no window is open");
    assert_eq!(node.retain(Some("k"), &too_long).await, full);
    assert_eq!(node.retain(Some("k"), &long).await, Err(NotPublished::Deferred));
    // Another event takes the room's bytes meanwhile.
    let (caller, room, other, payload) = (caller(), room("a"), event("y"), Payload::json(&long).unwrap());
    let put = RetainedPut { caller: &caller, payload: &payload, except_users: &[], ttl: None };
    node.run(&node.retained.put_command(&call((&room, &other), "", Some(put)))).await.unwrap();
    let mut subscriber = server.subscribe("c").await;
    assert_eq!(node.ended("k").await, Ok(1));
    assert_eq!(parts(&subscriber.recv().await.unwrap()).1, long);
    assert_eq!(node.value().await.as_deref(), Some("1"));
}

#[tokio::test]
async fn nodes_know_which_events_are_collapsed() {
    let server = RedisServer::start_shards(2);
    let (a, b) = (Node::with_windows(&server).await, Node::with_windows(&server).await);
    for name in ["x", "y", "user:", "z"] {
        assert_eq!(a.collapse.note_event(&event(name)).await, Ok(true));
        assert_eq!(b.collapse.note_event(&event(name)).await, Ok(false));
    }
    assert_eq!(b.collapse.events().await, Ok(["user:", "x", "y", "z"].map(event).into()));
}
