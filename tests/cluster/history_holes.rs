//! Messages of histories that did not come to a node in their frames, and what it does while they cannot be read.

use std::time::Duration;

use serde_json::json;

use crate::{
    acks::in_background,
    harness::{Backend, SlowProxy, TestRedis, TestServer, deadline, eventually},
    histories::{emit, fresh, number, position, resumed, resuming, sequence, start_with_link, whole_up_to},
    resume::{history, kept},
};

/// What calls of functions begin with, which read what came after a message, and where a room stands. The text of all functions has the names, too.
const READS: &str = "\r\nread_messages_";
const ASKS: &str = "\r\nstand_";

/// Hangs a node's link to the engine, and emits three messages at another node.
async fn misses_three(server: &TestServer, link: &SlowProxy) -> Backend {
    let backend = server.backend_of(1).await;
    link.hang();
    for payload in 1..=3 {
        emit(&backend, payload).await;
    }
    backend
}

#[tokio::test]
async fn what_cannot_be_read_at_once_is_read_again_and_nobody_is_told_that_it_is_missing() {
    let redis = TestRedis::start(false);
    let (server, link) = start_with_link(&redis).await;
    let (mut device, begin) = fresh(&server, 0).await;
    let backend = misses_three(&server, &link).await;
    let reads = link.hang_connection_at(&[READS]);
    link.go_on();
    deadline("the node to read what it has missed", reads).await;
    emit(&backend, 4).await;
    let seen = whole_up_to(&mut device, 4, &begin).await;
    let mut back = resuming(&server, 0, json!({ "user:42": begin })).await;
    assert_eq!(whole_up_to(&mut back, 4, &begin).await, seen);
    assert_eq!(resumed(&mut back).await, json!({ "recovered": true, "count": 4, "position": seen }));
}

#[tokio::test]
async fn what_is_not_there_any_more_is_told_and_the_room_goes_on() {
    let redis = TestRedis::start(false);
    let (server, link) = start_with_link(&redis).await;
    let (mut device, begin) = fresh(&server, 0).await;
    let backend = misses_three(&server, &link).await;
    assert_eq!(redis.cli(&["DEL", "test:h:{user:42}"]), "1");
    link.go_on();
    let told = resumed(&mut device).await;
    assert_eq!((&told["recovered"], sequence(&position(&told))), (&json!(false), sequence(&begin)));
    emit(&backend, 4).await;
    let mut before = number(&position(&told));
    loop {
        let event = device.next_event().await;
        if event.name == "bugle:resumed" {
            // The frames of some were not too late.
            before = number(&position(&event.value()["rooms"]["user:42"]));
            continue;
        }
        let (payload, position) = kept(&event);
        assert_eq!((number(&position), payload), (before + 1, before + 1));
        if payload == 4 {
            return;
        }
        before += 1;
    }
}

/// Has nodes hear of a message of a room's history whose frame they do not understand.
fn publish_foreign(redis: &TestRedis, position: &str) {
    const PUBLISH: &str = "local sequence = ARGV[2]:gsub('..', function(hex) return string.char(tonumber(hex, 16)) end)
        local head = string.char(200) .. string.rep('\\0', 24) .. sequence .. struct.pack('>I8', ARGV[3])
        return redis.call('PUBLISH', ARGV[1], head)";
    let number = number(position).to_string();
    redis.cli(&["EVAL", PUBLISH, "0", "test:r:user:42", sequence(position), &number]);
}

#[tokio::test]
async fn a_room_does_not_go_back_to_a_sequence_that_is_over_when_the_engine_cannot_be_asked() {
    let redis = TestRedis::start(false);
    let (server, link) = start_with_link(&redis).await;
    let backend = server.backend_of(1).await;
    let (mut device, begin) = fresh(&server, 0).await;
    emit(&backend, 1).await;
    let over = whole_up_to(&mut device, 1, &begin).await;
    redis.kill_9();
    redis.restart();
    let anew = position(&resumed(&mut device).await);
    emit(&backend, 2).await;
    let seen = whole_up_to(&mut device, 2, &anew).await;
    for lagging in [&begin, &over] {
        let asks = link.hang_connection_at(&[ASKS]);
        // A number that none of the later sequence has.
        publish_foreign(&redis, &format!("{}.{}", sequence(lagging), number(lagging) + 7));
        deadline("the node to ask which sequence is over", asks).await;
        let asks_again = link.sees(&[ASKS]);
        deadline("the node to ask again", asks_again).await;
    }
    emit(&backend, 3).await;
    whole_up_to(&mut device, 3, &seen).await;
}

/// Where a room stands, as the engine has it. The sequence is empty as long as nothing is written of the room.
fn stands(redis: &TestRedis) -> String {
    const SEQUENCE: &str = "local sequence = redis.call('HGET', KEYS[1], 's') or ''
        return (sequence:gsub('.', function(byte) return string.format('%02x', byte:byte()) end))";
    let meta = "test:m:{user:42}";
    format!("{}.{}", redis.cli(&["EVAL", SEQUENCE, "1", meta]), redis.cli(&["HGET", meta, "n"]))
}

#[tokio::test]
async fn who_comes_to_a_node_that_has_not_heard_that_a_sequence_is_over_is_not_told_that_something_is_missing() {
    let redis = TestRedis::start(false);
    let link = SlowProxy::start_before_redis(redis.address(), Duration::ZERO).await;
    let server = TestServer::start_each_with(|number, config| {
        config.rooms.push(history("user:*"));
        let url = if number == 0 { link.url().to_owned() } else { redis.url() };
        config.cluster.redis = vec![url.into()];
        "test".clone_into(&mut config.cluster.prefix);
        // The first node is deaf for a while, and nobody gives it up.
        config.cluster.deadline = Duration::from_secs(10);
    })
    .await;
    let (mut stays, begin) = fresh(&server, 0).await;
    let deaf = link.hang_connection_at(&["SUBSCRIBE", "user:other"]);
    let other = server.device_at(0, "other");
    in_background(async move { other.connect().await });
    deadline("the subscribing connection to hang", deaf).await;
    // As after a fail-over, and all connections for commands know it.
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let backend = server.backend_of(1).await;
    let emitting = in_background(async move { emit(&backend, 1).await });
    let has_begun = async || !["", sequence(&begin)].contains(&sequence(&stands(&redis)));
    eventually("a sequence to begin", has_begun).await;
    let seen = stands(&redis);
    let mut comes = resuming(&server, 0, json!({ "user:42": seen })).await;
    assert_eq!(resumed(&mut comes).await, json!({ "recovered": true, "count": 0, "position": seen }));
    let told = resumed(&mut stays).await;
    assert_eq!((&told["recovered"], number(&position(&told))), (&json!(false), 0));
    assert_eq!(whole_up_to(&mut stays, 1, &position(&told)).await, seen);
    link.go_on();
    emitting.await.expect("it is accepted");
    emit(&server.backend_of(1).await, 2).await;
    for device in [&mut stays, &mut comes] {
        whole_up_to(device, 2, &seen).await;
    }
}
