use bugle::proto::v1::{
    BroadcastRequest, EmitOptions, EmitToRoomRequest, EmitToUserRequest, broadcast_request, emit_to_room_request,
    emit_to_user_request,
};
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::json;

use crate::harness::{
    Device, TestServer, Transport, answer, counts, is_node_count, to_everyone, to_user, to_users, token, token_with,
};

const EXACT: &str = "{\"b\":1.10,\"a\":12345678901234567890,\"_placeholder\":true,\"num\":0,\"s\":\"🎺\u{2028}\"}";

async fn polling(server: &TestServer, user: &str) -> Device {
    let device = server.device(user).transport(Transport::Polling);
    device.connect().await.expect("the device connects by polling")
}

#[tokio::test]
async fn an_emit_to_users_reaches_each_of_them_and_answers_per_user_and_in_sum() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut devices = [server.connect("1").await, polling(&server, "1").await, server.connect("2").await];
    let mut stranger = server.connect("4").await;

    let response = answer(backend.notify().emit_to_users(to_users(&["2", "3", "1"], "news", EXACT))).await.unwrap();
    let each: Vec<_> = response.receipts.iter().map(|each| (&*each.user_id, each.receipt.clone().unwrap())).collect();
    let counted: Vec<_> = each.iter().map(|(user, receipt)| (*user, counts(receipt))).collect();
    assert_eq!(counted, [("2", (1, 1, 0)), ("3", (0, 0, 0)), ("1", (2, 2, 0))]);
    let total = response.total.unwrap();
    assert_eq!((counts(&total), total.partial, total.duplicate), ((3, 3, 0), false, false));
    assert!(is_node_count(total.nodes, 3), "{total:?}");
    assert_ne!(each[0].1.message_id, each[2].1.message_id, "each user's emit is one of its own");

    for device in &mut devices {
        assert_eq!(device.expect_event("news").await.json(), EXACT);
    }
    backend.emit_to_user("4", "next", "1").await;
    assert_eq!(stranger.next_event().await.name, "next", "the stranger got nothing before");
}

#[tokio::test]
async fn an_emit_to_a_room_reaches_whoever_was_put_into_it_and_nobody_else() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut inside = [server.connect("1").await, polling(&server, "1").await, server.connect("2").await];
    let mut outside = server.connect("3").await;
    assert_eq!(backend.join_room("listing:7", "1").await, 2);
    assert_eq!(backend.join_room("listing:7", "2").await, 1);

    assert_eq!(counts(&backend.emit_to_room("listing:7", "bid", EXACT).await), (3, 3, 0));
    for device in &mut inside {
        assert_eq!(device.expect_event("bid").await.json(), EXACT);
    }
    assert_eq!(counts(&backend.emit_to_room("listing:8", "bid", "1").await), (0, 0, 0));
    backend.emit_to_user("3", "next", "1").await;
    assert_eq!(outside.next_event().await.name, "next", "whoever is not in the room got nothing");
}

#[tokio::test]
async fn users_roles_and_everyone_are_rooms_too() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let admin = Device::builder(server.clients()).token(token_with(&json!({ "sub": "1", "role": "admin" })));
    let mut admin = admin.connect().await.unwrap();
    let mut other = server.connect("2").await;

    assert_eq!(counts(&backend.emit_to_room("user:1", "to-user", EXACT).await), (1, 1, 0));
    assert_eq!(counts(&backend.emit_to_room("role:admin", "to-role", EXACT).await), (1, 1, 0));
    assert_eq!(counts(&backend.emit_to_room("everyone", "to-all", EXACT).await), (2, 2, 0));
    for event in ["to-user", "to-role", "to-all"] {
        assert_eq!(admin.expect_event(event).await.json(), EXACT);
    }
    assert_eq!(other.expect_event("to-all").await.json(), EXACT);
}

#[tokio::test]
async fn a_broadcast_reaches_every_device_on_every_transport() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let upgraded = server.device("3").transport(Transport::Upgrade).connect().await.unwrap();
    let bearer = Device::builder(server.clients()).header_token(&format!("Bearer {}", token("4")));
    let bearer = bearer.connect().await.unwrap();
    let mut devices = [server.connect("1").await, polling(&server, "2").await, upgraded, bearer];

    assert_eq!(counts(&backend.broadcast("maintenance", EXACT).await), (4, 4, 0));
    for device in &mut devices {
        assert_eq!(device.expect_event("maintenance").await.json(), EXACT);
    }
}

#[tokio::test]
async fn bytes_arrive_as_an_attachment() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let mut devices = [server.connect("1").await, polling(&server, "1").await];
    let bytes = [0, 159, 146, 150, 255];

    let payload = Some(emit_to_user_request::Payload::Binary(bytes.to_vec().into()));
    let user = EmitToUserRequest { user_id: "1".into(), event: "user".into(), payload, options: None };
    let payload = Some(emit_to_room_request::Payload::Binary(bytes.to_vec().into()));
    let room = EmitToRoomRequest { room: "user:1".into(), event: "room".into(), payload, options: None };
    let payload = Some(broadcast_request::Payload::Binary(Vec::new().into()));
    let all = BroadcastRequest { event: "all".into(), payload, options: None };
    let receipts = [
        answer(notify.emit_to_user(user)).await.unwrap().receipt.unwrap(),
        answer(notify.emit_to_room(room)).await.unwrap().receipt.unwrap(),
        answer(notify.broadcast(all)).await.unwrap().receipt.unwrap(),
    ];
    for receipt in &receipts {
        assert_eq!(counts(receipt), (2, 2, 0));
    }
    for device in &mut devices {
        assert_eq!(&device.expect_event("user").await.binary()[..], bytes);
        assert_eq!(&device.expect_event("room").await.binary()[..], bytes);
        assert!(device.expect_event("all").await.binary().is_empty());
    }
}

#[tokio::test]
async fn a_value_arrives_as_json_whose_whole_numbers_have_no_fraction() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let mut device = server.connect("42").await;
    let value = |kind| Value { kind: Some(kind) };
    let numbers = [100.0, -1.5, 1e15].map(|number| value(Kind::NumberValue(number)));
    let others = [Kind::NullValue(0), Kind::BoolValue(true), Kind::StringValue("\"é\"\n".into())].map(value);
    let list = ListValue { values: numbers.into_iter().chain(others).collect() };
    let object = Struct { fields: [("list".to_owned(), value(Kind::ListValue(list)))].into() };

    let payload = Some(emit_to_user_request::Payload::Value(value(Kind::StructValue(object))));
    let request = EmitToUserRequest { payload, ..to_user("42", "WALLET_UPDATE", "") };
    answer(notify.emit_to_user(request)).await.unwrap();
    let expected = r#"{"list":[100,-1.5,1000000000000000,null,true,"\"é\"\n"]}"#;
    assert_eq!(device.expect_event("WALLET_UPDATE").await.json(), expected);
}

#[tokio::test]
async fn an_emit_without_a_payload_arrives_without_an_argument() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let mut devices = [server.connect("42").await, polling(&server, "42").await];
    let request = EmitToUserRequest { payload: None, ..to_user("42", "ping", "") };
    answer(notify.emit_to_user(request)).await.unwrap();
    for device in &mut devices {
        assert_eq!(device.expect_event("ping").await.args, []);
    }
}

#[tokio::test]
async fn json_of_every_type_arrives_to_the_letter() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    for json in ["null", "true", "-0.0", "1e400", "\"\\u0041\"", "[]", "{\"a\":1,\"a\":2}", "{ \"spaced\" : [ 1 ] }"] {
        backend.emit_to_user("42", "e", json).await;
        assert_eq!(device.expect_event("e").await.json(), json);
    }
}

#[tokio::test]
async fn an_envelope_names_the_event_and_the_time_with_three_decimals_and_holds_the_payload() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let mut device = server.connect("42").await;
    let options = Some(EmitOptions { envelope: true, ..EmitOptions::default() });
    let before = server.clock.now();
    let request = EmitToUserRequest { options: options.clone(), ..to_user("42", "earnings:new", EXACT) };
    answer(notify.emit_to_user(request)).await.unwrap();
    let event = device.expect_event("earnings:new").await;
    let rest = event.json().strip_prefix(r#"{"event":"earnings:new","timestamp":""#).expect("the event comes first");
    let (timestamp, rest) = rest.split_once('"').unwrap();
    assert_eq!(rest, format!(r#","data":{EXACT}}}"#), "the payload is to the letter");
    let shape: String = timestamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
    let time: jiff::Timestamp = timestamp.parse().unwrap();
    assert!(time.as_millisecond() >= before.as_millisecond() && time <= server.clock.now(), "{timestamp}");

    let request = BroadcastRequest { payload: None, options, ..to_everyone("bare", "") };
    answer(notify.broadcast(request)).await.unwrap();
    assert_eq!(device.expect_event("bare").await.value()["data"], json!(null));
}

#[tokio::test]
async fn a_receipt_has_an_id_that_tells_the_time_and_says_what_did_not_happen() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let receipts = [backend.emit_to_user("nobody", "e", "1").await, backend.emit_to_room("nowhere", "e", "1").await];
    for receipt in &receipts {
        let id: uuid::Uuid = receipt.message_id.parse().expect("the id is a UUID");
        assert_eq!((id.get_version_num(), id.to_string()), (7, receipt.message_id.clone()));
        assert_eq!(counts(receipt), (0, 0, 0));
        assert!(is_node_count(receipt.nodes, 0), "{receipt:?}");
        assert!(!receipt.stored && !receipt.duplicate && !receipt.deferred && !receipt.partial);
        assert_eq!(receipt.position, "");
    }
    assert_ne!(receipts[0].message_id, receipts[1].message_id);
}
