//! Stored emits: kept before they are sent, and given to devices that come later.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToRoomRequest, EmitToUserRequest, EmitToUsersRequest, Receipt};
use serde_json::json;
use tonic::Code;

use crate::NODES;
use crate::harness::{
    Backend, Device, EVERY_WAY, PlainDevice, PlainFrame, TestServer, answer, eventually, named, new_database, raw_http,
    refused, to_everyone, to_room, to_user, to_users, token, token_with,
};

const DAY: Duration = Duration::from_hours(24);

pub(crate) fn store() -> EmitOptions {
    EmitOptions { store: true, ..EmitOptions::default() }
}

fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().expect("it fits")
}

fn stored(user: &str, json: &str) -> EmitToUserRequest {
    EmitToUserRequest { options: Some(store()), ..to_user(user, "e", json) }
}

pub(crate) async fn emit_stored(backend: &Backend, user: &str, json: &str) -> Receipt {
    emit(backend, stored(user, json)).await
}

async fn emit(backend: &Backend, request: EmitToUserRequest) -> Receipt {
    let response = answer(backend.notify().emit_to_user(request)).await.expect("the emit is accepted");
    response.receipt.expect("there is a receipt")
}

/// Waits until the server has the device's proof of all that it was sent before: it answers the ping behind that, or polls again, before
/// it acknowledges what comes later.
async fn settled(backend: &Backend, user: &str, device: &mut Device) {
    let mut notify = backend.notify();
    let options = Some(crate::acks::acks(bugle::proto::v1::ack_options::Mode::Any, crate::acks::LONG));
    let request = EmitToUserRequest { options, ..crate::harness::to_user(user, "settle", "1") };
    let emit = crate::acks::in_background(async move { notify.emit_to_user(request).await });
    let asked = device.expect_event("settle").await;
    device.acknowledge(&asked, "[]");
    emit.await.expect("the call ends").expect("the emit is accepted");
}

/// A node that is asked for the user's devices first writes what they have proven, within half of this time. By default that is less than a write to a
/// busy disk takes.
fn patient(config: &mut bugle::config::Config) {
    config.cluster.deadline = Duration::from_secs(10);
}

async fn expect_all(device: &mut Device, payloads: impl IntoIterator<Item = u32>) {
    for payload in payloads {
        assert_eq!(device.expect_event("e").await.json(), payload.to_string());
    }
}

#[tokio::test]
async fn what_was_stored_for_nobody_comes_once_and_in_order_to_the_first_device_of_each_kind() {
    let server = TestServer::start_with(patient).await;
    let backend = server.backend().await;
    for (index, (transport, protocol)) in EVERY_WAY.into_iter().enumerate() {
        let user = index.to_string();
        let mut positions = Vec::new();
        for n in 1..=3 {
            let receipt = emit_stored(&backend, &user, &n.to_string()).await;
            assert!(receipt.stored && receipt.matched == 0);
            positions.push(receipt.position);
        }
        let epoch = positions[0].strip_suffix(".1").expect("the first position");
        assert_eq!(positions[1..], [format!("{epoch}.2"), format!("{epoch}.3")]);
        let device = || server.device(&user).transport(transport).protocol(protocol);
        let mut first = device().connect().await.unwrap();
        expect_all(&mut first, 1..=3).await;
        let receipt = emit_stored(&backend, &user, "4").await;
        assert_eq!((receipt.matched, receipt.enqueued), (1, 1));
        expect_all(&mut first, [4]).await;
        settled(&backend, &user, &mut first).await;
        let mut second = device().connect().await.unwrap();
        backend.emit_to_user(&user, "next", "5").await;
        assert_eq!(second.next_event().await.json(), "5", "nothing was missed");
    }
}

#[tokio::test]
async fn a_plain_websocket_gets_what_was_stored_for_its_user() {
    let endpoint = |config: &mut bugle::config::Config| {
        config.websocket.push(bugle::websocket::EndpointConfig {
            path: "/ws".into(),
            events: vec![bugle::message::EventPattern::new("e*").unwrap()],
            auth_timeout: Duration::from_secs(5),
        });
    };
    let server = TestServer::start_with(endpoint).await;
    let backend = server.backend().await;
    for n in 1..=2 {
        emit_stored(&backend, "42", &n.to_string()).await;
    }
    let mut device = PlainDevice::builder(server.clients(), "/ws").open().await.unwrap();
    device.authenticate(&token("42")).await;
    for n in 1..=2 {
        assert_eq!(device.receive().await, PlainFrame::text(&n.to_string()));
    }
}

#[tokio::test]
async fn what_has_expired_in_a_week_is_not_given_and_the_rest_is_in_order_once() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for n in 1..=6 {
        let ttl = (n % 2 == 0).then(|| duration(DAY));
        let options = Some(EmitOptions { ttl, ..store() });
        emit(&backend, EmitToUserRequest { options, ..stored("42", &n.to_string()) }).await;
    }
    server.clock.advance(7 * DAY);
    let week = json!({ "sub": "42", "exp": server.clock.now().as_second() + 3_600 });
    let mut device = server.device("42").token(token_with(&week)).connect().await.unwrap();
    expect_all(&mut device, [1, 3, 5]).await;
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next");
}

#[tokio::test]
async fn excepted_users_do_not_get_it_later_either() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let except = EmitOptions { except_user_ids: vec!["42".into()], ..store() };
    emit(&backend, EmitToUserRequest { options: Some(except), ..stored("42", "1") }).await;
    emit_stored(&backend, "42", "2").await;
    expect_all(&mut server.connect("42").await, [2]).await;
}

#[tokio::test]
async fn an_envelope_is_stored_as_it_is_sent() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let options = Some(EmitOptions { envelope: true, ..store() });
    emit(&backend, EmitToUserRequest { options, ..stored("42", "[1.10]") }).await;
    let mut device = server.connect("42").await;
    let event = device.expect_event("e").await;
    assert!(event.json().starts_with(r#"{"event":"e","timestamp":""#) && event.json().ends_with(r#""data":[1.10]}"#));
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_says_why() {
    let server = TestServer::start_with(|config| config.rooms.push(super::resume::history("listing:*"))).await;
    let notify = server.backend().await.notify();
    let with = |options: EmitOptions| EmitToUserRequest { options: Some(options), ..to_user("42", "e", "1") };
    for (options, field) in [
        (EmitOptions { collapse_key: "k".into(), ..store() }, "options.collapse_key"),
        (EmitOptions { volatile: true, ..store() }, "options.volatile"),
        (EmitOptions { except_rooms: vec!["a".into()], ..store() }, "options.except_rooms"),
        (EmitOptions { ttl: Some(duration(Duration::ZERO)), ..store() }, "options.ttl"),
        (EmitOptions { ttl: Some(prost_types::Duration { seconds: -1, nanos: 0 }), ..store() }, "options.ttl"),
        (EmitOptions { ttl: Some(duration(4_000 * DAY)), ..store() }, "options.ttl"),
    ] {
        let status = refused(Code::InvalidArgument, notify.clone().emit_to_user(with(options))).await;
        assert_eq!(named(&status), [field]);
    }
    let mut broadcast = to_everyone("e", "1");
    broadcast.options = Some(store());
    assert_eq!(named(&refused(Code::InvalidArgument, notify.clone().broadcast(broadcast)).await), ["options.store"]);
    let to_history = EmitToRoomRequest { options: Some(store()), ..to_room("listing:1", "e", "1") };
    let status = refused(Code::InvalidArgument, notify.clone().emit_to_room(to_history)).await;
    assert_eq!(named(&status), ["options.store"]);
    let except = EmitOptions { except_rooms: vec!["a".into()], ..EmitOptions::default() };
    let to_history = EmitToRoomRequest { options: Some(except), ..to_room("listing:1", "e", "1") };
    let status = refused(Code::InvalidArgument, notify.clone().emit_to_room(to_history)).await;
    assert_eq!(named(&status), ["options.except_rooms"]);
}

#[tokio::test]
async fn without_a_store_nothing_is_stored_and_the_key_is_named() {
    let server = TestServer::start_with(|config| config.store.url = "".into()).await;
    let backend = server.backend().await;
    let status = refused(Code::FailedPrecondition, backend.notify().emit_to_user(stored("42", "1"))).await;
    assert!(status.message().contains("store.url"), "{}", status.message());
    server.connect("42").await;
}

pub(crate) async fn readiness(server: &TestServer) -> u16 {
    let request = "GET /readyz HTTP/1.1\r\nhost: bugle\r\nconnection: close\r\n\r\n";
    let response = raw_http(server.admin(), request).await;
    std::str::from_utf8(&response[9..12]).expect("a status").parse().expect("a status")
}

#[tokio::test]
async fn a_repetition_is_a_duplicate_even_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = format!("sqlite:{}/bugle.db", directory.path().display());
    let url = if NODES == 1 { file } else { new_database() };
    let options = Some(EmitOptions { idempotency_key: "order-1".into(), ..store() });
    let request = || EmitToUserRequest { options: options.clone(), ..stored("42", "1") };
    let mut first = TestServer::start_with(|config| config.store.url = url.clone().into()).await;
    let receipt = emit(&first.backend().await, request()).await;
    let again = emit(&first.backend().await, request()).await;
    assert!(again.duplicate && again.stored && again.position == receipt.position);
    first.stop();
    first.stopped().await.expect("it stops in order");
    let second = TestServer::start_with(|config| config.store.url = url.into()).await;
    let backend = second.backend().await;
    eventually("the store to be open again", async || readiness(&second).await == 200).await;
    let again = emit(&backend, request()).await;
    assert!(again.duplicate && again.stored, "{receipt:?} {again:?}");
    let number = |position: &str| position.rsplit('.').next().map(str::to_owned);
    assert_eq!((number(&again.position), again.message_id), (number(&receipt.position), receipt.message_id));
    let other = EmitToUserRequest { options: options.clone(), ..stored("42", "2") };
    let status = refused(Code::InvalidArgument, backend.notify().emit_to_user(other)).await;
    assert_eq!(named(&status), ["options.idempotency_key"]);
    let mut device = second.connect("42").await;
    expect_all(&mut device, [1]).await;
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next");
}

#[tokio::test]
async fn one_event_is_stored_for_several_users() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let request = EmitToUsersRequest { options: Some(store()), ..to_users(&["1", "2"], "e", "7") };
    let response = answer(backend.notify().emit_to_users(request)).await.unwrap();
    assert!(response.receipts.iter().all(|of_user| of_user.receipt.as_ref().is_some_and(|receipt| receipt.stored)));
    for user in ["1", "2"] {
        expect_all(&mut server.connect(user).await, [7]).await;
    }
}

#[tokio::test]
async fn what_one_device_could_not_be_given_comes_to_the_next_that_can() {
    let endpoint = |config: &mut bugle::config::Config| {
        config.websocket.push(bugle::websocket::EndpointConfig {
            path: "/ws".into(),
            events: vec![bugle::message::EventPattern::new("balance").unwrap()],
            auth_timeout: Duration::from_secs(5),
        });
    };
    let server = TestServer::start_with(|config| {
        endpoint(config);
        patient(config);
    });
    let server = server.await;
    let backend = server.backend().await;
    let emit_both = async |n: u32| {
        emit_stored(&backend, "42", &n.to_string()).await;
        let balance = EmitToUserRequest { event: "balance".into(), ..stored("42", &n.to_string()) };
        emit(&backend, balance).await;
    };
    emit_both(1).await;
    let mut narrow = PlainDevice::builder(server.clients(), "/ws").open().await.unwrap();
    narrow.authenticate(&token("42")).await;
    assert_eq!(narrow.receive().await, PlainFrame::text("1"));
    emit_both(2).await;
    assert_eq!(narrow.receive().await, PlainFrame::text("2"));
    // What the device has received counts once it has answered the ping behind it.
    narrow.heard().await;
    narrow.heard().await;
    let mut stale = server.device("42").resume(json!({ "user:42": "other.1" })).connect().await.unwrap();
    stale.expect_event("bugle:resumed").await;
    let mut next = server.connect("42").await;
    expect_all(&mut next, [1, 2]).await;
    settled(&backend, "42", &mut next).await;
    let mut later = server.connect("42").await;
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(later.next_event().await.name, "next", "once is enough");
}

#[tokio::test]
async fn what_could_not_be_resumed_is_still_undelivered() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    emit_stored(&backend, "42", "1").await;
    let mut stale = server.device("42").resume(json!({ "user:42": "other.1" })).connect().await.unwrap();
    stale.expect_event("bugle:resumed").await;
    emit_stored(&backend, "42", "2").await;
    stale.expect_event("e").await;
    expect_all(&mut server.connect("42").await, [1]).await;
}

#[tokio::test]
async fn all_that_was_skipped_comes_in_order_to_the_next_device_though_some_of_it_is_large() {
    const COUNT: u32 = 300;
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for number in 0..COUNT {
        let size = if number % 100 == 50 { 900_000 } else { 1 };
        emit_stored(&backend, "42", &format!("[{number},\"{}\"]", "x".repeat(size))).await;
    }
    let mut stale = server.device("42").resume(json!({ "user:42": "other.1" })).connect().await.unwrap();
    stale.expect_event("bugle:resumed").await;
    stale.abort().await;
    let mut next = server.connect("42").await;
    for number in 0..COUNT {
        assert_eq!(next.expect_event("e").await.value()[0], number);
    }
    settled(&backend, "42", &mut next).await;
    backend.emit_to_user("42", "live", "1").await;
    assert_eq!(next.next_event().await.name, "live");
}
