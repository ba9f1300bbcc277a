//! Messages of histories that did not come to a node in their frames, and what it does while they cannot be read.

use serde_json::json;

use crate::{
    harness::{TestRedis, deadline},
    histories::{emit, fresh, number, position, resumed, resuming, sequence, start_with_link, whole_up_to},
    resume::kept,
};

#[tokio::test]
async fn what_cannot_be_read_at_once_is_read_again_and_nobody_is_told_that_it_is_missing() {
    let redis = TestRedis::start(false);
    let (server, link) = start_with_link(&redis).await;
    let (mut device, begin) = fresh(&server, 0).await;
    let backend = server.backend_of(1).await;
    link.hang();
    for payload in 1..=3 {
        emit(&backend, payload).await;
    }
    let reads = link.hang_connection_at(&["read_messages"]);
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
    let backend = server.backend_of(1).await;
    link.hang();
    for payload in 1..=3 {
        emit(&backend, payload).await;
    }
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
        let asks = link.hang_connection_at(&["stand"]);
        // A number that none of the later sequence has.
        publish_foreign(&redis, &format!("{}.{}", sequence(lagging), number(lagging) + 7));
        deadline("the node to ask which sequence is over", asks).await;
        let asks_again = link.sees(&["stand"]);
        deadline("the node to ask again", asks_again).await;
    }
    emit(&backend, 3).await;
    whole_up_to(&mut device, 3, &seen).await;
}

#[tokio::test]
async fn who_comes_to_a_node_that_does_not_know_yet_that_a_sequence_is_over_is_not_told_that_something_is_missing() {
    let redis = TestRedis::start(false);
    let (server, link) = start_with_link(&redis).await;
    let backend = server.backend_of(1).await;
    let (mut stays, begin) = fresh(&server, 0).await;
    emit(&backend, 1).await;
    whole_up_to(&mut stays, 1, &begin).await;
    redis.kill_9();
    let asks = link.hang_connection_at(&["stand"]);
    redis.restart();
    deadline("the first node to ask where its rooms stand", asks).await;
    let asks_again = link.hang_connection_at(&["stand"]);
    emit(&backend, 2).await;
    let (_, seen) = fresh(&server, 1).await;
    let mut comes = resuming(&server, 0, json!({ "user:42": seen })).await;
    deadline("the first node to ask again", asks_again).await;
    assert_eq!(resumed(&mut comes).await, json!({ "recovered": true, "count": 0, "position": seen }));
    let told = resumed(&mut stays).await;
    assert_eq!((&told["recovered"], sequence(&position(&told))), (&json!(false), sequence(&seen)));
    emit(&backend, 3).await;
    whole_up_to(&mut stays, 3, &position(&told)).await;
    whole_up_to(&mut comes, 3, &seen).await;
}
