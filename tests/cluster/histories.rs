//! Histories across nodes: one sequence of positions for all of them, whatever node is called, and never a hole that a device is not told of.

use std::time::Duration;

use bugle::config::Config;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    NODES,
    acks::in_background,
    harness::{Backend, Device, SlowProxy, TestRedis, TestServer, answer, deadline, to_user},
    links::far_from_engine,
    resume::{history, kept},
};

fn with_history(config: &mut Config) {
    config.rooms.push(history("user:*"));
    (config.cluster.lease, config.cluster.heartbeat) = (Duration::from_secs(1), Duration::from_millis(200));
}

async fn start(redis: &TestRedis) -> TestServer {
    TestServer::start_with(|config| {
        with_history(config);
        config.cluster.redis = vec![redis.url().into()];
        "test".clone_into(&mut config.cluster.prefix);
    })
    .await
}

/// The first node reaches the engine over a link.
pub(crate) async fn start_with_link(redis: &TestRedis) -> (TestServer, SlowProxy) {
    let link = SlowProxy::start_before_redis(redis.address(), Duration::ZERO).await;
    let server = TestServer::start_each_with(|number, config| {
        with_history(config);
        let url = if number == 0 { link.url().to_owned() } else { redis.url() };
        config.cluster.redis = vec![url.into()];
        "test".clone_into(&mut config.cluster.prefix);
    })
    .await;
    (server, link)
}

pub(crate) async fn resuming(server: &TestServer, node: usize, said: Value) -> Device {
    server.device_at(node, "42").resume(said).connect().await.expect("the device connects")
}

/// A device that has seen nothing, and where it is told that its room stands.
pub(crate) async fn fresh(server: &TestServer, node: usize) -> (Device, String) {
    let mut device = resuming(server, node, json!({})).await;
    let told = resumed(&mut device).await;
    assert_eq!((&told["recovered"], &told["count"]), (&json!(true), &json!(0)));
    (device, position(&told))
}

/// What the device is told of its own room.
pub(crate) async fn resumed(device: &mut Device) -> Value {
    device.expect_event("bugle:resumed").await.value()["rooms"]["user:42"].clone()
}

pub(crate) fn position(told: &Value) -> String {
    told["position"].as_str().expect("it is told where the room stands").to_owned()
}

pub(crate) fn number(position: &str) -> u64 {
    position.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).expect("a position")
}

pub(crate) fn sequence(position: &str) -> &str {
    position.rsplit_once('.').expect("a position").0
}

/// The next message: its payload and its position.
async fn next(device: &mut Device) -> (u64, String) {
    kept(&device.expect_event("e").await)
}

/// Emits at a node that may be without its engine: until it is accepted.
pub(crate) async fn emit(backend: &Backend, payload: u64) {
    let accepted = async {
        while answer(backend.notify().emit_to_user(to_user("42", "e", &payload.to_string()))).await.is_err() {}
    };
    Box::pin(deadline("it is accepted", Box::pin(accepted))).await;
}

/// Takes messages up to the one with this payload. All their positions follow each other from `after`. Returns the last one.
pub(crate) async fn whole_up_to(device: &mut Device, last: u64, after: &str) -> String {
    let mut before = number(after);
    loop {
        let (payload, position) = next(device).await;
        assert_eq!((number(&position), sequence(&position)), (before + 1, sequence(after)), "payload {payload}");
        if payload == last {
            return position;
        }
        before += 1;
    }
}

#[tokio::test]
async fn positions_rise_by_one_on_every_device_with_publishers_at_all_nodes() {
    const EMITS: u64 = 20;
    let redis = TestRedis::start(false);
    let links = far_from_engine(&redis).await;
    let server = TestServer::start_each_with(|number, config| {
        config.rooms.push(history("user:*"));
        config.cluster.redis = vec![links[number].url().to_owned().into()];
        config.cluster.deadline = Duration::from_secs(10);
    })
    .await;
    let mut devices = Vec::new();
    for node in 0..NODES {
        devices.push(fresh(&server, node).await);
    }
    let senders = join_all((0..2 * NODES).map(|sender| server.backend_of(sender % NODES))).await;
    let sending = join_all(senders.into_iter().map(|backend| {
        in_background(async move {
            for payload in 0..EMITS {
                let receipt = backend.emit_to_user("42", "e", &payload.to_string()).await;
                assert!(!receipt.partial && receipt.matched == NODES as u64, "{receipt:?}");
            }
        })
    }));
    for (device, begin) in &mut devices {
        for expected in number(begin) + 1..=EMITS * 2 * NODES as u64 {
            let (_, position) = next(device).await;
            assert_eq!((number(&position), sequence(&position)), (expected, sequence(begin)));
        }
    }
    sending.await.into_iter().for_each(|sent| sent.expect("a sender does not panic"));
}

#[tokio::test]
async fn a_device_that_comes_back_to_another_node_gets_exactly_what_it_missed() {
    let server = TestServer::start_with(with_history).await;
    let backends = join_all((0..NODES).map(|node| server.backend_of(node))).await;
    let (mut device, mut seen) = fresh(&server, 0).await;
    let mut payload = 0;
    for round in 0..6 {
        emit(&backends[round % NODES], payload).await;
        seen = whole_up_to(&mut device, payload, &seen).await;
        device.abort().await;
        for missed in payload + 1..=payload + 3 {
            emit(&backends[(round + 1) % NODES], missed).await;
        }
        payload += 4;
        device = resuming(&server, (round + 1) % NODES, json!({ "user:42": seen })).await;
        seen = whole_up_to(&mut device, payload - 1, &seen).await;
        assert_eq!(resumed(&mut device).await, json!({ "recovered": true, "count": 3, "position": seen }));
    }
}

#[tokio::test]
async fn who_comes_back_in_the_middle_of_a_burst_misses_nothing_and_gets_nothing_twice() {
    const EMITS: u64 = 300;
    let server = TestServer::start_with(with_history).await;
    let (mut device, mut seen) = fresh(&server, 0).await;
    let backend = server.backend_of(1).await;
    let bursting = in_background(async move {
        for payload in 1..=EMITS {
            emit(&backend, payload).await;
        }
    });
    let mut node = 0;
    while number(&seen) < EMITS {
        for _ in 0..10 {
            let event = device.next_event().await;
            if event.name == "bugle:resumed" {
                assert_eq!(event.value()["rooms"]["user:42"]["recovered"], json!(true));
                continue;
            }
            let (payload, position) = kept(&event);
            assert_eq!((number(&position), payload), (number(&seen) + 1, number(&seen) + 1));
            seen = position;
            if payload == EMITS {
                break;
            }
        }
        device.abort().await;
        node = (node + 1) % NODES;
        device = resuming(&server, node, json!({ "user:42": seen })).await;
    }
    bursting.await.expect("it ends");
}

#[tokio::test]
async fn what_was_published_while_nodes_did_not_hear_it_is_sent_in_its_place_afterwards() {
    const EMITS: u64 = 200;
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    let mut devices = Vec::new();
    for node in 0..NODES {
        devices.push(fresh(&server, node).await);
    }
    let backend = server.backend_of(1).await;
    let emitting = in_background(async move {
        for payload in 1..=EMITS {
            emit(&backend, payload).await;
        }
    });
    for (round, (device, seen)) in devices.iter_mut().enumerate() {
        *seen = whole_up_to(device, 20, seen).await;
        if round == 0 {
            redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
        *seen = whole_up_to(device, EMITS, seen).await;
        assert_eq!(number(seen), EMITS);
    }
    emitting.await.expect("it ends");
}

#[tokio::test]
async fn a_room_where_the_last_message_came_in_a_gap_gets_it_though_nothing_follows() {
    let redis = TestRedis::start(false);
    let (server, link) = start_with_link(&redis).await;
    let (mut device, begin) = fresh(&server, 0).await;
    let backend = server.backend_of(1).await;
    link.hang();
    emit(&backend, 1).await;
    emit(&backend, 2).await;
    link.go_on();
    assert_eq!(number(&whole_up_to(&mut device, 2, &begin).await), 2);
}

#[tokio::test]
async fn after_the_engine_has_lost_its_data_devices_are_told_that_they_may_have_missed_something() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    let backend = server.backend_of(1).await;
    let (mut stays, begin) = fresh(&server, 0).await;
    emit(&backend, 1).await;
    let seen = whole_up_to(&mut stays, 1, &begin).await;
    redis.kill_9();
    redis.restart();
    let told = resumed(&mut stays).await;
    assert_eq!((&told["recovered"], number(&position(&told))), (&json!(false), 0));
    emit(&backend, 2).await;
    let anew = whole_up_to(&mut stays, 2, &position(&told)).await;
    assert_ne!(sequence(&anew), sequence(&seen));
    for said in [begin, seen] {
        let mut back = resuming(&server, 2, json!({ "user:42": said })).await;
        assert_eq!(resumed(&mut back).await, json!({ "recovered": false, "count": 0, "position": anew }));
    }
    let mut back = resuming(&server, 2, json!({ "user:42": anew })).await;
    assert_eq!(resumed(&mut back).await, json!({ "recovered": true, "count": 0, "position": anew }));
}

#[tokio::test]
async fn an_engine_that_comes_back_with_older_data_never_hides_what_it_has_lost() {
    let redis = TestRedis::start(false);
    let server = start(&redis).await;
    let backend = server.backend_of(1).await;
    let (mut stays, mut seen) = fresh(&server, 0).await;
    let mut positions = vec![seen.clone()];
    for payload in 1..=5 {
        if payload == 4 {
            // As a replica that lags.
            assert_eq!(redis.cli(&["SAVE"]), "OK");
        }
        emit(&backend, payload).await;
        seen = whole_up_to(&mut stays, payload, &seen).await;
        positions.push(seen.clone());
    }
    redis.kill_9();
    redis.restart();
    assert!(redis.cli(&["HGET", "test:m:{user:42}", "n"]).parse::<u64>().expect("it has the older data") <= 3);
    let told = resumed(&mut stays).await;
    assert_eq!(told["recovered"], json!(false));
    for payload in 6..=9 {
        emit(&backend, payload).await;
    }
    let last = whole_up_to(&mut stays, 9, &position(&told)).await;
    for said in positions {
        let mut back = resuming(&server, 2, json!({ "user:42": said })).await;
        assert_eq!(resumed(&mut back).await, json!({ "recovered": false, "count": 0, "position": last }), "{said}");
    }
}

#[tokio::test]
async fn while_the_engine_is_away_devices_stay_and_come_back_and_their_room_goes_on_afterwards() {
    let redis = TestRedis::start(true);
    let server = start(&redis).await;
    let backend = server.backend_of(1).await;
    let (mut stays, begin) = fresh(&server, 0).await;
    emit(&backend, 1).await;
    let seen = whole_up_to(&mut stays, 1, &begin).await;
    redis.kill_9();
    let refused = answer(backend.notify().emit_to_user(to_user("42", "e", "2"))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let mut back = resuming(&server, 2, json!({ "user:42": seen })).await;
    let mut new = resuming(&server, 1, json!({})).await;
    redis.restart();
    for device in [&mut stays, &mut back] {
        let told = resumed(device).await;
        assert_eq!((&told["recovered"], number(&position(&told))), (&json!(false), 0));
    }
    let mut told = resumed(&mut new).await;
    while told.is_null() {
        told = resumed(&mut new).await;
    }
    emit(&backend, 3).await;
    let (payload, position) = next(&mut back).await;
    assert_eq!((payload, number(&position)), (3, 1));
    assert_eq!((told["count"].clone(), next(&mut new).await), (json!(0), (3, position)));
}
