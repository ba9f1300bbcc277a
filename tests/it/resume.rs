//! Devices that come back and say what they have seen.

use std::{collections::BTreeMap, time::Duration};

use bugle::command::{AllowedRooms, ClientEventConfig};
use bugle::delivery::{RoomConfig, RoomHistory};
use bugle::message::RoomPattern;
use bugle::proto::v1::JoinRoomRequest;
use serde::Deserialize;
use serde_json::{Value, json};

use super::stored::{emit_stored, store};
use crate::harness::{Backend, Device, EVERY_WAY, Event, TestServer, answer, deadline, token_with};

/// What `bugle:resumed` says of a room.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Resumed {
    recovered: bool,
    count: u64,
    position: Option<String>,
}

#[derive(Deserialize)]
struct AllResumed {
    rooms: BTreeMap<String, Resumed>,
}

pub(crate) fn history(rooms: &str) -> RoomConfig {
    let matches = RoomPattern::new(rooms).expect("a pattern");
    RoomConfig { matches, history: RoomHistory { size: 100, age: Duration::from_mins(2) } }
}

fn join_listings(config: &mut bugle::config::Config) {
    config.rooms.push(history("listing:*"));
    config.client_events.push(ClientEventConfig {
        join: Some("listing:{arg}".into()),
        rooms: Some(AllowedRooms::Granted),
        ..rule("subscribe")
    });
}

fn rule(event: &str) -> ClientEventConfig {
    serde_json::from_value(json!({ "event": event })).expect("a rule")
}

async fn resuming(server: &TestServer, user: &str, resume: Value) -> Device {
    server.device(user).resume(resume).connect().await.expect("the device connects")
}

async fn resumed(device: &mut Device) -> BTreeMap<String, Resumed> {
    let event = device.expect_event("bugle:resumed").await;
    serde_json::from_str::<AllResumed>(event.json()).expect("it is as the contract has it").rooms
}

/// The payload and the position of a kept message.
pub(crate) fn kept(event: &Event) -> (u64, String) {
    let values = event.values();
    let [payload, meta] = values.as_slice() else { panic!("two arguments: {}", event.raw) };
    assert!(meta["id"].is_string() && meta["room"].is_string(), "{}", event.raw);
    (payload.as_u64().expect("a number"), meta["position"].as_str().expect("a text").to_owned())
}

#[tokio::test]
async fn a_device_that_comes_back_gets_exactly_what_it_missed() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (index, (transport, protocol)) in EVERY_WAY.into_iter().enumerate() {
        let user = index.to_string();
        let own = format!("user:{user}");
        let device = |resume: Value| server.device(&user).resume(resume).transport(transport).protocol(protocol);
        emit_stored(&backend, &user, "1").await;
        let mut first = device(json!({})).connect().await.unwrap();
        let (payload, seen) = kept(&first.expect_event("e").await);
        assert_eq!(payload, 1);
        let rooms = resumed(&mut first).await;
        let expected = Resumed { recovered: true, count: 1, position: Some(seen.clone()) };
        assert_eq!(rooms[&own], expected);
        emit_stored(&backend, &user, "2").await;
        let (_, seen) = kept(&first.expect_event("e").await);
        backend.emit_to_user(&user, "plain", "0").await;
        assert_eq!(first.expect_event("plain").await.json(), "0", "what is not kept has no second argument");
        first.abort().await;
        for n in 3..=5 {
            emit_stored(&backend, &user, &n.to_string()).await;
        }
        let mut second = device(json!({ own.clone(): seen })).connect().await.unwrap();
        let mut last = String::new();
        for n in 3..=5 {
            let (payload, position) = kept(&second.expect_event("e").await);
            assert_eq!(payload, n);
            last = position;
        }
        let rooms = resumed(&mut second).await;
        assert_eq!(rooms[&own], Resumed { recovered: true, count: 3, position: Some(last) });
    }
}

#[tokio::test]
async fn plain_devices_are_never_given_a_second_argument() {
    let server = TestServer::start_with(join_listings).await;
    let backend = server.backend().await;
    emit_stored(&backend, "42", "1").await;
    let claims = json!({ "sub": "42", "rooms": "listing:*" });
    let mut device = server.device("42").token(token_with(&claims)).connect().await.unwrap();
    assert_eq!(device.expect_event("e").await.json(), "1");
    emit_stored(&backend, "42", "2").await;
    assert_eq!(device.expect_event("e").await.json(), "2");
    assert_eq!(device.emit_with_ack("subscribe", &[json!("7")]).await, [json!({ "ok": true })]);
    backend.emit_to_room("listing:7", "bid", "3").await;
    assert_eq!(device.expect_event("bid").await.json(), "3");
}

#[tokio::test]
async fn what_cannot_be_resumed_is_told_and_nothing_of_it_is_replayed() {
    let server = TestServer::start_with(join_listings).await;
    let backend = server.backend().await;
    for n in 1..=3 {
        emit_stored(&backend, "42", &n.to_string()).await;
    }
    let position = emit_stored(&backend, "43", "1").await.position;
    let epoch = position.rsplit_once('.').unwrap().0;
    backend.emit_to_room("listing:7", "bid", "1").await;
    let others = json!({ "user:43": position, "role:admin": position, "listing:7": position, "secret": "x", "": "y" });
    for bad in [
        json!("other.1"),
        json!(format!("{epoch}.4")),
        json!(format!("{epoch}.9223372036854775807")),
        json!(format!("{epoch}.99999999999999999999999")),
        json!(format!("{epoch}.-1")),
        json!(-1),
        json!(1e300),
        json!(null),
        json!([]),
        json!({}),
        json!("x".repeat(100_000)),
    ] {
        let mut said = others.clone();
        said["user:42"] = bad.clone();
        let mut device = resuming(&server, "42", said).await;
        let rooms = resumed(&mut device).await;
        let own = Resumed { recovered: false, count: 0, position: Some(format!("{epoch}.3")) };
        assert_eq!(rooms["user:42"], own, "{bad}");
        for name in ["user:43", "role:admin", "listing:7", "secret", ""] {
            assert_eq!(rooms[name], Resumed { recovered: false, count: 0, position: None }, "{name} after {bad}");
        }
        device.abort().await;
    }
    let mut device = resuming(&server, "42", json!({ "user:42": "other.1" })).await;
    resumed(&mut device).await;
    emit_stored(&backend, "42", "4").await;
    assert_eq!(kept(&device.expect_event("e").await), (4, format!("{epoch}.4")));
}

#[tokio::test]
async fn a_history_is_resumed_and_its_room_joined_again() {
    let server = TestServer::start_with(join_listings).await;
    let backend = server.backend().await;
    let claims = json!({ "sub": "42", "rooms": "listing:*" });
    let device = |resume: Value| server.device("42").token(token_with(&claims)).resume(resume);
    backend.emit_to_room("listing:7", "bid", "1").await;
    let mut first = device(json!({})).connect().await.unwrap();
    resumed(&mut first).await;
    assert_eq!(first.emit_with_ack("subscribe", &[json!("7")]).await, [json!({ "ok": true })]);
    let rooms = resumed(&mut first).await;
    let begin = rooms["listing:7"].position.clone().expect("it is told where the room stands");
    assert!(begin.ends_with(".1"), "{begin}");
    first.abort().await;
    for n in 2..=4 {
        backend.emit_to_room("listing:7", "bid", &n.to_string()).await;
    }
    let mut second = device(json!({ "listing:7": begin })).connect().await.unwrap();
    assert!(second.welcome().rooms.contains(&"listing:7".to_owned()));
    for n in 2..=4 {
        assert_eq!(kept(&second.expect_event("bid").await).0, n);
    }
    assert_eq!(resumed(&mut second).await["listing:7"].count, 3);
    backend.emit_to_room("listing:7", "bid", "5").await;
    let (payload, position) = kept(&second.expect_event("bid").await);
    assert_eq!(payload, 5);
    // Whose token does not give it the room gets nothing of it.
    let mut other = resuming(&server, "42", json!({ "listing:7": position })).await;
    assert!(!resumed(&mut other).await["listing:7"].recovered);
    assert!(!other.welcome().rooms.contains(&"listing:7".to_owned()));
}

#[tokio::test]
async fn a_history_of_another_process_is_not_continued() {
    let (first, second) = (TestServer::start_with(join_listings).await, TestServer::start_with(join_listings).await);
    let claims = json!({ "sub": "42", "rooms": "listing:*" });
    let mut position = String::new();
    for server in [&first, &second] {
        let backend = server.backend().await;
        backend.emit_to_room("listing:7", "bid", "1").await;
        let said = json!({ "listing:7": position });
        let mut device = server.device("42").token(token_with(&claims)).resume(said).connect().await.unwrap();
        let rooms = resumed(&mut device).await;
        assert!(!rooms["listing:7"].recovered);
        position = rooms["listing:7"].position.clone().expect("it is in the room");
    }
}

#[tokio::test]
async fn whom_a_backend_puts_into_a_room_is_told_where_it_stands() {
    let server = TestServer::start_with(|config| config.rooms.push(history("team:*"))).await;
    let backend = server.backend().await;
    backend.emit_to_room("team:1", "e", "1").await;
    let mut device = resuming(&server, "42", json!({})).await;
    resumed(&mut device).await;
    let join = JoinRoomRequest { user_id: "42".into(), room: "team:1".into(), ttl: None };
    answer(backend.rooms().join_room(join)).await.unwrap();
    let begin = resumed(&mut device).await["team:1"].position.clone().unwrap();
    device.abort().await;
    backend.emit_to_room("team:1", "e", "2").await;
    let mut device = resuming(&server, "42", json!({ "team:1": begin })).await;
    assert_eq!(kept(&device.expect_event("e").await).0, 2);
}

#[tokio::test]
async fn who_joins_in_the_middle_of_a_burst_has_no_gap_after_the_position_that_it_is_told() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let position = |text: &str| text.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok()).expect("one");
    for round in 0..10 {
        let room = format!("team:{round}");
        let bursting = super::interleavings::burst(&backend, &room, true, 0..50, 0);
        let joining = async {
            let mut device = resuming(&server, "42", json!({})).await;
            resumed(&mut device).await;
            let join = JoinRoomRequest { user_id: "42".into(), room: room.clone(), ttl: None };
            answer(backend.rooms().join_room(join)).await.unwrap();
            let begin = position(resumed(&mut device).await[&room].position.as_ref().expect("it is told"));
            for number in begin + 1..=50 {
                assert_eq!(position(&kept(&device.expect_event("e").await).1), number, "{room}");
            }
        };
        tokio::join!(bursting, joining);
    }
}

#[tokio::test]
async fn ten_thousand_missed_messages_neither_make_a_device_slow_nor_hold_up_its_room() {
    const MISSED: u64 = 10_000;
    let server = TestServer::start_with(|config| config.socketio.queue_bytes = 16 * 1024).await;
    let backend = server.backend().await;
    fill(&backend, MISSED).await;
    let last = emit_stored(&backend, "42", &(MISSED + 1).to_string()).await.position;
    let begin = format!("{}.0", last.rsplit_once('.').unwrap().0);
    let mut other = resuming(&server, "42", json!({ "user:42": last })).await;
    assert!(resumed(&mut other).await["user:42"].recovered);
    let seen_nothing = json!({ "user:42": begin });
    let mut device = server.device("42").resume(seen_nothing).receive_buffer(4_096).connect().await.unwrap();
    device.stop_reading();
    for n in 0..20 {
        backend.emit_to_user("42", "plain", "0").await;
        assert_eq!(other.expect_event("plain").await.json(), "0", "the room is not held up ({n})");
    }
    device.resume_reading();
    for n in 1..=MISSED + 1 {
        assert_eq!(kept(&device.expect_event("e").await).0, n);
    }
    for _ in 0..20 {
        device.expect_event("plain").await;
    }
    assert_eq!(resumed(&mut device).await["user:42"].count, MISSED + 1);
}

/// Stores so many messages for user 42, numbered from 1.
async fn fill(backend: &Backend, count: u64) {
    let emits = (1..=count).map(|n| bugle::proto::v1::EmitStreamRequest {
        correlation_id: String::new(),
        emit: Some(bugle::proto::v1::Emit {
            target: Some(bugle::proto::v1::emit::Target::UserId("42".into())),
            event: "e".into(),
            payload: Some(bugle::proto::v1::emit::Payload::Json(n.to_string())),
            options: Some(store()),
        }),
    });
    let emits: Vec<_> = emits.collect();
    let mut results = backend.notify().emit_stream(tokio_stream::iter(emits)).await.expect("a stream").into_inner();
    let mut answered = 0;
    while let Some(result) = deadline("a result", results.message()).await.expect("it goes on") {
        assert!(matches!(
            result.result.and_then(|result| result.result),
            Some(bugle::proto::v1::emit_result::Result::Receipt(receipt)) if receipt.stored
        ));
        answered += 1;
    }
    assert_eq!(answered, count);
}
