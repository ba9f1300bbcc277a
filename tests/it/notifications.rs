//! The mailboxes of a device's rooms, over REST.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, emit_to_room_request};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::harness::{Backend, Device, TestServer, answer, raw_http, to_room, token, token_with};

const ADMINS: &str = "role:admin";
const HOUR: Duration = Duration::from_hours(1);

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The code of an error, which has this shape and no other.
    #[track_caller]
    fn code(&self) -> (u16, &str) {
        let error = self.body["error"].as_object().unwrap_or_else(|| panic!("no error: {}", self.body));
        assert!(error.len() == 2 && self.body.as_object().is_some_and(|all| all.len() == 1), "{}", self.body);
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", self.body);
        (self.status, error["code"].as_str().expect("a code is text"))
    }
}

async fn ask(server: &TestServer, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: bugle\r\nconnection: close\r\n{headers}\r\n");
    let response = raw_http(server.clients(), request.as_bytes()).await;
    let response = String::from_utf8(response.to_vec()).expect("the answer is text");
    let (head, body) = response.split_once("\r\n\r\n").expect("the answer has a head");
    let status = head[9..12].parse().expect("the answer has a status");
    Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
}

async fn get(server: &TestServer, path: &str, token: &str) -> Answer {
    ask(server, "GET", path, &format!("authorization: Bearer {token}\r\n")).await
}

async fn put(server: &TestServer, path: &str, token: &str) -> Answer {
    ask(server, "PUT", path, &format!("authorization: Bearer {token}\r\n")).await
}

fn admin(user: &str) -> String {
    token_with(&json!({ "sub": user, "role": "admin" }))
}

fn unread(room: &str, count: u64) -> Value {
    json!({ "room": room, "count": count })
}

async fn expect_unread(device: &mut Device, room: &str, count: u64) {
    assert_eq!(device.expect_event("bugle:unread").await.value(), unread(room, count));
}

async fn is_silent(backend: &Backend, device: &mut Device, user: &str) {
    backend.emit_to_user(user, "next", "1").await;
    assert_eq!(device.next_event().await.name, "next");
}

#[tokio::test]
async fn a_device_lists_its_own_mailbox_in_pages() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let first = backend.store_in("user:42", "note", r#"{"b":1.10,"a":"é"}"#).await;
    let mut request = to_room("user:42", "bytes", "");
    request.payload = Some(emit_to_room_request::Payload::Binary(vec![0, 255].into()));
    request.options = Some(EmitOptions { store: true, ..EmitOptions::default() });
    answer(backend.notify().emit_to_room(request.clone())).await.unwrap();
    request.payload = None;
    let last = answer(backend.notify().emit_to_room(request)).await.unwrap().receipt.unwrap();
    let own = token("42");
    let page = get(&server, "/bugle/notifications?page_size=2", &own).await;
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")));
    let [one, two] = page.body["notifications"].as_array().unwrap().as_slice() else { panic!("{}", page.body) };
    let stored_at = one["storedAt"].as_str().expect("a time is text");
    assert!(stored_at.parse::<jiff::Timestamp>().is_ok_and(|at| at <= server.clock.now()), "{stored_at}");
    let expected = json!({
        "id": first.message_id, "position": first.position, "event": "note", "payload": { "b": 1.10, "a": "é" },
        "storedAt": stored_at, "read": false,
    });
    assert_eq!(*one, expected);
    assert_eq!((&two["payload"], &two["binary"]), (&json!("AP8="), &json!(true)));
    let next = page.body["nextPageToken"].as_str().expect("there is more");
    let rest = get(&server, &format!("/bugle/notifications?page_token={next}"), &own).await.body;
    assert_eq!(rest["notifications"][0]["position"], last.position);
    assert_eq!(rest["notifications"][0]["payload"], Value::Null);
    assert_eq!(rest.as_object().unwrap().len(), 1, "no more pages: {rest}");
    let since = get(&server, &format!("/bugle/notifications?since={next}&unread=true"), &own).await.body;
    assert_eq!(since, rest);
}

#[tokio::test]
async fn reading_is_counted_and_told_to_the_users_devices_and_to_nobody_else() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut receipts = Vec::new();
    for n in 1..=4 {
        receipts.push(backend.store_in(ADMINS, "note", &n.to_string()).await);
    }
    let (officer, chief) = (admin("officer"), admin("chief"));
    let mut device = server.device("officer").token(officer.clone()).connect().await.unwrap();
    let mut other = server.device("chief").token(chief.clone()).connect().await.unwrap();
    let count = "/bugle/notifications/unread-count?room=role:admin";
    assert_eq!(get(&server, count, &officer).await.body, unread(ADMINS, 4));

    let one = format!("/bugle/notifications/{}/read?room=role:admin", receipts[2].message_id);
    for _ in 0..2 {
        let answer = put(&server, &one, &officer).await;
        assert_eq!((answer.status, answer.body), (200, unread(ADMINS, 3)));
    }
    expect_unread(&mut device, ADMINS, 3).await;
    let up_to = format!("/bugle/notifications/read?room=role:admin&position={}", receipts[1].position);
    assert_eq!(put(&server, &up_to, &officer).await.body, unread(ADMINS, 1));
    expect_unread(&mut device, ADMINS, 1).await;
    let listed = get(&server, "/bugle/notifications?room=role:admin", &officer).await.body;
    let states: Vec<_> = listed["notifications"].as_array().unwrap().iter().map(|one| one["read"].clone()).collect();
    assert_eq!(states, [true, true, true, false]);
    assert_eq!(put(&server, "/bugle/notifications/read?room=role:admin", &officer).await.body, unread(ADMINS, 0));
    expect_unread(&mut device, ADMINS, 0).await;
    is_silent(&backend, &mut device, "officer").await;
    is_silent(&backend, &mut other, "chief").await;
    assert_eq!(get(&server, count, &chief).await.body, unread(ADMINS, 4));

    backend.store_in("user:chief", "note", "1").await;
    assert_eq!(get(&server, "/bugle/notifications/unread-count", &chief).await.body, unread("user:chief", 1));
    assert_eq!(put(&server, "/bugle/notifications/read", &chief).await.body, unread("user:chief", 0));
}

#[tokio::test]
async fn what_expired_is_gone() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut request = to_room("user:42", "note", "1");
    let ttl = Some(HOUR.try_into().unwrap());
    request.options = Some(EmitOptions { store: true, ttl, ..EmitOptions::default() });
    let id = answer(backend.notify().emit_to_room(request)).await.unwrap().receipt.unwrap().message_id;
    let own = token_with(&json!({ "sub": "42", "exp": server.clock.now().as_second() + 3 * 3600 }));
    assert_eq!(get(&server, "/bugle/notifications/unread-count", &own).await.body, unread("user:42", 1));
    server.clock.advance(2 * HOUR);
    assert_eq!(get(&server, "/bugle/notifications/unread-count", &own).await.body, unread("user:42", 0));
    assert_eq!(get(&server, "/bugle/notifications", &own).await.body, json!({ "notifications": [] }));
    assert_eq!(put(&server, &format!("/bugle/notifications/{id}/read"), &own).await.code(), (404, "not_found"));
    server.clock.advance(2 * HOUR);
    assert_eq!(get(&server, "/bugle/notifications", &own).await.code(), (401, "unauthenticated"));
}

/// All there is to ask, each with a room.
fn every_request(id: &str, room: &str) -> [(&'static str, String); 4] {
    [
        ("GET", format!("/bugle/notifications?room={room}")),
        ("GET", format!("/bugle/notifications/unread-count?room={room}")),
        ("PUT", format!("/bugle/notifications/{id}/read?room={room}")),
        ("PUT", format!("/bugle/notifications/read?room={room}")),
    ]
}

#[tokio::test]
async fn who_is_nobody_or_asks_for_rooms_of_others_is_refused() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let id = backend.store_in("user:42", "note", "1").await.message_id;
    backend.store_in(ADMINS, "note", "1").await;
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    for (method, path) in every_request(&id, "user:42") {
        for headers in [String::new(), bearer("bad"), bearer(&token_with(&json!({ "sub": "42", "exp": 1 })))] {
            let refused = ask(&server, method, &path, &headers).await;
            assert_eq!(refused.code(), (401, "unauthenticated"), "{path}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        }
        assert_eq!(ask(&server, method, &path, &bearer(&token("43"))).await.code(), (403, "not_your_room"), "{path}");
    }
    for room in [ADMINS, "user:", "elsewhere", ""] {
        for (method, path) in every_request(&id, room) {
            assert_eq!(ask(&server, method, &path, &bearer(&token("42"))).await.code(), (403, "not_your_room"));
        }
    }
    assert_eq!(get(&server, "/bugle/notifications/unread-count", &token("42")).await.body, unread("user:42", 1));
    let foreign = put(&server, &format!("/bugle/notifications/{id}/read"), &token("43")).await;
    assert_eq!(foreign.code(), (404, "not_found"), "it is not in this mailbox");
    backend.join_room("elsewhere", "42").await;
    let joined = get(&server, "/bugle/notifications/unread-count?room=elsewhere", &token("42")).await;
    assert_eq!(joined.body, unread("elsewhere", 0), "a backend has put the user there");
}

#[tokio::test]
async fn what_is_malformed_is_named() {
    let server = TestServer::start().await;
    server.backend().await.store_in("user:42", "note", "1").await;
    let cases = [
        ("GET", "?since=1", "since"),
        ("GET", "?since=0123456789abcdef.1", "since"),
        ("GET", "?unread=yes", "unread"),
        ("GET", "?page_size=-1", "page_size"),
        ("GET", "?page_size=many", "page_size"),
        ("GET", "?page_token=x", "page_token"),
        ("GET", "?since=a.1&since=a.2", "once"),
        ("PUT", "/read?position=1", "position"),
        ("PUT", "/read?position=0123456789abcdef.1", "position"),
        ("PUT", "/7/read", "id"),
    ];
    let own = format!("authorization: Bearer {}\r\n", token("42"));
    for (method, path, named) in cases {
        let refused = ask(&server, method, &format!("/bugle/notifications{path}"), &own).await;
        assert_eq!(refused.code(), (400, "invalid_argument"), "{path}");
        let message = refused.body["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(named), "{path}: {message}");
    }
}

#[tokio::test]
async fn without_a_store_or_with_one_out_of_reach_nothing_is_answered() {
    let id = "019a0000-0000-7000-8000-000000000000";
    let expected = [("", (409, "failed_precondition")), ("postgres://nobody@127.0.0.1:1/none", (503, "unavailable"))];
    for (url, code) in expected {
        let server = TestServer::start_with(|config| config.store.url = SecretString::from(url)).await;
        for (method, path) in every_request(id, "user:42") {
            let own = format!("authorization: Bearer {}\r\n", token("42"));
            let refused = ask(&server, method, &path, &own).await;
            assert_eq!(refused.code(), code, "{path}");
            assert_eq!(refused.header("retry-after"), (code.0 == 503).then_some("1"));
        }
    }
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_and_mark_and_others_may_not() {
    let origin = "https://app.example.com";
    let server = TestServer::start_with(|config| config.clients.cors_origins = vec![origin.to_owned()]).await;
    let asked = "access-control-request-method: PUT\r\naccess-control-request-headers: authorization\r\n";
    let path = "/bugle/notifications/read";
    let preflight = ask(&server, "OPTIONS", path, &format!("origin: {origin}\r\n{asked}")).await;
    assert_eq!(preflight.header("access-control-allow-origin"), Some(origin));
    let methods = preflight.header("access-control-allow-methods").unwrap_or_default();
    assert!(methods.split(',').any(|method| method.trim() == "PUT"), "{methods}");
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization"));
    let own = format!("authorization: Bearer {}\r\n", token("42"));
    let marked = ask(&server, "PUT", path, &format!("origin: {origin}\r\n{own}")).await;
    assert_eq!((marked.status, marked.header("access-control-allow-origin")), (200, Some(origin)));
    let other = ask(&server, "PUT", path, &format!("origin: https://evil.example\r\n{own}")).await;
    assert_eq!(other.code(), (403, "origin"));
}
