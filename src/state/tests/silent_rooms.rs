//! Rooms with a history and without messages: they take up no memory at the engine, or a bounded part of it.

use super::{
    history::{Node, numbered},
    *,
};
use crate::cluster::Kept;

/// As many as an engine remembers.
const MAX_SILENT: usize = 100_000;
/// A room whose name has the digest of that of `long:1`.
const SAME_DIGEST: &str = "long:254355";

/// Has the engine remember as many silent rooms as it does, all later ones than those of a test.
async fn fill_silent(node: &Node) {
    const FILL: &str = "for i = 1, tonumber(ARGV[1]) do redis.call('ZADD', KEYS[1], 4e12, 'p:h:{' .. i .. '}\\np:m:{' .. i .. '}') end";
    let mut fill = redis::cmd("EVAL");
    fill.arg(FILL).arg(1).arg("p:silent:h").arg(MAX_SILENT);
    node.shards.all()[0].query::<()>(&fill).await.unwrap();
}

/// Has the messages of the rooms of a node end whose messages end soon.
async fn silence(node: &Node) {
    eventually(async || {
        assert!(!node.history.sweep().await.unwrap());
        node.bytes().await == 0
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_joined_leaves_nothing_at_the_engine_and_goes_on_where_devices_were_told() {
    let server = RedisServer::start();
    let (node, other) = (Node::new(&server, HOUR, 1 << 20).await, Node::new(&server, HOUR, 1 << 20).await);
    let rooms: Vec<_> = (0..1_000).map(|number| room(&format!("long:{number}"))).collect();
    let positions = node.history.positions(&rooms).await;
    assert_eq!(positions.len(), 1_000);
    assert_eq!(keys(&node.shards).await, ["p:sums:h"]);
    let sums: usize = node.shards.all()[0].query(redis::cmd("HLEN").arg("p:sums:h")).await.unwrap();
    assert_eq!(sums, 3);
    let begin = positions[7].1.unwrap();
    assert!(begin.number == 0 && other.position("long:7").await == begin);
    assert_eq!(node.texts("long:7", begin).await, numbered([]));
    other.append("long:7", "1", None).await;
    assert_eq!(node.position("long:7").await, Kept { number: 1, ..begin });
    assert_eq!(node.texts("long:7", begin).await, numbered([1]));
}

#[tokio::test]
async fn a_silent_room_that_is_forgotten_gives_no_number_again() {
    let server = RedisServer::start();
    let node = Node::new(&server, SOON, 1 << 20).await;
    let begin = node.position("long:1").await;
    assert_eq!(node.position(SAME_DIGEST).await, begin);
    fill_silent(&node).await;
    for number in 1..=3 {
        node.append("long:1", &number.to_string(), None).await;
    }
    silence(&node).await;
    assert_eq!(keys(&node.shards).await, ["p:silent:h", "p:sums:h"], "it was silent longest");
    let silent: usize = node.shards.all()[0].query(redis::cmd("ZCARD").arg("p:silent:h")).await.unwrap();
    assert_eq!(silent, MAX_SILENT);
    let forgotten = Kept { number: 3, ..begin };
    let patient = Node::new(&server, HOUR, 1 << 20).await;
    for name in ["long:1", SAME_DIGEST] {
        assert_eq!(patient.position(name).await, forgotten);
        assert_eq!(patient.texts(name, forgotten).await, numbered([]));
        for seen in 0..3 {
            assert_eq!(patient.texts(name, Kept { number: seen, ..begin }).await, None, "it may have missed something");
        }
        patient.append(name, "4", None).await;
        assert_eq!(patient.position(name).await, Kept { number: 4, ..begin });
        assert_eq!(patient.texts(name, forgotten).await, numbered([4]));
        assert_eq!(patient.texts(name, begin).await, None);
    }
    assert_eq!(patient.position("long:2").await, begin, "others are not concerned");
}

#[tokio::test]
async fn a_silent_room_that_speaks_again_is_not_forgotten_and_counts_as_silent_no_more() {
    let server = RedisServer::start();
    let node = Node::new(&server, SOON, 1 << 20).await;
    let begin = node.position("long:1").await;
    node.append("long:1", "1", None).await;
    silence(&node).await;
    let patient = Node::new(&server, HOUR, 1 << 20).await;
    patient.append("long:1", "2", None).await;
    fill_silent(&node).await;
    node.append("long:2", "1", None).await;
    eventually(async || {
        assert!(!node.history.sweep().await.unwrap());
        !keys(&node.shards).await.contains(&"p:m:{long:2}".to_owned())
    })
    .await;
    assert_eq!(patient.position("long:1").await, Kept { number: 2, ..begin });
    assert_eq!(patient.texts("long:1", Kept { number: 1, ..begin }).await, numbered([2]));
}

#[tokio::test]
async fn what_the_engine_evicts_ends_the_sequence() {
    let server = RedisServer::start();
    let node = Node::new(&server, HOUR, 1 << 20).await;
    let begin = node.position("long:1").await;
    for evicted in ["p:m:{long:1}", "p:sums:h"] {
        node.append("long:1", "1", None).await;
        node.shards.all()[0].query::<()>(redis::cmd("UNLINK").arg(evicted)).await.unwrap();
        let other = node.position("long:2").await;
        let anew = node.position("long:1").await;
        node.append("long:1", "2", None).await;
        if evicted == "p:sums:h" {
            assert_ne!(other.sequence, begin.sequence);
        } else {
            assert_eq!((anew.number, node.texts("long:1", begin).await), (0, None));
            assert_eq!(node.texts("long:1", anew).await, Some(vec![(1, "2".to_owned())]));
        }
    }
}

/// What was published to some rooms, and what devices were told of them.
#[derive(Default)]
struct Story {
    published: [Vec<String>; 3],
    told: Vec<(usize, Kept, usize)>,
}

impl Story {
    const ROOMS: [&str; 3] = ["long:1", SAME_DIGEST, "long:2"];

    async fn publish(&mut self, node: &Node, room: usize) {
        let text = self.published[room].len().to_string();
        node.append(Self::ROOMS[room], &text, None).await;
        self.published[room].push(text);
    }

    async fn tell(&mut self, node: &Node, room: usize) {
        self.told.push((room, node.position(Self::ROOMS[room]).await, self.published[room].len()));
    }

    /// A device comes back. True if it is told all that it has missed.
    async fn resume(&self, node: &Node, device: usize) -> bool {
        let (room, told, published) = self.told[device % self.told.len()];
        let Some(texts) = node.texts(Self::ROOMS[room], told).await else { return false };
        let texts: Vec<_> = texts.into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, self.published[room][published..], "{told:?} in {}", Self::ROOMS[room]);
        true
    }
}

#[tokio::test]
async fn a_device_is_told_all_that_it_has_missed_or_that_it_may_have_missed_something() {
    let server = RedisServer::start();
    // Of some rooms the messages have no room.
    let node = Node::new(&server, HOUR, 700).await;
    fill_silent(&node).await;
    let engine = &node.shards.all()[0];
    let (mut story, mut told_whole, mut random) = (Story::default(), 0, 7_u64);
    for _ in 0..4_000 {
        // Of a linear congruential generator (Knuth's MMIX), the upper bits.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [step, room, device] = [0, 8, 16].map(|bits| usize::try_from(random >> (32 + bits) & 0xFF).unwrap());
        match step {
            0..90 => story.publish(&node, room % 3).await,
            90..170 => story.tell(&node, room % 3).await,
            170..240 if !story.told.is_empty() => {
                // One that was there lately.
                let device = story.told.len() - 1 - device / 8 % story.told.len();
                told_whole += usize::from(story.resume(&node, device).await);
            }
            // Another room may be silent.
            240..250 => engine.query(redis::cmd("ZREMRANGEBYRANK").arg("p:silent:h").arg(-1).arg(-1)).await.unwrap(),
            250 if device < 32 => engine.query(redis::cmd("UNLINK").arg("p:m:{long:1}")).await.unwrap(),
            251 if device < 32 => engine.query(redis::cmd("UNLINK").arg("p:sums:h")).await.unwrap(),
            252 if device < 32 => node.restart_engine().await,
            _ => {}
        }
    }
    assert!(told_whole > 100, "{told_whole}");
}
