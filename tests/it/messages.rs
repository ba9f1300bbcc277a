//! Direct messages between users: by events of their devices, and over REST.

use bugle::config::Config;
use bugle::limits::Rate;
use serde_json::{Value, json};

use crate::harness::{Device, TestServer, http_request, raw_http, token};

pub(crate) const PATH: &str = "/bugle/messages";
const RECEIVED: &str = "message:received";

pub(crate) fn enable(config: &mut Config) {
    config.messages.enabled = true;
}

pub(crate) async fn server() -> TestServer {
    TestServer::start_with(enable).await
}

/// The status, and the body if there is one.
pub(crate) async fn ask(server: &TestServer, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let authorization = format!("Bearer {token}");
    let request = http_request(method, path, &[("authorization", &*authorization), ("connection", "close")], &body);
    let response = String::from_utf8(raw_http(server.clients(), request).await.to_vec()).expect("the answer is text");
    let (head, body) = response.split_once("\r\n\r\n").expect("the answer has a head");
    assert!(head.to_ascii_lowercase().contains("cache-control: no-store"), "{head}");
    (head[9..12].parse().expect("the answer has a status"), serde_json::from_str(body).unwrap_or_default())
}

pub(crate) async fn get(server: &TestServer, path: &str, user: &str) -> (u16, Value) {
    ask(server, "GET", &format!("{PATH}/{path}"), &token(user), &Value::Null).await
}

pub(crate) async fn do_it(server: &TestServer, method: &str, path: &str, user: &str) -> (u16, Value) {
    ask(server, method, &format!("{PATH}/{path}"), &token(user), &Value::Null).await
}

pub(crate) async fn post(server: &TestServer, user: &str, body: Value) -> (u16, Value) {
    ask(server, "POST", PATH, &token(user), &body).await
}

/// Posts a message, which is stored.
pub(crate) async fn posted(server: &TestServer, from: &str, to: &str, content: &str) -> Value {
    let (status, message) = post(server, from, json!({ "receiverId": to, "content": content })).await;
    assert_eq!(status, 201, "{message}");
    message
}

pub(crate) async fn acknowledged(device: &mut Device, event: &str, argument: Value) -> Value {
    let mut ack = device.emit_with_ack(event, &[argument]).await;
    assert_eq!(ack.len(), 1, "{ack:?}");
    ack.remove(0)
}

pub(crate) fn code((status, body): &(u16, Value)) -> (u16, &str) {
    (*status, body["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {body}")))
}

fn contents(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|message| message["content"].as_str().expect("a content is text")).collect()
}

#[tokio::test]
async fn a_message_goes_to_the_receivers_devices_and_to_the_senders_others() {
    let server = server().await;
    let (mut sending, mut other) = (server.connect("alice").await, server.connect("alice").await);
    let mut receiving = server.connect("bob").await;
    let sent = json!({ "receiverId": "bob", "message": "Hello\n\t!", "transactionId": "txn-1", "listingId": 7 });
    let ack = acknowledged(&mut sending, "message:send", sent).await;
    assert_eq!(ack["ok"], true, "{ack}");
    let message = &ack["message"];
    let fields =
        ["id", "senderId", "receiverId", "content", "transactionId", "listingId", "isRead", "createdAt", "updatedAt"];
    assert_eq!(message.as_object().map(serde_json::Map::len), Some(fields.len()), "{message}");
    assert!(fields.iter().all(|field| message.get(*field).is_some()), "{message}");
    assert_eq!((&message["senderId"], &message["receiverId"]), (&json!("alice"), &json!("bob")));
    assert_eq!((&message["content"], &message["isRead"]), (&json!("Hello\n\t!"), &json!(false)));
    assert_eq!((&message["transactionId"], &message["listingId"]), (&json!("txn-1"), &json!("7")));
    for device in [&mut receiving, &mut other] {
        assert_eq!(device.expect_event(RECEIVED).await.value(), *message);
    }
    let second = posted(&server, "bob", "alice", "over REST").await;
    assert_eq!(sending.expect_event(RECEIVED).await.value(), second, "the sending device did not get its own message");
    assert_eq!(receiving.expect_event(RECEIVED).await.value(), second, "no connection has sent it");
}

#[tokio::test]
async fn who_was_away_gets_the_messages_once_and_in_order() {
    let server = server().await;
    let mut sending = server.connect("alice").await;
    for n in 1..=3 {
        let ack =
            acknowledged(&mut sending, "message:send", json!({ "receiverId": "bob", "message": n.to_string() })).await;
        assert_eq!(ack["ok"], true, "{ack}");
    }
    let mut receiving = server.connect("bob").await;
    for n in 1..=3 {
        assert_eq!(receiving.expect_event(RECEIVED).await.value()["content"], json!(n.to_string()));
    }
    // By the next answer the device has proven them.
    assert_eq!(acknowledged(&mut receiving, "message:read", json!({ "userId": "alice" })).await["count"], 3);
    assert_eq!(get(&server, "unread-count", "bob").await, (200, json!({ "count": 0 })));
}

#[tokio::test]
async fn a_repeated_message_is_answered_with_the_first_one() {
    let server = server().await;
    let mut receiving = server.connect("bob").await;
    let body = |content: &str| json!({ "receiverId": "bob", "content": content, "clientMessageId": "c-1" });
    let (created, first) = post(&server, "alice", body("one")).await;
    assert_eq!((created, post(&server, "alice", body("one")).await), (201, (200, first.clone())));
    assert_eq!(code(&post(&server, "alice", body("two")).await), (409, "failed_precondition"));
    let elsewhere = json!({ "receiverId": "carol", "content": "two", "clientMessageId": "c-1" });
    assert_eq!(post(&server, "alice", elsewhere).await.0, 201, "the id is one of the conversation");
    let last = posted(&server, "alice", "bob", "three").await;
    assert_eq!(receiving.expect_event(RECEIVED).await.value(), first);
    assert_eq!(receiving.expect_event(RECEIVED).await.value(), last);
    assert_eq!(do_it(&server, "DELETE", first["id"].as_str().unwrap(), "alice").await.0, 204);
    assert_eq!(code(&post(&server, "alice", body("one")).await), (409, "failed_precondition"), "it was deleted");
}

#[tokio::test]
async fn lists_are_paged_from_the_newest_one() {
    let server = server().await;
    for n in 1..=5 {
        let (from, to) = if n % 2 == 0 { ("alice", "bob") } else { ("bob", "alice") };
        posted(&server, from, to, &n.to_string()).await;
    }
    posted(&server, "carol", "alice", "6").await;
    let list = async |path: &str| get(&server, path, "alice").await.1;
    assert_eq!(contents(&list("conversation/bob").await), ["5", "4", "3", "2", "1"]);
    assert_eq!(contents(&list("conversation/bob?limit=2&offset=1").await), ["4", "3"]);
    let page = list("conversation/bob?limit=2").await;
    let before = format!("conversation/bob?limit=2&before={}", page[1]["id"].as_str().unwrap());
    posted(&server, "bob", "alice", "7").await;
    assert_eq!(contents(&list(&before).await), ["3", "2"], "what came since does not move the page");
    let by_time = format!("conversation/bob?before={}", page[1]["createdAt"].as_str().unwrap());
    assert_eq!(contents(&list(&by_time).await), ["3", "2", "1"]);
    let conversations = list("conversations").await;
    let users: Vec<_> = conversations.as_array().unwrap().iter().map(|one| one["userId"].as_str().unwrap()).collect();
    assert_eq!(users, ["bob", "carol"]);
    assert_eq!(
        (&conversations[0]["lastMessage"]["content"], &conversations[0]["unreadCount"]),
        (&json!("7"), &json!(4))
    );
    let next = format!("conversations?before={}", conversations[0]["lastMessage"]["id"].as_str().unwrap());
    assert_eq!(list(&next).await[0]["userId"], "carol");
    assert_eq!(list("unread-count").await, json!({ "count": 5 }));
    assert_eq!(list("conversation/nobody").await, json!([]));
    for path in [
        "conversation/bob?limit=0",
        "conversation/bob?limit=x",
        "conversation/bob?offset=10001",
        "conversations?before=x",
    ] {
        assert_eq!(code(&get(&server, path, "alice").await), (400, "invalid_argument"), "{path}");
    }
}

#[tokio::test]
async fn the_sender_is_told_what_was_read_and_both_what_was_deleted() {
    let server = server().await;
    let (mut alice, mut bob) = (server.connect("alice").await, server.connect("bob").await);
    let mut other = server.connect("bob").await;
    let first = posted(&server, "alice", "bob", "1").await;
    let second = posted(&server, "alice", "bob", "2").await;
    let id = |message: &Value| message["id"].as_str().unwrap().to_owned();
    let ack = acknowledged(&mut bob, "message:read", json!({ "messageIds": [id(&first)] })).await;
    assert_eq!(ack, json!({ "ok": true, "count": 1 }));
    for device in [&mut alice, &mut other] {
        let read = device.expect_event("message:read").ignoring(&[RECEIVED, "bugle:unread"]).await.value();
        assert_eq!((&read["messageIds"], &read["readerId"]), (&json!([id(&first)]), &json!("bob")));
        assert!(read["readAt"].is_string(), "{read}");
    }
    assert_eq!(do_it(&server, "PUT", "conversation/alice/read", "bob").await.0, 204);
    let read = alice.expect_event("message:read").await.value();
    assert_eq!(read["messageIds"], json!([id(&second)]));
    let listed = get(&server, "conversation/bob", "alice").await.1;
    assert!(listed.as_array().unwrap().iter().all(|message| message["isRead"] == true), "{listed}");
    let ack = acknowledged(&mut alice, "message:delete", json!({ "messageId": id(&second) })).await;
    assert_eq!(ack, json!({ "ok": true }));
    let deleted = bob.expect_event("message:deleted").ignoring(&[RECEIVED, "bugle:unread", "message:read"]).await;
    assert_eq!(deleted.value(), json!({ "messageId": id(&second) }));
    let conversations = get(&server, "conversations", "bob").await.1;
    assert_eq!(conversations[0]["lastMessage"]["content"], "1", "the one before is the last one now");
    assert_eq!(do_it(&server, "DELETE", &id(&first), "alice").await.0, 204);
    assert_eq!(get(&server, "conversations", "bob").await, (200, json!([])));
}

#[tokio::test]
async fn the_entries_of_a_message_in_mailboxes_follow_it() {
    let server = server().await;
    let notifications = async |user: &str| {
        let count = ask(&server, "GET", "/bugle/notifications/unread-count", &token(user), &Value::Null).await.1;
        let list = ask(&server, "GET", "/bugle/notifications", &token(user), &Value::Null).await.1;
        (count["count"].as_u64().unwrap(), list["notifications"].as_array().unwrap().len())
    };
    let first = posted(&server, "alice", "bob", "1").await;
    posted(&server, "alice", "bob", "2").await;
    assert_eq!((notifications("bob").await, notifications("alice").await), ((2, 2), (0, 2)), "a sender has read it");
    let id = first["id"].as_str().unwrap();
    assert_eq!(do_it(&server, "PUT", &format!("{id}/read"), "bob").await.0, 204);
    assert_eq!(notifications("bob").await, (1, 2));
    assert_eq!(do_it(&server, "DELETE", id, "alice").await.0, 204);
    assert_eq!((notifications("bob").await, notifications("alice").await), ((1, 1), (0, 1)));
}

#[tokio::test]
async fn contents_and_names_that_are_not_good_are_refused() {
    let server = server().await;
    let mut device = server.connect("alice").await;
    let long = "é".repeat(4_000);
    assert_eq!(post(&server, "alice", json!({ "receiverId": "bob", "content": long })).await.0, 201);
    for body in [
        json!({ "receiverId": "bob", "content": format!("{long}x") }),
        json!({ "receiverId": "bob", "content": "" }),
        json!({ "receiverId": "bob", "content": "a\u{7}" }),
        json!({ "receiverId": "bob", "content": "a\r\n" }),
        json!({ "receiverId": "bob", "content": 7 }),
        json!({ "receiverId": "alice", "content": "to myself" }),
        json!({ "receiverId": "", "content": "x" }),
        json!({ "receiverId": "x".repeat(257), "content": "x" }),
        json!({ "receiverId": "bob", "content": "x", "transactionId": "a\u{0}" }),
        json!({ "content": "x" }),
        json!([]),
    ] {
        assert_eq!(code(&post(&server, "alice", body.clone()).await), (400, "invalid_argument"), "{body}");
    }
    assert_eq!(code(&post(&server, "alice", json!({ "content": "x".repeat(70_000) })).await), (413, "too_large"));
    for argument in
        [json!("bob"), json!({}), json!({ "receiverId": "bob" }), json!({ "receiverId": "bob", "message": 7 })]
    {
        let ack = acknowledged(&mut device, "message:send", argument.clone()).await;
        assert_eq!(ack["error"]["code"], "invalid_argument", "{argument}: {ack}");
    }
    for (event, argument) in [
        ("message:read", json!({ "messageIds": ["x"] })),
        ("message:read", json!({ "messageIds": [] })),
        ("message:read", json!({})),
        ("message:delete", json!({ "messageId": 1 })),
        ("message:block", json!({ "userId": "bob", "blocked": "no" })),
        ("typing:start", json!([])),
    ] {
        let ack = acknowledged(&mut device, event, argument.clone()).await;
        assert_eq!(ack["error"]["code"], "invalid_argument", "{event} {argument}: {ack}");
    }
}

#[tokio::test]
async fn too_many_messages_are_refused_with_a_time_to_wait() {
    let server = TestServer::start_with(|config| {
        enable(config);
        config.messages.rate = Rate { per_second: 1, burst: 3 };
        config.messages.conversation_rate = Rate { per_second: 1, burst: 2 };
    })
    .await;
    let mut device = server.connect("alice").await;
    let mut send =
        async |to: &str| acknowledged(&mut device, "message:send", json!({ "receiverId": to, "message": "x" })).await;
    assert_eq!([send("bob").await["ok"].clone(), send("bob").await["ok"].clone()], [true, true]);
    for (to, limit) in [("bob", "messages.conversation_rate"), ("carol", "messages.rate")] {
        let error = &send(to).await["error"];
        assert_eq!(error["code"], "rate", "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.starts_with(limit)), "{error}");
        assert!(error["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{error}");
    }
}

#[tokio::test]
async fn typing_ends_by_itself_and_with_the_connection() {
    let server = server().await;
    let (alice, mut bob) = (server.connect("alice").await, server.connect("bob").await);
    let typist = json!({ "userId": "alice" });
    alice.emit("typing:start", &[json!("bob")]);
    assert_eq!(bob.expect_event("typing:start").await.value(), typist);
    alice.emit("typing:stop", &[json!("bob")]);
    assert_eq!(bob.expect_event("typing:stop").await.value(), typist);
    alice.emit("typing:start", &[json!({ "receiverId": "bob" })]);
    assert_eq!(bob.expect_event("typing:start").await.value(), typist);
    assert_eq!(bob.expect_event("typing:stop").await.value(), typist, "after 5 s of silence");
    alice.emit("typing:start", &[json!("bob")]);
    assert_eq!(bob.expect_event("typing:start").await.value(), typist);
    alice.abort().await;
    assert_eq!(bob.expect_event("typing:stop").await.value(), typist, "the connection has ended");
}

#[tokio::test]
async fn events_and_fields_have_the_configured_names() {
    let server = TestServer::start_with(|config| {
        enable(config);
        config.messages.path = "/chat".into();
        config.messages.events.send = "chat".into();
        config.messages.events.received = "chat:new".into();
        config.messages.fields.text = "content".into();
        config.messages.fields.sender_id = "from".into();
        config.messages.fields.created_at = "at".into();
    })
    .await;
    let (mut alice, mut bob) = (server.connect("alice").await, server.connect("bob").await);
    let ack = acknowledged(&mut alice, "chat", json!({ "receiverId": "bob", "content": "hi" })).await;
    let message = bob.expect_event("chat:new").await.value();
    assert_eq!((&message, &message["from"], &message["content"]), (&ack["message"], &json!("alice"), &json!("hi")));
    assert!(message["at"].is_string() && message["senderId"].is_null(), "{message}");
    assert_eq!(ask(&server, "GET", "/chat/conversation/bob", &token("alice"), &Value::Null).await.1, json!([message]));
}

#[tokio::test]
async fn without_messages_there_is_no_route_and_no_event() {
    let server = TestServer::start().await;
    let mut device = server.connect("alice").await;
    assert_eq!(get(&server, "unread-count", "alice").await.0, 404);
    assert_eq!(post(&server, "alice", json!({ "receiverId": "bob", "content": "x" })).await.0, 404);
    let ack = acknowledged(&mut device, "message:send", json!({ "receiverId": "bob", "message": "x" })).await;
    assert_eq!(ack["error"]["code"], "unknown_event", "{ack}");
}

#[tokio::test]
async fn a_connection_gets_no_event_of_its_own_message_though_the_peer_sends_at_the_same_time() {
    const COUNT: usize = 20;
    let server = server().await;
    let mut devices = [server.connect("alice").await, server.connect("bob").await];
    for n in 0..COUNT {
        for (device, peer) in devices.iter().zip(["bob", "alice"]) {
            device.emit("message:send", &[json!({ "receiverId": peer, "message": n.to_string() })]);
        }
    }
    for (device, own) in devices.iter_mut().zip(["alice", "bob"]) {
        let mut received = Vec::new();
        // Those who sent it were not to get it: the next one is behind all.
        while received.len() < COUNT {
            received.push(device.expect_event(RECEIVED).await.value());
        }
        posted(&server, "carol", own, "last").await;
        received.push(device.expect_event(RECEIVED).await.value());
        assert!(received.iter().all(|message| message["senderId"] != own), "{own}: {received:?}");
        assert_eq!(received.last().map(|message| &message["content"]), Some(&json!("last")));
    }
}
