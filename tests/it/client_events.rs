//! What devices may do by sending events: what the configuration says, and nothing else.

use bugle::command::ClientEventConfig;
use bugle::config::Config;
use bugle::proto::v1::{AllowRoomRequest, ForbidRoomRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{Backend, Device, TestServer, answer, named, refused, token_with};

/// A server with these rules, as they stand in the configuration.
async fn server_with(rules: Value, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.client_events =
            serde_json::from_value::<Vec<ClientEventConfig>>(rules).expect("the rules have the right types");
        change(config);
    })
    .await
}

async fn with_claims(server: &TestServer, claims: Value) -> Device {
    server.device("").token(token_with(&claims)).connect().await.expect("the device connects")
}

/// The code of the refusal, or "ok".
async fn outcome(device: &mut Device, event: &str, argument: Value) -> String {
    let ack = device.emit_with_ack(event, &[argument]).await;
    assert_eq!(ack.len(), 1, "an acknowledgement has one argument: {ack:?}");
    if ack[0] == json!({ "ok": true }) {
        return "ok".to_owned();
    }
    assert!(ack[0]["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{ack:?}");
    ack[0]["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {ack:?}")).to_owned()
}

async fn allow(backend: &Backend, user: &str, room: &str) {
    let request = AllowRoomRequest { room: room.into(), user_id: user.into(), ttl: None };
    answer(backend.rooms().allow_room(request)).await.expect("the right is given");
}

async fn forbid(backend: &Backend, user: &str, room: &str) -> u64 {
    let request = ForbidRoomRequest { room: room.into(), user_id: user.into() };
    answer(backend.rooms().forbid_room(request)).await.expect("the right is taken back").left
}

async fn matched(backend: &Backend, room: &str) -> u64 {
    backend.emit_to_room(room, "e", "1").await.matched
}

fn listings() -> Value {
    json!([
        { "event": "subscribe:listing", "join": "listing:{arg}", "rooms": "any" },
        { "event": "unsubscribe:listing", "leave": "listing:{arg}" },
        { "event": "subscribe:transaction", "join": "transaction:{arg}" },
    ])
}

#[tokio::test]
async fn a_device_joins_and_leaves_the_room_that_its_argument_names() {
    let server = server_with(listings(), |_| ()).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let _other = server.connect("42").await;
    for (argument, room) in [(json!("7"), "listing:7"), (json!(8), "listing:8"), (json!("é-1"), "listing:é-1")] {
        assert_eq!(matched(&backend, room).await, 0);
        assert_eq!(outcome(&mut device, "subscribe:listing", argument.clone()).await, "ok");
        assert_eq!(outcome(&mut device, "subscribe:listing", argument.clone()).await, "ok", "again");
        assert_eq!(matched(&backend, room).await, 1, "this connection alone");
        assert_eq!(outcome(&mut device, "unsubscribe:listing", argument).await, "ok");
        assert_eq!(matched(&backend, room).await, 0);
    }
    device.emit("subscribe:listing", &[json!("9")]);
    assert_eq!(outcome(&mut device, "unsubscribe:listing", json!("never")).await, "ok");
    assert_eq!(matched(&backend, "listing:9").await, 1, "nobody needs to ask for an acknowledgement");
}

#[tokio::test]
async fn arguments_that_name_no_room_are_refused() {
    let server = server_with(listings(), |_| ()).await;
    let mut device = server.connect("42").await;
    for argument in [
        json!(""),
        json!("a:b"),
        json!("*"),
        json!("a\u{0}b"),
        json!("x".repeat(257)),
        json!(1.5),
        json!(null),
        json!(true),
        json!(["7"]),
        json!({ "id": "7" }),
        json!("x".repeat(900_000)),
    ] {
        assert_eq!(outcome(&mut device, "subscribe:listing", argument).await, "invalid_argument");
    }
    let ack = device.emit_with_ack("subscribe:listing", &[]).await;
    assert_eq!(ack[0]["error"]["message"], "the argument is missing");
    assert_eq!(server.backend().await.get_user("42").await.connections[0].rooms.len(), 2, "its own and everyone");
}

#[tokio::test]
async fn a_join_needs_the_tokens_claim_or_a_backends_grant() {
    let server = server_with(listings(), |_| ()).await;
    let backend = server.backend().await;
    let mut plain = server.connect("42").await;
    assert_eq!(outcome(&mut plain, "subscribe:transaction", json!("1")).await, "forbidden");
    assert_eq!(matched(&backend, "transaction:1").await, 0);

    let claims = json!({ "sub": "7", "rooms": ["transaction:1", "transaction:2-*", 5, "user:42"] });
    let mut claimed = with_claims(&server, claims).await;
    for (id, expected) in [("1", "ok"), ("2-9", "ok"), ("2", "forbidden"), ("11", "forbidden")] {
        assert_eq!(outcome(&mut claimed, "subscribe:transaction", json!(id)).await, expected, "{id}");
    }

    allow(&backend, "42", "transaction:1").await;
    assert_eq!(outcome(&mut plain, "subscribe:transaction", json!("1")).await, "ok");
    assert_eq!(outcome(&mut plain, "subscribe:transaction", json!("3")).await, "forbidden");
    let mut stranger = server.connect("43").await;
    assert_eq!(outcome(&mut stranger, "subscribe:transaction", json!("1")).await, "forbidden");
    plain.close().await;
    let mut later = server.connect("42").await;
    assert_eq!(outcome(&mut later, "subscribe:transaction", json!("1")).await, "ok", "a grant outlives connections");
    assert_eq!(matched(&backend, "transaction:1").await, 2);

    assert_eq!(forbid(&backend, "42", "transaction:1").await, 1);
    assert_eq!(matched(&backend, "transaction:1").await, 1, "the other user stays");
    assert_eq!(outcome(&mut later, "subscribe:transaction", json!("1")).await, "forbidden");
}

#[tokio::test]
async fn a_forbidden_room_keeps_those_whom_a_backend_has_put_there() {
    let server = server_with(listings(), |_| ()).await;
    let backend = server.backend().await;
    let _device = server.connect("42").await;
    backend.join_room("transaction:1", "42").await;
    allow(&backend, "42", "transaction:1").await;
    assert_eq!(forbid(&backend, "42", "transaction:1").await, 0);
    assert_eq!(matched(&backend, "transaction:1").await, 1);
}

#[tokio::test]
async fn rights_to_rooms_are_checked_and_bounded() {
    let server = server_with(listings(), |config| config.limits.grants = 1).await;
    let backend = server.backend().await;
    let mut rooms = backend.rooms();
    let request = |room: &str, user: &str, seconds: i64| AllowRoomRequest {
        room: room.into(),
        user_id: user.into(),
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    for (room, user, seconds, field) in
        [("", "42", 9, "room"), ("a", "", 9, "user_id"), ("user:42", "42", 9, "room"), ("a", "42", 0, "ttl")]
    {
        let status = refused(Code::InvalidArgument, rooms.allow_room(request(room, user, seconds))).await;
        assert_eq!(named(&status), [field]);
    }
    let forbidden = ForbidRoomRequest { room: "everyone".into(), user_id: "42".into() };
    assert_eq!(named(&refused(Code::InvalidArgument, rooms.forbid_room(forbidden)).await), ["room"]);
    answer(rooms.allow_room(request("a", "42", 9))).await.unwrap();
    let status = refused(Code::ResourceExhausted, rooms.allow_room(request("b", "42", 9))).await;
    assert!(status.message().starts_with("limits.grants is met"), "{}", status.message());
}

#[tokio::test]
async fn a_rule_with_roles_is_for_those_alone() {
    let rules = json!([{ "event": "join:admin", "join": "admins", "rooms": "any", "roles": ["admin", "root"] }]);
    let server = server_with(rules, |_| ()).await;
    let backend = server.backend().await;
    for (role, expected) in [(json!("user"), "forbidden"), (json!("admin"), "ok"), (json!(["user", "root"]), "ok")] {
        let mut device = with_claims(&server, json!({ "sub": "1", "role": role })).await;
        assert_eq!(outcome(&mut device, "join:admin", json!(null)).await, expected, "{role}");
        assert_eq!(matched(&backend, "admins").await, u64::from(expected == "ok"));
        device.close().await;
    }
}

#[tokio::test]
async fn a_room_may_be_made_of_claims_and_of_fields_but_never_be_a_users() {
    let rules = json!([
        { "event": "follow", "join": "org:{claim.org.id}:{arg.topic}", "rooms": "any" },
        { "event": "trick", "join": "us{arg.a}:{arg.b}", "rooms": "any" },
    ]);
    let server = server_with(rules, |_| ()).await;
    let backend = server.backend().await;
    let mut device = with_claims(&server, json!({ "sub": "1", "org": { "id": 5 } })).await;
    assert_eq!(outcome(&mut device, "follow", json!({ "topic": "news", "more": [1, {}] })).await, "ok");
    assert_eq!(matched(&backend, "org:5:news").await, 1);
    assert_eq!(outcome(&mut device, "follow", json!({ "topic": 7.5 })).await, "invalid_argument");
    assert_eq!(outcome(&mut device, "follow", json!("news")).await, "invalid_argument");
    assert_eq!(outcome(&mut device, "trick", json!({ "a": "er", "b": "2" })).await, "forbidden");
    let mut without = server.connect("1").await;
    assert_eq!(outcome(&mut without, "follow", json!({ "topic": "news" })).await, "forbidden", "no such claim");
}

#[tokio::test]
async fn a_relay_goes_to_the_named_user_and_tells_only_what_the_template_says() {
    let rules = json!([
        { "event": "typing:start", "relay": { "user": "{arg}", "payload": { "userId": "{user}" } } },
        { "event": "wave", "relay": {
            "user": "{arg.to}", "event": "waved", "payload": ["{arg.n}", "{user} to {arg.to}", "{role}", 7, true] } },
        { "event": "poke", "relay": { "user": "{arg}" } },
    ]);
    let server = server_with(rules, |_| ()).await;
    let mut sender = server.connect("1").await;
    let mut receivers = [server.connect("2").await, server.connect("2").await];
    let mut stranger = server.connect("3").await;
    assert_eq!(outcome(&mut sender, "typing:start", json!("2")).await, "ok");
    assert_eq!(outcome(&mut sender, "typing:start", json!("nobody")).await, "ok", "who is online is not told");
    assert_eq!(outcome(&mut sender, "wave", json!({ "to": 2, "n": 9_007_199_254_740_993_u64 })).await, "ok");
    assert_eq!(outcome(&mut sender, "poke", json!("2")).await, "ok");
    for receiver in &mut receivers {
        assert_eq!(receiver.expect_event("typing:start").await.value(), json!({ "userId": "1" }));
        let waved = receiver.expect_event("waved").await;
        assert_eq!(waved.value(), json!([9_007_199_254_740_993_u64, "1 to 2", null, 7, true]));
        receiver.expect_event("poke").await;
    }
    for argument in [json!("a:b"), json!("*"), json!({}), json!("x".repeat(300))] {
        assert_eq!(outcome(&mut sender, "typing:start", argument).await, "invalid_argument");
    }
    server.backend().await.emit_to_user("3", "next", "1").await;
    stranger.expect_event("next").await;
}

#[tokio::test]
async fn a_relay_to_a_room_is_for_those_in_it_and_spares_the_sender() {
    let rules = json!([
        { "event": "join", "join": "chat:{arg}", "rooms": "any" },
        { "event": "typing", "relay": { "room": "chat:{arg}", "payload": "{user}" } },
        { "event": "help", "relay": { "room": "role:admin", "payload": "{user}" }, "rooms": "any" },
        { "event": "trick", "relay": { "room": "e{arg}" }, "rooms": "any" },
    ]);
    let server = server_with(rules, |_| ()).await;
    let mut sender = server.connect("1").await;
    let mut second = server.connect("1").await;
    let mut admin = with_claims(&server, json!({ "sub": "9", "role": "admin" })).await;
    assert_eq!(outcome(&mut sender, "typing", json!("7")).await, "forbidden", "it is not in the room");
    for device in [&mut sender, &mut second] {
        assert_eq!(outcome(device, "join", json!("7")).await, "ok");
    }
    assert_eq!(outcome(&mut sender, "typing", json!("7")).await, "ok");
    assert_eq!(second.expect_event("typing").await.value(), json!("1"));
    assert_eq!(outcome(&mut sender, "trick", json!("veryone")).await, "forbidden", "no argument makes it everyone");
    assert_eq!(outcome(&mut sender, "help", json!(null)).await, "ok");
    assert_eq!(admin.expect_event("help").await.value(), json!("1"));
    server.backend().await.emit_to_user("1", "next", "1").await;
    sender.expect_event("next").await;
}

#[tokio::test]
async fn a_reply_comes_before_the_acknowledgement_and_to_this_connection_alone() {
    let rules = json!([
        { "event": "PING", "reply": { "event": "PONG" } },
        { "event": "who", "reply": { "event": "you", "payload": { "userId": "{user}", "roles": "{role}", "name": "{claim.name}" } } },
        { "event": "sub", "join": "a:{arg}", "rooms": "any", "reply": { "event": "subscribed", "payload": "{arg}" } },
    ]);
    let server = server_with(rules, |_| ()).await;
    let claims = json!({ "sub": "1", "role": ["x", "y"], "name": { "first": "Ann" } });
    let mut device = with_claims(&server, claims).await;
    let mut other = server.connect("1").await;
    device.emit("PING", &[]);
    assert!(device.expect_event("PONG").await.args.is_empty(), "no argument at all");
    device.emit("PING", &[json!("x".repeat(20_000)), json!([1])]);
    device.expect_event("PONG").await;
    device.emit("who", &[]);
    let expected = json!({ "userId": "1", "roles": ["x", "y"], "name": { "first": "Ann" } });
    assert_eq!(device.expect_event("you").await.value(), expected);
    assert_eq!(outcome(&mut device, "sub", json!(5)).await, "ok");
    assert_eq!(device.expect_event("subscribed").await.value(), json!(5));
    assert_eq!(outcome(&mut device, "sub", json!("a:b")).await, "invalid_argument");
    server.backend().await.emit_to_user("1", "next", "1").await;
    device.expect_event("next").await;
    other.expect_event("next").await;
}

#[tokio::test]
async fn a_device_that_joins_gets_what_is_retained_there() {
    let server = server_with(listings(), |_| ()).await;
    let backend = server.backend().await;
    let mut request = crate::harness::to_room("listing:7", "listing:price_changed", r#"{"price":1.10}"#);
    request.options = Some(bugle::proto::v1::EmitOptions { retain: true, ..Default::default() });
    answer(backend.notify().emit_to_room(request)).await.unwrap();
    let mut device = server.connect("42").await;
    device.emit("subscribe:listing", &[json!("7")]);
    assert_eq!(device.expect_event("listing:price_changed").await.json(), r#"{"price":1.10}"#);
}

#[tokio::test]
async fn a_connection_is_in_so_many_rooms_and_no_more() {
    let server = server_with(listings(), |config| config.limits.rooms_per_connection = 2).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    for room in ["a", "b", "c"] {
        backend.join_room(room, "42").await;
    }
    for (room, expected) in [(1, "ok"), (2, "ok"), (3, "too_many_rooms"), (2, "ok")] {
        assert_eq!(outcome(&mut device, "subscribe:listing", json!(room)).await, expected, "{room}");
    }
    assert_eq!(outcome(&mut device, "unsubscribe:listing", json!(1)).await, "ok");
    assert_eq!(outcome(&mut device, "subscribe:listing", json!(3)).await, "ok");
}

#[tokio::test]
async fn a_new_token_takes_the_device_out_of_rooms_that_only_the_old_one_allowed() {
    let rules = json!([
        { "event": "any", "join": "any:{arg}", "rooms": "any" },
        { "event": "claimed", "join": "claimed:{arg}" },
        { "event": "granted", "join": "granted:{arg}" },
        { "event": "admin", "join": "admin:{arg}", "rooms": "any", "roles": ["admin"] },
        { "event": "org", "join": "org:{claim.org}:{arg}", "rooms": "any" },
    ]);
    let server = server_with(rules, |_| ()).await;
    let backend = server.backend().await;
    allow(&backend, "42", "granted:1").await;
    let claims = json!({ "sub": "42", "role": "admin", "rooms": ["claimed:*"], "org": "a" });
    let mut device = with_claims(&server, claims).await;
    for event in ["any", "claimed", "granted", "admin", "org"] {
        assert_eq!(outcome(&mut device, event, json!(1)).await, "ok", "{event}");
    }
    let token = token_with(&json!({ "sub": "42", "rooms": "claimed:2", "org": "b" }));
    assert_eq!(outcome(&mut device, "bugle:refresh", json!({ "token": token })).await, "ok");
    for (room, expected) in [("any:1", 1), ("claimed:1", 0), ("granted:1", 1), ("admin:1", 0), ("org:a:1", 0)] {
        assert_eq!(matched(&backend, room).await, expected, "{room}");
    }
    for (event, expected) in [("claimed", "forbidden"), ("admin", "forbidden"), ("org", "ok")] {
        assert_eq!(outcome(&mut device, event, json!(1)).await, expected, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_forbidden_while_joining_is_not_in_the_room_afterwards() {
    let server = server_with(listings(), |_| ()).await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    for round in 0..200 {
        allow(&backend, "42", "transaction:1").await;
        device.emit("subscribe:transaction", &[json!("1")]);
        forbid(&backend, "42", "transaction:1").await;
        assert_eq!(outcome(&mut device, "subscribe:transaction", json!("1")).await, "forbidden", "round {round}");
        assert_eq!(matched(&backend, "transaction:1").await, 0, "round {round}");
    }
}
