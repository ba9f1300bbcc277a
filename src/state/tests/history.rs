use super::{redis_server::Subscriber, *};
use crate::cluster::{BusError, Kept};
use crate::message::{MessageId, Payload, RoomPattern};
use crate::state::{HistoryRule, Page, RetainedPut, SharedCollapse, SharedHistory, SharedRetained};

const SIZE: usize = 3;
/// What the engine counts of a message besides its bytes.
const MESSAGE_BYTES: usize = 160;

pub(super) struct Node {
    pub(super) shards: Shards,
    pub(super) history: SharedHistory,
    retained: SharedRetained,
}

impl Node {
    /// A message is kept for `age`, and for a day in rooms whose names begin with `day:`.
    pub(super) async fn new(server: &RedisServer, age: Duration, max_bytes: usize) -> Self {
        Self::over(server.connect().await, age, max_bytes)
    }

    pub(super) fn over(shards: Shards, age: Duration, max_bytes: usize) -> Self {
        let rule = |rooms: &str, size, age| HistoryRule { rooms: RoomPattern::new(rooms).unwrap(), size, age };
        let day = rule("day:*", 1_000, Duration::from_hours(24));
        let rules = vec![rule("short:*", SIZE, age), rule("long:*", 1_000, age), day];
        let history = SharedHistory::new(shards.clone(), rules, max_bytes);
        let retained = SharedRetained::new(shards.clone(), 9, 10_000);
        Self { shards, history, retained }
    }

    /// Returns the number of receivers.
    pub(super) async fn append(&self, name: &str, json: &str, ttl: Option<Duration>) -> i64 {
        self.try_append(name, json, (ttl, None)).await.unwrap()
    }

    async fn try_append(
        &self,
        name: &str,
        json: &str,
        (ttl, once): (Option<Duration>, Option<MessageId>),
    ) -> Result<i64, BusError> {
        let (room, event, payload) = (room(name), event("e"), Payload::json(json).unwrap());
        let id = once.unwrap_or(MessageId::at(jiff::Timestamp::UNIX_EPOCH));
        let kept = self.history.message(&room, (id, &event), (&payload, &[user("x")]), ttl);
        let call = EmitCall { kept, once, start: b"head", rest: b"tail", ..call(&room, &event) };
        self.shards.of(&room).run(&self.retained.put_command(&call)).await
    }

    pub(super) async fn position(&self, name: &str) -> Kept {
        self.history.position(&room(name)).await.unwrap().unwrap()
    }

    async fn after(&self, name: &str, after: Kept) -> Option<Page> {
        self.history.after(&room(name), after, 1_000).await.unwrap()
    }

    /// The numbers and payloads of what came after a position.
    pub(super) async fn texts(&self, name: &str, after: Kept) -> Option<Vec<(u64, String)>> {
        let page = self.after(name, after).await?;
        let text =
            |payload: &Payload| if let Payload::Json(raw) = payload { raw.get().to_owned() } else { String::new() };
        Some(page.messages.iter().map(|message| (message.number, text(&message.payload))).collect())
    }

    pub(super) async fn bytes(&self) -> usize {
        let mut read = redis::cmd("HGET");
        self.shards.all()[0].query::<Option<usize>>(read.arg("p:sums:h").arg("b")).await.unwrap().unwrap_or_default()
    }

    /// Has the engine begin another history of its data, as after a restart.
    pub(super) async fn restart_engine(&self) {
        let before = self.position("long:other").await.sequence;
        let engine = &self.shards.all()[0];
        for (host, port) in [("127.0.0.1", "1"), ("NO", "ONE")] {
            engine.query::<()>(redis::cmd("REPLICAOF").arg(host).arg(port)).await.unwrap();
        }
        // Within some milliseconds the functions take it for the same.
        eventually(async || self.position("long:other").await.sequence != before).await;
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what it is compared with is an option")]
pub(super) fn numbered(numbers: impl IntoIterator<Item = u64>) -> Option<Vec<(u64, String)>> {
    Some(numbers.into_iter().map(|number| (number, number.to_string())).collect())
}

async fn next(frames: &mut Subscriber) -> (u64, Kept) {
    let frame = frames.recv().await.unwrap();
    assert!(frame.len() == 32 && frame.starts_with(b"head") && frame.ends_with(b"tail"));
    let number = |from: usize| u64::from_be_bytes(frame[from..from + 8].try_into().unwrap());
    (number(4), Kept { sequence: number(12), number: number(20) })
}

#[tokio::test]
async fn emits_of_all_nodes_are_numbered_in_the_order_of_the_channel() {
    let server = RedisServer::start();
    let (a, b) = (Node::new(&server, HOUR, 1 << 20).await, Node::new(&server, HOUR, 1 << 20).await);
    let mut frames = server.subscribe("c").await;
    let begin = a.position("long:1").await;
    assert_eq!((begin, begin.number), (b.position("long:1").await, 0));
    for number in 1..=6_u64 {
        let node = if number % 2 == 0 { &a } else { &b };
        assert_eq!(node.append("long:1", &number.to_string(), None).await, 1);
        assert_eq!(next(&mut frames).await, (0, Kept { number, ..begin }));
    }
    assert_eq!(a.texts("long:1", begin).await, numbered(1..=6));
    assert_eq!(b.texts("long:1", Kept { number: 4, ..begin }).await, numbered(5..=6));
    assert_eq!(b.texts("long:1", Kept { number: 6, ..begin }).await, numbered([]));
    let page = a.history.after(&room("long:1"), begin, 2).await.unwrap().unwrap();
    assert_eq!((page.messages.len(), page.up_to, page.last), (2, 2, 6));
    assert_eq!(page.messages[0].except_users, [user("x")]);
    assert_eq!(a.position("long:2").await, begin);
    assert_eq!(a.history.position(&room("none")).await, Ok(None));
    let rooms = ["long:2", "none", "long:1"].map(room);
    let positions: Vec<_> = a.history.positions(&rooms).await;
    assert_eq!(positions.len(), 2);
    assert!(positions.contains(&(room("long:1"), Ok(Kept { number: 6, ..begin }))));
}

#[tokio::test]
async fn what_cannot_be_told_whole_is_not_told() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let begin = node.position("short:1").await;
    for number in 1..=4 {
        node.append("short:1", &number.to_string(), None).await;
    }
    assert_eq!(node.texts("short:1", begin).await, None, "one is gone for the size");
    assert_eq!(node.texts("short:1", Kept { number: 1, ..begin }).await, numbered(2..=4));
    assert_eq!(node.texts("short:1", Kept { number: 5, ..begin }).await, None, "not given yet");
    let other = Kept { sequence: begin.sequence ^ 1, number: 4 };
    assert_eq!(node.texts("short:1", other).await, None, "another sequence");
    assert_eq!(node.texts("short:2", Kept { number: 1, ..begin }).await, None, "another room");
    assert_eq!(node.after("none", begin).await, None);
}

#[tokio::test]
async fn after_a_restart_of_the_engine_a_sequence_begins_anew_though_its_messages_are_there() {
    let server = RedisServer::start();
    let (node, other) = (Node::new(&server, HOUR, 1 << 20).await, Node::new(&server, HOUR, 1 << 20).await);
    let begin = node.position("long:1").await;
    for number in 1..=2 {
        node.append("long:1", &number.to_string(), None).await;
    }
    node.restart_engine().await;
    assert_eq!(node.texts("long:1", begin).await, None, "some may be lost");
    let anew = node.position("long:1").await;
    assert!(anew.sequence != begin.sequence && anew.number == 0);
    for number in 1..=2 {
        assert_eq!(node.texts("long:1", Kept { number: number - 1, ..begin }).await, None);
        other.append("long:1", &number.to_string(), None).await;
    }
    assert_eq!(other.position("long:1").await, Kept { number: 2, ..anew });
    assert_eq!(node.texts("long:1", anew).await, numbered(1..=2));
    assert_eq!(node.texts("long:1", begin).await, None);
    let expected = ["p:ends:h", "p:h:{long:1}", "p:m:{long:1}", "p:sums:h", "p:talking:h"];
    assert_eq!(keys(&node.shards).await, expected);
}

#[tokio::test]
async fn a_message_ends_with_its_time_to_live_and_leaves_a_hole_that_counts_as_whole() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let begin = node.position("long:1").await;
    node.append("long:1", "1", Some(SOON)).await;
    node.append("long:1", "2", None).await;
    node.append("long:1", "3", Some(SOON)).await;
    eventually(async || node.texts("long:1", begin).await == numbered([2])).await;
    assert_eq!(node.after("long:1", begin).await.unwrap().up_to, 3);
}

#[tokio::test]
async fn what_is_too_old_is_taken_away_and_the_sequence_of_a_silent_room_goes_on() {
    let server = RedisServer::start();
    let node = Node::new(&server, SOON, 1 << 20).await;
    let begin = node.position("long:1").await;
    node.append("long:1", "1", None).await;
    eventually(async || node.texts("long:1", begin).await.is_none()).await;
    assert!(node.bytes().await > 0);
    eventually(async || {
        assert!(!node.history.sweep().await.unwrap());
        node.bytes().await == 0
    })
    .await;
    assert_eq!(keys(&node.shards).await, ["p:m:{long:1}", "p:silent:h", "p:sums:h"]);
    let silent = node.position("long:1").await;
    assert_eq!(silent, Kept { number: 1, ..begin });
    assert_eq!(node.texts("long:1", silent).await, numbered([]));
    node.append("long:1", "2", None).await;
    assert_eq!(node.position("long:1").await, Kept { number: 2, ..begin });
}

#[tokio::test]
async fn the_bytes_of_all_are_bounded_and_taken_from_the_rooms_that_were_silent_longest() {
    let server = RedisServer::start();
    let one = Node::new(&server, HOUR, 1 << 20).await;
    one.append("long:0", "1", None).await;
    let bytes = one.bytes().await;
    assert!(bytes > MESSAGE_BYTES);
    let node = Node::new(&server, HOUR, 4 * bytes).await;
    let quiet = node.position("long:1").await;
    node.append("long:1", "1", None).await;
    let talking = node.position("long:2").await;
    for number in 1..=3 {
        node.append("long:2", &number.to_string(), None).await;
    }
    assert_eq!(node.texts("long:1", quiet).await, numbered([1]), "that of the room 0 was taken");
    node.append("long:2", "4", None).await;
    assert_eq!(node.texts("long:1", quiet).await, None);
    assert_eq!(node.texts("long:2", talking).await, numbered(1..=4));
    node.append("long:2", "5", None).await;
    assert_eq!(node.texts("long:2", talking).await, None, "at last its own are taken");
    assert_eq!(node.texts("long:2", Kept { number: 1, ..talking }).await, numbered(2..=5));
    assert_eq!(node.bytes().await, 4 * bytes);
    node.append("long:3", &format!("\"{}\"", "a".repeat(9 * bytes)), None).await;
    assert_eq!(node.position("long:3").await.number, 1, "it is published, and cannot be kept");
    assert_eq!(node.bytes().await, 0);
}

#[tokio::test]
async fn a_room_whose_messages_last_longer_loses_its_own_before_one_that_is_busy() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1_000).await;
    let (quiet, busy) = (node.position("day:1").await, node.position("long:1").await);
    node.append("day:1", "1", None).await;
    for number in 1..=8 {
        node.append("long:1", &number.to_string(), None).await;
    }
    assert_eq!(node.texts("day:1", quiet).await, None);
    let last = Kept { number: 5, ..busy };
    assert_eq!(node.texts("long:1", last).await, numbered(6..=8));
}

#[tokio::test]
async fn a_page_has_one_message_or_few_enough_bytes() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 64 << 20).await;
    let begin = node.position("long:1").await;
    let lengths = [1_500_000, 1, 400_000, 400_000, 400_000, 1, 700_000, 700_000];
    for length in lengths {
        node.append("long:1", &format!("\"{}\"", "a".repeat(length)), None).await;
    }
    let (mut seen, mut pages) = (0, Vec::new());
    while seen < lengths.len() as u64 {
        let page = node.after("long:1", Kept { number: seen, ..begin }).await.unwrap();
        assert_eq!((page.up_to, page.last), (seen + page.messages.len() as u64, lengths.len() as u64));
        pages.push(page.messages.len());
        seen = page.up_to;
    }
    assert_eq!(pages, [1, 3, 2, 1, 1]);
}

#[tokio::test]
async fn an_engine_that_forbids_streams_retains_nothing_of_what_it_refuses_to_keep() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let (room, event, caller, payload) = (room("long:1"), event("e"), caller(), Payload::json("1").unwrap());
    let begin = node.position("long:1").await;
    let before = keys(&node.shards).await;
    for forbidden in ["XRANGE", "XADD"] {
        let set = |rule: String| redis::cmd("ACL").arg(&["SETUSER", "default", &rule]).clone();
        let engine = &node.shards.all()[0];
        engine.query::<()>(&set(format!("-{forbidden}"))).await.unwrap();
        let id = MessageId::at(jiff::Timestamp::UNIX_EPOCH);
        let kept = node.history.message(&room, (id, &event), (&payload, &[]), None);
        let retained = Some(RetainedPut { caller: &caller, payload: &payload, except_users: &[], ttl: None });
        let call = EmitCall { kept, retained, once: Some(id), ..call(&room, &event) };
        assert_eq!(engine.run::<i64>(&node.retained.put_command(&call)).await, Err(BusError::Refused));
        engine.query::<()>(&set(format!("+{forbidden}"))).await.unwrap();
        assert_eq!((keys(&node.shards).await, node.position("long:1").await), (before.clone(), begin));
    }
}

#[tokio::test]
async fn a_message_that_comes_again_has_the_number_of_the_first_time() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let mut frames = server.subscribe("c").await;
    let ids = [(); 5].map(|()| MessageId::at(jiff::Timestamp::UNIX_EPOCH));
    let mut append = async |id: MessageId| {
        node.try_append("short:1", "1", (None, Some(id))).await.unwrap();
        next(&mut frames).await.1.number
    };
    assert_eq!((append(ids[0]).await, append(ids[1]).await, append(ids[0]).await), (1, 2, 1));
    assert_eq!((append(ids[2]).await, append(ids[3]).await, append(ids[3]).await), (3, 4, 4));
    let fields: Vec<Vec<u8>> = node.shards.all()[0].query(redis::cmd("HKEYS").arg("p:m:{short:1}")).await.unwrap();
    assert_eq!(fields.len(), 5 + SIZE, "what is gone is not remembered");
}

#[tokio::test]
async fn a_value_is_retained_and_the_message_appended_in_one_step_or_neither_is() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let mut frames = server.subscribe("c").await;
    let (room, event, caller) = (room("long:1"), event("e"), caller());
    let begin = node.position("long:1").await;
    for (length, is_kept) in [(1, true), (20_000, false), (2, true)] {
        let payload = Payload::json(&format!("\"{}\"", "a".repeat(length))).unwrap();
        let id = MessageId::at(jiff::Timestamp::UNIX_EPOCH);
        let kept = node.history.message(&room, (id, &event), (&payload, &[]), None);
        let retained = Some(RetainedPut { caller: &caller, payload: &payload, except_users: &[], ttl: None });
        let call = EmitCall { kept, retained, start: b"head", rest: b"tail", ..call(&room, &event) };
        let receivers: i64 = node.shards.of(&room).run(&node.retained.put_command(&call)).await.unwrap();
        assert_eq!(receivers, if is_kept { 1 } else { -2 });
        if is_kept {
            let (change, kept) = next(&mut frames).await;
            assert_eq!(change, node.retained.of_room(&room).await.unwrap().0);
            assert_eq!(kept, node.position("long:1").await);
        }
    }
    assert_eq!(node.position("long:1").await, Kept { number: 2, ..begin });
}

#[tokio::test]
async fn what_a_window_defers_is_numbered_when_it_is_published() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let collapse = SharedCollapse::new(node.shards.clone(), node.retained.clone(), HOUR, 9);
    let mut frames = server.subscribe("c").await;
    let (room, event) = (room("long:1"), event("e"));
    let begin = node.position("long:1").await;
    let offer = async |json: &str| -> i64 {
        let (payload, id) = (Payload::json(json).unwrap(), MessageId::at(jiff::Timestamp::UNIX_EPOCH));
        let kept = node.history.message(&room, (id, &event), (&payload, &[]), None);
        let call = EmitCall { kept, start: &[b'h'; 17], rest: b"tail", ..call(&room, &event) };
        node.shards.of(&room).run(&collapse.offer_command("k", &call)).await.unwrap()
    };
    let number = async |frames: &mut Subscriber| {
        let frame = frames.recv().await.unwrap();
        u64::from_be_bytes(frame[33..41].try_into().unwrap())
    };
    assert_eq!((offer("1").await, number(&mut frames).await), (1, 1));
    assert_eq!((offer("2").await, offer("3").await), (-3, -3));
    node.append("long:1", "4", None).await;
    assert_eq!(frames_len(&mut frames).await, 32);
    let end = collapse.end_command(&room, &event, "k", &[b'w'; 17]);
    assert_eq!(node.shards.of(&room).run::<i64>(&end).await, Ok(1));
    let texts = node.texts("long:1", begin).await.unwrap();
    assert_eq!(texts.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), ["1", "4", "3"]);
}

#[tokio::test]
async fn what_a_window_deferred_before_a_fail_over_is_kept_in_the_sequence_after_it() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let collapse = SharedCollapse::new(node.shards.clone(), node.retained.clone(), HOUR, 9);
    let (room, event) = (room("long:1"), event("e"));
    let begin = node.position("long:1").await;
    for (json, answer) in [("1", 0), ("2", -3)] {
        let (payload, id) = (Payload::json(json).unwrap(), MessageId::at(jiff::Timestamp::UNIX_EPOCH));
        let kept = node.history.message(&room, (id, &event), (&payload, &[]), None);
        let call = EmitCall { kept, start: &[b'h'; 17], rest: b"tail", ..call(&room, &event) };
        assert_eq!(node.shards.of(&room).run(&collapse.offer_command("k", &call)).await, Ok(answer));
    }
    node.restart_engine().await;
    let mut frames = server.subscribe("c").await;
    let end = collapse.end_command(&room, &event, "k", &[b'w'; 17]);
    assert_eq!(node.shards.of(&room).run::<i64>(&end).await, Ok(1));
    let frame = frames.recv().await.unwrap();
    let anew = node.position("long:1").await;
    assert!(anew.sequence != begin.sequence && anew.number == 1);
    assert_eq!(frame[25..41], [anew.sequence.to_be_bytes(), 1_u64.to_be_bytes()].concat());
    let texts = node.texts("long:1", Kept { number: 0, ..anew }).await;
    assert_eq!(texts, Some(vec![(1, "2".to_owned())]));
}

async fn frames_len(frames: &mut Subscriber) -> usize {
    frames.recv().await.unwrap().len()
}
