//! Stored messages across nodes: one sequence of positions for all of them, whatever node is called, and whatever the bus does.

use std::{collections::BTreeSet, time::Duration};

use bugle::{
    config::Config,
    proto::v1::{EmitOptions, EmitToUserRequest, Receipt},
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    NODES,
    acks::in_background,
    harness::{Backend, Device, Event, SlowProxy, TestRedis, TestServer, answer, deadline, new_database, to_user},
    links::far_from_engine,
    resume::kept,
    stored::{emit_stored, store},
};

async fn resuming(server: &TestServer, node: usize, user: &str, resume: Value) -> Device {
    server.device_at(node, user).resume(resume).connect().await.expect("the device connects")
}

/// What the device is told of its own room.
async fn resumed(device: &mut Device, room: &str) -> Value {
    device.expect_event("bugle:resumed").await.value()["rooms"][room].clone()
}

fn number(position: &str) -> u64 {
    position.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).expect("a position")
}

/// The next stored message: its payload and its position's number.
async fn next(device: &mut Device) -> (u64, u64) {
    let event: Event = device.expect_event("e").await;
    let (payload, position) = kept(&event);
    (payload, number(&position))
}

/// Stores a payload at a node that may be without its engine or its database: until it is accepted.
async fn store_at_last(backend: &Backend, user: &str, payload: u64) -> Receipt {
    loop {
        let options = Some(EmitOptions { store: true, idempotency_key: format!("{user} {payload}"), ..store() });
        let request = EmitToUserRequest { options, ..to_user(user, "e", &payload.to_string()) };
        if let Ok(sent) = answer(backend.notify().emit_to_user(request)).await {
            return sent.receipt.expect("there is a receipt");
        }
    }
}

fn short_leases(config: &mut Config) {
    (config.cluster.lease, config.cluster.heartbeat) = (Duration::from_secs(1), Duration::from_millis(200));
}

#[tokio::test]
async fn positions_rise_on_every_device_though_the_publishes_of_nodes_cross_on_the_bus() {
    const EMITS: u64 = 20;
    let redis = TestRedis::start(false);
    let links = far_from_engine(&redis).await;
    let server = TestServer::start_each_with(|number, config| {
        config.cluster.redis = vec![links[number].url().to_owned().into()];
        config.cluster.deadline = Duration::from_secs(10);
    })
    .await;
    let mut devices = Vec::new();
    for node in 0..NODES {
        let mut device = resuming(&server, node, "42", json!({})).await;
        assert_eq!(resumed(&mut device, "user:42").await["recovered"], json!(true));
        devices.push(device);
    }
    let senders = join_all((0..2 * NODES).map(|sender| server.backend_of(sender % NODES))).await;
    let sending = senders.into_iter().map(|backend| {
        in_background(async move {
            for payload in 0..EMITS {
                let receipt = emit_stored(&backend, "42", &payload.to_string()).await;
                assert!(!receipt.partial && receipt.matched == NODES as u64, "{receipt:?}");
            }
        })
    });
    let sending = join_all(sending);
    let all = EMITS * 2 * NODES as u64;
    for device in &mut devices {
        for position in 1..=all {
            assert_eq!(next(device).await.1, position);
        }
    }
    sending.await.into_iter().for_each(|sent| sent.expect("a sender does not panic"));
}

#[tokio::test]
async fn of_two_emits_with_one_key_at_two_nodes_one_is_stored_and_the_other_is_told() {
    const PAIRS: usize = 100;
    let server = TestServer::start().await;
    let backends = join_all((0..NODES).map(|node| server.backend_of(node))).await;
    let mut device = resuming(&server, 0, "42", json!({})).await;
    resumed(&mut device, "user:42").await;
    for pair in 0..PAIRS {
        let (one, other) = (&backends[pair % NODES], &backends[(pair + 1) % NODES]);
        let payload = pair as u64;
        let (one, other) = futures_util::join!(store_at_last(one, "42", payload), store_at_last(other, "42", payload));
        assert_eq!((&one.message_id, &one.position), (&other.message_id, &other.position), "pair {pair}");
        assert!(one.duplicate != other.duplicate && one.stored && other.stored, "pair {pair}: {one:?} {other:?}");
        assert_eq!(next(&mut device).await, (payload, payload + 1));
    }
}

#[tokio::test]
async fn a_device_that_does_not_resume_gets_all_that_was_stored_by_turns_at_other_nodes() {
    let server = TestServer::start().await;
    let backends = join_all((0..NODES).map(|node| server.backend_of(node))).await;
    let mut seen = BTreeSet::new();
    for visit in 0..6_u64 {
        // Some come while it is there, and some while it is away.
        for payload in 0..3 {
            emit_stored(
                &backends[usize::try_from(payload).unwrap() % NODES],
                "42",
                &(visit * 10 + payload).to_string(),
            )
            .await;
        }
        let node = usize::try_from(visit).unwrap() % NODES;
        let mut device = server.device_at(node, "42").connect().await.expect("the device connects");
        for payload in 3..6 {
            emit_stored(
                &backends[usize::try_from(payload).unwrap() % NODES],
                "42",
                &(visit * 10 + payload).to_string(),
            )
            .await;
        }
        let expected: BTreeSet<_> = (0..=visit).flat_map(|visit| (0..6).map(move |n| visit * 10 + n)).collect();
        while seen != expected {
            seen.insert(device.expect_event("e").await.value().as_u64().expect("a number"));
        }
        device.close().await;
    }
}

#[tokio::test]
async fn a_device_that_comes_back_to_another_node_has_everything_once_and_in_order() {
    const EMITS: u64 = 200;
    let server = TestServer::start().await;
    let backends = join_all((0..NODES).map(|node| server.backend_of(node))).await;
    let sending = backends.into_iter().map(|backend| {
        in_background(async move {
            for payload in 0..EMITS {
                emit_stored(&backend, "42", &payload.to_string()).await;
            }
        })
    });
    let sending = join_all(sending);
    let (mut last, mut position, all) = (0, String::new(), EMITS * NODES as u64);
    for node in (0..NODES).cycle() {
        let seen = if position.is_empty() { json!({}) } else { json!({ "user:42": position }) };
        let mut device = resuming(&server, node, "42", seen).await;
        // What it was replayed comes before it is told.
        for _ in 0..30 {
            let event = deadline("an event", device.next_event()).await;
            if event.name == "bugle:resumed" {
                assert_eq!(event.value()["rooms"]["user:42"]["recovered"], json!(true));
                continue;
            }
            let (_, at) = kept(&event);
            last += 1;
            assert_eq!(number(&at), last, "at node {node}");
            position = at;
            if last == all {
                break;
            }
        }
        device.abort().await;
        if last == all {
            break;
        }
    }
    sending.await.into_iter().for_each(|sent| sent.expect("a sender does not panic"));
}

#[tokio::test]
async fn without_the_engine_stored_emits_are_accepted_and_come_to_devices_at_all_nodes() {
    let redis = TestRedis::start(false);
    let server = TestServer::start_with(|config| {
        config.cluster.redis = vec![redis.url().into()];
        short_leases(config);
    })
    .await;
    let backends = join_all((0..NODES).map(|node| server.backend_of(node))).await;
    let mut devices = Vec::new();
    for node in 0..NODES {
        let mut device = resuming(&server, node, "42", json!({})).await;
        resumed(&mut device, "user:42").await;
        devices.push(device);
    }
    redis.kill_9();
    for (payload, backend) in (0..).zip(&backends) {
        let receipt = emit_stored(backend, "42", &u64::to_string(&payload)).await;
        assert!(receipt.stored && receipt.partial, "{receipt:?}");
    }
    for device in &mut devices {
        for payload in 0..NODES as u64 {
            assert_eq!(next(device).await, (payload, payload + 1));
        }
    }
    redis.restart();
    let mut payload = NODES as u64;
    loop {
        let receipt = emit_stored(&backends[0], "42", &payload.to_string()).await;
        payload += 1;
        if !receipt.partial {
            break;
        }
    }
    for device in &mut devices {
        for expected in NODES as u64..payload {
            assert_eq!(next(device).await, (expected, expected + 1));
        }
    }
}

#[tokio::test]
async fn while_the_database_hangs_plain_emits_pass_and_what_is_stored_then_comes_whole() {
    let database = new_database();
    let proxy = SlowProxy::start(&database, Duration::ZERO).await;
    let server = TestServer::start_each_with(|node, config| {
        let url = if node == 0 { proxy.url().to_owned() } else { database.clone() };
        config.store.url = url.into();
    })
    .await;
    let mut device = resuming(&server, 0, "42", json!({})).await;
    resumed(&mut device, "user:42").await;
    let backend = server.backend_of(1).await;
    emit_stored(&backend, "42", "0").await;
    assert_eq!(next(&mut device).await, (0, 1));
    proxy.hang();
    let receipt = emit_stored(&backend, "42", "1").await;
    assert_eq!((receipt.matched, receipt.partial), (1, false), "its frame has all that the device's node needs");
    assert_eq!(next(&mut device).await, (1, 2));
    assert_eq!(backend.emit_to_user("42", "plain", "1").await.matched, 1);
    device.expect_event("plain").await;
    proxy.go_on();
    emit_stored(&backend, "42", "2").await;
    assert_eq!(next(&mut device).await, (2, 3));
}

#[tokio::test]
async fn what_a_user_has_not_read_is_told_to_all_devices_at_all_nodes() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut devices = Vec::new();
    for node in 0..NODES {
        devices.push(server.device_at(node, "42").connect().await.expect("the device connects"));
    }
    let mut ids = Vec::new();
    for payload in 0..3 {
        ids.push(emit_stored(&backend, "42", &payload.to_string()).await.message_id);
    }
    let read = bugle::proto::v1::MarkReadRequest {
        room: "user:42".into(),
        user_id: "42".into(),
        what: Some(bugle::proto::v1::mark_read_request::What::MessageId(ids[0].clone())),
    };
    answer(backend.mailbox().mark_read(read)).await.expect("it is marked");
    for device in &mut devices {
        for payload in 0..3 {
            assert_eq!(device.expect_event("e").await.json(), payload.to_string());
        }
        let told = device.expect_event("bugle:unread").await.value();
        assert_eq!((&told["room"], &told["count"]), (&json!("user:42"), &json!(2)));
    }
}
