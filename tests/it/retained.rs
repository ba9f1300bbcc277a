//! The last payload per room and event, for whoever comes later.

use std::time::Duration;

use bugle::message::EventPattern;
use bugle::proto::v1::{
    EmitOptions, EmitToRoomRequest, EmitToUserRequest, GetRetainedRequest, Receipt, emit_to_room_request,
    emit_to_user_request, get_retained_response, mailbox_client::MailboxClient,
};
use bugle::websocket::EndpointConfig;
use serde_json::Value;
use tonic::{Code, Request};

use crate::harness::{
    API_KEY, Backend, PlainDevice, PlainFrame, TestServer, answer, auth_message, deadline, raw_http, to_room, to_users,
    token,
};

fn retain() -> EmitOptions {
    EmitOptions { retain: true, ..EmitOptions::default() }
}

async fn retain_for_user(backend: &Backend, user: &str, event: &str, json: Option<&str>) -> tonic::Result<Receipt> {
    let request = EmitToUserRequest {
        user_id: user.into(),
        event: event.into(),
        payload: json.map(|json| emit_to_user_request::Payload::Json(json.into())),
        options: Some(retain()),
    };
    let response = deadline("the emit", backend.notify().emit_to_user(request)).await?;
    Ok(response.into_inner().receipt.expect("there is a receipt"))
}

async fn get(server: &TestServer, path: &str, token: Option<&str>) -> (u16, String) {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: bugle\r\nconnection: close\r\n{authorization}\r\n");
    let response = raw_http(server.clients(), request.as_bytes()).await;
    let response = String::from_utf8(response.to_vec()).expect("the answer is text");
    let (head, body) = response.split_once("\r\n\r\n").expect("the answer has a head");
    (head[9..12].parse().expect("the answer has a status"), body.to_owned())
}

#[tokio::test]
async fn the_last_value_is_sent_to_a_device_that_comes_later_and_to_no_other_user() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for balance in ["1", "2.50"] {
        let receipt = retain_for_user(&backend, "42", "balance", Some(balance)).await.unwrap();
        assert_eq!(receipt.matched, 0);
    }
    let mut device = server.connect("42").await;
    assert_eq!(device.expect_event("balance").await.json(), "2.50");
    let mut stranger = server.connect("43").await;
    backend.emit_to_user("43", "next", "1").await;
    assert_eq!(stranger.next_event().await.name, "next");
}

#[tokio::test]
async fn the_last_value_of_a_room_is_sent_on_join() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let request = EmitToRoomRequest {
        room: "prices".into(),
        event: "price".into(),
        payload: Some(emit_to_room_request::Payload::Binary(vec![1, 2].into())),
        options: Some(retain()),
    };
    deadline("the emit", backend.notify().emit_to_room(request)).await.unwrap();
    let mut device = server.connect("42").await;
    assert_eq!(backend.join_room("prices", "42").await, 1);
    assert_eq!(device.expect_event("price").await.binary().as_ref(), [1, 2]);
}

#[tokio::test]
async fn retaining_no_payload_takes_the_value_away() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    retain_for_user(&backend, "42", "balance", Some("1")).await.unwrap();
    retain_for_user(&backend, "42", "balance", None).await.unwrap();
    retain_for_user(&backend, "42", "wrapped", Some("1")).await.unwrap();
    let wrapped = EmitToUserRequest {
        user_id: "42".into(),
        event: "wrapped".into(),
        payload: None,
        options: Some(EmitOptions { envelope: true, ..retain() }),
    };
    deadline("the emit", backend.notify().emit_to_user(wrapped)).await.unwrap();
    let mut device = server.connect("42").await;
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next");
}

#[tokio::test]
async fn values_past_the_limit_are_refused() {
    let server = TestServer::start_with(|config| config.retain.max_entries = 1).await;
    let backend = server.backend().await;
    retain_for_user(&backend, "42", "a", Some("1")).await.unwrap();
    let refused = retain_for_user(&backend, "42", "b", Some("1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("retain.max_entries"), "{}", refused.message());
    retain_for_user(&backend, "42", "a", Some("2")).await.expect("it takes the place of the other");
}

#[tokio::test]
async fn a_device_reads_its_own_values_over_rest_and_no_others() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    retain_for_user(&backend, "42", "balance", Some(r#"{"b":1.10,"a":"€"}"#)).await.unwrap();
    let (own, other) = (token("42"), token("43"));
    assert_eq!(get(&server, "/bugle/retained/balance", Some(&own)).await, (200, r#"{"b":1.10,"a":"€"}"#.to_owned()));
    assert_eq!(get(&server, "/bugle/retained/none", Some(&own)).await.0, 404);
    assert_eq!(get(&server, "/bugle/retained/balance", Some(&other)).await.0, 404);
    assert_eq!(get(&server, "/bugle/retained/balance?room=user:42", Some(&other)).await.0, 403);
    assert_eq!(get(&server, "/bugle/retained/balance?room=user:42", Some(&own)).await.0, 200);
    let (status, body) = get(&server, "/bugle/retained/balance", None).await;
    assert_eq!(status, 401);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["error"]["message"], "Authentication token required");
    assert_eq!(get(&server, "/bugle/retained", Some("bad")).await.0, 401);

    let (_, all) = get(&server, "/bugle/retained", Some(&own)).await;
    let all: Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all["retained"][0]["room"], "user:42");
    assert_eq!(all["retained"][0]["payload"]["a"], "€");
}

#[tokio::test]
async fn a_backend_with_the_scope_reads_a_value() {
    let server = TestServer::start_with(|config| config.grpc.api_keys[0].scopes.push("mailbox".into())).await;
    let backend = server.backend().await;
    retain_for_user(&backend, "42", "balance", Some("7")).await.unwrap();
    let channel = tonic::transport::Endpoint::new(format!("http://{}", server.grpc())).unwrap().connect_lazy();
    let mut mailbox = MailboxClient::new(channel);
    let mut ask = async |event: &str| {
        let mut request = Request::new(GetRetainedRequest { room: "user:42".into(), event: event.into() });
        let key = format!("Bearer {API_KEY}").parse().unwrap();
        request.metadata_mut().insert("authorization", key);
        deadline("the answer", mailbox.get_retained(request)).await
    };
    let answer = ask("balance").await.unwrap().into_inner().payload;
    assert_eq!(answer, Some(get_retained_response::Payload::Json("7".into())));
    assert_eq!(ask("none").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn more_than_a_queue_takes_is_retained_and_comes_whole_and_in_order() {
    let server = TestServer::start_with(|config| {
        config.socketio.queue_bytes = 16 << 10;
        let events = EventPattern::new("*").into_iter().collect();
        let auth_timeout = Duration::from_secs(5);
        config.websocket.push(EndpointConfig { path: "/all".into(), events, auth_timeout });
    })
    .await;
    let backend = server.backend().await;
    let mut joined = server.connect("43").await;
    for number in 0..1_000 {
        let event = format!("e{number:03}");
        let json = format!(r#""{number}{}""#, "x".repeat(500));
        retain_for_user(&backend, "42", &event, Some(&json)).await.unwrap();
        let mut request = to_room("prices", &event, &json);
        request.options = Some(retain());
        answer(backend.notify().emit_to_room(request)).await.unwrap();
    }
    let mut device = server.connect("42").await;
    assert_eq!(backend.join_room("prices", "43").await, 1);
    let mut plain = PlainDevice::builder(server.clients(), "/all").open().await.expect("the WebSocket opens");
    plain.send_text(auth_message(&token("42"))).await;
    for number in 0..1_000 {
        for device in [&mut device, &mut joined] {
            assert_eq!(device.next_event().await.name, format!("e{number:03}"));
        }
        let PlainFrame::Text(text) = plain.receive().await else { panic!("{number} is no text") };
        assert!(text.starts_with(&format!("\"{number}x")), "{number}: {text}");
    }
    for user in ["42", "43"] {
        backend.emit_to_user(user, "next", "1").await;
    }
    for device in [&mut device, &mut joined] {
        assert_eq!(device.next_event().await.name, "next");
    }
}

#[tokio::test]
async fn the_bytes_of_a_rooms_values_are_bounded() {
    let server = TestServer::start_with(|config| config.retain.max_room_bytes = 1_024).await;
    let backend = server.backend().await;
    let long = format!("\"{}\"", "x".repeat(600));
    retain_for_user(&backend, "42", "a", Some(&long)).await.unwrap();
    let refused = retain_for_user(&backend, "42", "b", Some(&long)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("retain.max_room_bytes is met"), "{}", refused.message());
    retain_for_user(&backend, "43", "b", Some(&long)).await.expect("it is another room");
}

#[tokio::test]
async fn an_emit_to_several_users_is_retained_for_all_or_for_none() {
    let server = TestServer::start_with(|config| config.retain.max_entries = 2).await;
    let backend = server.backend().await;
    let mut device = server.connect("1").await;
    let mut request = to_users(&["1", "2", "3"], "balance", "1");
    request.options = Some(retain());
    let refused = answer(backend.notify().emit_to_users(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    backend.emit_to_user("1", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next", "nothing was sent");
}

#[tokio::test]
async fn a_device_that_joins_again_and_again_and_does_not_read_is_slow() {
    let server = TestServer::start_with(|config| {
        config.socketio.queue_bytes = 16 << 10;
        config.retain.max_room_bytes = 64 << 10;
        let rules = serde_json::json!([
            { "event": "join", "join": "prices:{arg}", "rooms": "any" },
            { "event": "leave", "leave": "prices:{arg}" },
        ]);
        config.client_events = serde_json::from_value(rules).expect("the rules have the right types");
    })
    .await;
    let backend = server.backend().await;
    let mut request = to_room("prices:1", "price", &format!("\"{}\"", "x".repeat(60_000)));
    request.options = Some(retain());
    answer(backend.notify().emit_to_room(request)).await.unwrap();
    let mut device = server.device("42").receive_buffer(4 << 10).connect().await.expect("it connects");
    device.emit("join", &["1".into()]);
    device.expect_event("price").await;
    device.stop_reading();
    for _ in 0..200 {
        device.emit("leave", &["1".into()]);
        device.emit("join", &["1".into()]);
    }
    deadline("its end", async { while backend.get_user("42").await.online {} }).await;
}
