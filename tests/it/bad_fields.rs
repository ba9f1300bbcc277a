use bugle::proto::v1::{
    EmitOptions, EmitToUserRequest, EmitToUsersRequest, GetUserRequest, broadcast_request, emit_to_user_request,
};
use prost_types::{ListValue, Value, value::Kind};
use tonic::{Code, Status};

use crate::harness::{
    Backend, TestServer, answer, named, refused, to_everyone, to_room, to_user, to_users, violations, with_options,
};

fn violation(field: &str, description: &str) -> (String, String) {
    (field.into(), description.into())
}

/// The refusal of an event name by each rpc that takes one, which must be the same.
async fn refused_event(backend: &Backend, event: &str) -> Status {
    let mut notify = backend.notify();
    let code = Code::InvalidArgument;
    let statuses = [
        refused(code, notify.emit_to_user(to_user("42", event, "1"))).await,
        refused(code, notify.emit_to_users(to_users(&["42"], event, "1"))).await,
        refused(code, notify.emit_to_room(to_room("a", event, "1"))).await,
        refused(code, notify.broadcast(to_everyone(event, "1"))).await,
    ];
    for status in &statuses {
        assert_eq!(violations(status), violations(&statuses[0]));
        assert_eq!(status.message(), statuses[0].message());
    }
    statuses[0].clone()
}

#[tokio::test]
async fn bad_event_names_are_refused_by_every_emit() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let (long, longer) = ("x".repeat(257), "é".repeat(150));
    for (event, description) in [
        ("", "is empty: give 1 to 256 bytes"),
        (&*long, "has 257 bytes: at most 256 are allowed"),
        (&*longer, "has 300 bytes: at most 256 are allowed"),
        ("a\u{0}b", "has a control character at byte 1"),
        ("ab\n", "has a control character at byte 2"),
        ("é\u{85}", "has a control character at byte 2"),
        ("bugle:", "begins with `bugle:`, which is for Bugle's own events: choose another name"),
        ("bugle:disconnect", "begins with `bugle:`, which is for Bugle's own events: choose another name"),
    ] {
        let status = refused_event(&backend, event).await;
        assert_eq!(violations(&status), [violation("event", description)]);
        assert_eq!(status.message(), format!("event {description}"));
    }
    for event in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        let description = "is one of Socket.IO's own events: choose another name";
        assert_eq!(violations(&refused_event(&backend, event).await), [violation("event", description)]);
    }
    let longest = "x".repeat(256);
    for event in [&*longest, "Connect", "bugle", "connected", "é🎺"] {
        backend.emit_to_user("42", event, "1").await;
        device.expect_event(event).await;
    }
}

#[tokio::test]
async fn malformed_json_is_refused_with_the_offset_of_the_fault() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (json, description) in [
        ("", "is not JSON: it ends too early, at byte 0"),
        ("{\"a\":1", "is not JSON: it ends too early, at byte 6"),
        ("{\"a\":x}", "is not JSON: a syntax error at byte 5"),
        ("[1,\n 2,\n x]", "is not JSON: a syntax error at byte 9"),
        ("{'a':1}", "is not JSON: a syntax error at byte 1"),
        ("NaN", "is not JSON: a syntax error at byte 0"),
        ("1 2", "is not JSON: a syntax error at byte 2"),
        ("01", "is not JSON: a syntax error at byte 1"),
    ] {
        let request = to_user("42", "e", json);
        let status = refused(Code::InvalidArgument, backend.notify().emit_to_user(request)).await;
        assert_eq!(violations(&status), [violation("json", description)], "{json}");
    }
}

#[tokio::test]
async fn values_that_json_does_not_have_are_refused() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let empty = Value { kind: None };
    let in_list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![empty.clone()] })) };
    let no_kind = "holds a Value of no kind: null is `null_value`";
    let not_finite = "holds NaN or an infinity, which JSON does not have";
    for (value, description) in [
        (empty, no_kind),
        (in_list, no_kind),
        (Value { kind: Some(Kind::NumberValue(f64::NAN)) }, not_finite),
        (Value { kind: Some(Kind::NumberValue(f64::NEG_INFINITY)) }, not_finite),
    ] {
        let mut request = to_everyone("e", "");
        request.payload = Some(broadcast_request::Payload::Value(value));
        let status = refused(Code::InvalidArgument, notify.broadcast(request)).await;
        assert_eq!(violations(&status), [violation("value", description)]);
    }
}

#[tokio::test]
async fn a_payload_may_have_exactly_max_payload_bytes() {
    const MOST: usize = 1 << 20;
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let json = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert_eq!(backend.emit_to_user("42", "json", &json(MOST)).await.enqueued, 1);
    assert_eq!(device.expect_event("json").await.json().len(), MOST);
    let binary = |bytes: usize| {
        let payload = Some(emit_to_user_request::Payload::Binary(vec![7; bytes].into()));
        EmitToUserRequest { payload, ..to_user("42", "binary", "") }
    };
    answer(backend.notify().emit_to_user(binary(MOST))).await.unwrap();
    assert_eq!(device.expect_event("binary").await.binary().len(), MOST);

    for bytes in [MOST + 1, 2 << 20] {
        let description = format!("has {bytes} bytes: at most {MOST} are allowed (limits.max_payload)");
        for request in [to_user("42", "e", &json(bytes)), binary(bytes)] {
            let status = refused(Code::InvalidArgument, backend.notify().emit_to_user(request)).await;
            assert_eq!(violations(&status), [violation("payload", &description)]);
        }
        let request = to_users(&["42"], "e", &json(bytes));
        let status = refused(Code::InvalidArgument, backend.notify().emit_to_users(request)).await;
        assert_eq!(violations(&status), [violation("payload", &description)]);
    }
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next", "nothing was sent in between");
}

#[tokio::test]
async fn users_are_named_once_and_at_most_a_thousand() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let status = refused(Code::InvalidArgument, notify.emit_to_users(to_users(&[], "e", "1"))).await;
    assert_eq!(violations(&status), [violation("user_ids", "is empty: give 1 to 1000")]);
    let status =
        refused(Code::InvalidArgument, notify.emit_to_users(to_users(&["1", "2", "1", "", "1"], "e", "1"))).await;
    let twice = "stands in the list before: name each user once";
    let empty = "is empty: give 1 to 256 bytes";
    let expected = [("user_ids[3]", empty), ("user_ids[2]", twice), ("user_ids[4]", twice)];
    assert_eq!(violations(&status), expected.map(|(field, what)| violation(field, what)));

    let user_ids: Vec<_> = (0..1_001).map(|number| number.to_string()).collect();
    let mut request = EmitToUsersRequest { user_ids, ..to_users(&[], "e", "1") };
    let status = refused(Code::InvalidArgument, notify.emit_to_users(request.clone())).await;
    assert_eq!(violations(&status), [violation("user_ids", "has 1001 entries: at most 1000 are allowed")]);
    request.user_ids.pop();
    assert_eq!(answer(notify.emit_to_users(request)).await.unwrap().receipts.len(), 1_000);
}

#[tokio::test]
async fn every_field_that_is_wrong_is_named_at_once() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let uuid = uuid::Uuid::new_v4().to_string();
    let options = EmitOptions {
        idempotency_key: "k".repeat(257),
        except_connection_ids: vec![uuid, "socket-id".into()],
        except_user_ids: vec![String::new()],
        except_rooms: vec!["a".into(), "b".into(), "c\t".into()],
        ..EmitOptions::default()
    };
    let request = EmitToUserRequest { options: Some(options), ..to_user("", "connect", "[") };
    let status = refused(Code::InvalidArgument, backend.notify().emit_to_user(request)).await;
    let expected = [
        "user_id",
        "event",
        "json",
        "options.idempotency_key",
        "options.except_connection_ids[1]",
        "options.except_user_ids[0]",
        "options.except_rooms[2]",
    ];
    assert_eq!(named(&status), expected);
    for field in expected {
        assert!(status.message().contains(field), "{field} is not in {}", status.message());
    }
    let status = refused(Code::InvalidArgument, backend.presence().get_user(GetUserRequest::default())).await;
    assert_eq!(named(&status), ["user_id"]);
}

#[tokio::test]
async fn lists_of_exceptions_are_limited() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let ids = |count: usize| vec![uuid::Uuid::new_v4().to_string(); count];
    let most = EmitOptions {
        except_connection_ids: ids(1_000),
        except_user_ids: ids(1_000),
        except_rooms: ids(100),
        ..EmitOptions::default()
    };
    answer(notify.emit_to_user(with_options(most))).await.unwrap();
    let more = EmitOptions {
        except_connection_ids: ids(1_001),
        except_user_ids: ids(1_001),
        except_rooms: ids(101),
        ..EmitOptions::default()
    };
    let status = refused(Code::InvalidArgument, notify.emit_to_user(with_options(more))).await;
    let expected = [
        ("options.except_connection_ids", "has 1001 entries: at most 1000 are allowed"),
        ("options.except_user_ids", "has 1001 entries: at most 1000 are allowed"),
        ("options.except_rooms", "has 101 entries: at most 100 are allowed"),
    ];
    assert_eq!(violations(&status), expected.map(|(field, what)| violation(field, what)));
}

/// Violations travel in headers, of which most clients take 8 to 16 KiB.
#[tokio::test]
async fn a_refusal_names_the_first_faults_of_many_and_says_how_many_more_there_are() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let users: Vec<_> = (0..1_000).map(|number| format!("{number}\n")).collect();
    let users: Vec<_> = users.iter().map(String::as_str).collect();
    let status = refused(Code::InvalidArgument, notify.emit_to_users(to_users(&users, "e", "1"))).await;
    let violations = violations(&status);
    assert_eq!(violations[0], violation("user_ids[0]", "has a control character at byte 1"));
    assert!(violations.last().unwrap().1.ends_with(&format!("(and {} more)", 1_000 - violations.len())));
    let size = status.message().len() + status.details().len();
    assert!(size < 6 << 10, "{size} bytes");
}
