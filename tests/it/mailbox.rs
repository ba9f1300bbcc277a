//! Mailboxes as backends see them: listed, counted, read and deleted.

use std::time::Duration;

use bugle::message::{ConnectionId, EventPattern};
use bugle::proto::v1::{
    CountUnreadRequest, DeleteMessagesRequest, EmitOptions, EmitToRoomRequest, ListMessagesRequest,
    ListMessagesResponse, MarkReadRequest, StoredMessage, delete_messages_request, emit_to_room_request,
    mark_read_request, stored_message,
};
use bugle::websocket::EndpointConfig;
use serde_json::json;
use tonic::Code;

use crate::harness::{
    Backend, Device, PlainDevice, PlainFrame, TestServer, answer, auth_message, deadline, refused, to_room, token_with,
};

const ADMINS: &str = "role:admin";
const HOUR: Duration = Duration::from_hours(1);

fn listing(room: &str) -> ListMessagesRequest {
    ListMessagesRequest { room: room.into(), ..ListMessagesRequest::default() }
}

async fn list(backend: &Backend, request: ListMessagesRequest) -> ListMessagesResponse {
    answer(backend.mailbox().list_messages(request)).await.expect("the mailbox is listed")
}

fn json_of(message: &StoredMessage) -> &str {
    match &message.payload {
        Some(stored_message::Payload::Json(json)) => json,
        other => panic!("no JSON: {other:?}"),
    }
}

async fn texts(backend: &Backend, request: ListMessagesRequest) -> Vec<String> {
    list(backend, request).await.messages.iter().map(|message| json_of(message).to_owned()).collect()
}

async fn unread(backend: &Backend, room: &str, user: &str) -> u64 {
    let request = CountUnreadRequest { room: room.into(), user_id: user.into() };
    answer(backend.mailbox().count_unread(request)).await.expect("it is counted").count
}

async fn read(backend: &Backend, room: &str, user: &str, what: mark_read_request::What) -> u64 {
    let request = MarkReadRequest { room: room.into(), user_id: user.into(), what: Some(what) };
    answer(backend.mailbox().mark_read(request)).await.expect("it is noted").count
}

async fn delete(backend: &Backend, room: &str, what: delete_messages_request::What) -> u64 {
    let request = DeleteMessagesRequest { room: room.into(), what: Some(what) };
    answer(backend.mailbox().delete_messages(request)).await.expect("they are deleted").deleted
}

fn up_to(position: &str) -> mark_read_request::What {
    mark_read_request::What::UpTo(position.into())
}

fn message(id: &str) -> mark_read_request::What {
    mark_read_request::What::MessageId(id.into())
}

/// A connected device of a user with the role of an admin.
async fn admin(server: &TestServer, user: &str) -> Device {
    let token = token_with(&json!({ "sub": user, "role": "admin" }));
    server.device(user).token(token).connect().await.expect("the device connects")
}

/// What a device has heard up to now.
async fn heard(backend: &Backend, device: &mut Device, user: &str) -> Vec<(String, String)> {
    const FENCE: &str = "fence";
    let fence = format!("\"{}\"", ConnectionId::random());
    backend.emit_to_user(user, FENCE, &fence).await;
    let mut heard = Vec::new();
    loop {
        let event = device.next_event().await;
        match &*event.name {
            FENCE if event.json() == fence => return heard,
            FENCE => {}
            name => heard.push((name.to_owned(), event.json().to_owned())),
        }
    }
}

fn told(count: u64) -> (String, String) {
    ("bugle:unread".into(), format!(r#"{{"room":"{ADMINS}","count":{count}}}"#))
}

#[tokio::test]
async fn a_mailbox_is_listed_in_pages_to_the_end_while_messages_come_in() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for n in 1..=4 {
        backend.store_in("user:42", "note", &n.to_string()).await;
    }
    let mut request = ListMessagesRequest { page_size: 2, ..listing("user:42") };
    let mut all = Vec::new();
    for n in 5.. {
        let page = list(&backend, request.clone()).await;
        all.extend(page.messages);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        backend.store_in("user:42", "note", &n.to_string()).await;
    }
    assert_eq!(all.iter().map(json_of).collect::<Vec<_>>(), ["1", "2", "3", "4", "5", "6"]);
    let seconds = server.clock.now().as_second();
    for message in &all {
        assert_eq!((message.event.as_str(), message.read), ("note", Some(false)));
        let stored_at = message.stored_at.expect("it was stored at some time").seconds;
        assert!((seconds - 60..=seconds).contains(&stored_at), "{stored_at}");
    }
    let since = all[3].position.clone();
    assert_eq!(texts(&backend, ListMessagesRequest { since, ..listing("user:42") }).await, ["5", "6"]);
    assert!(list(&backend, listing("user:43")).await.messages.is_empty());
}

#[tokio::test]
async fn payloads_are_listed_as_they_were_sent_and_large_ones_in_small_pages() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let payloads = [
        Some(emit_to_room_request::Payload::Json(r#"{"b":1.10,"a":"é"}"#.into())),
        Some(emit_to_room_request::Payload::Binary(vec![0, 255].into())),
        None,
        Some(emit_to_room_request::Payload::Binary(vec![1; 1 << 20].into())),
        Some(emit_to_room_request::Payload::Binary(vec![2; 1 << 20].into())),
    ];
    let mut receipts = Vec::new();
    for payload in payloads.clone() {
        let options = Some(EmitOptions { store: true, ..EmitOptions::default() });
        let request = EmitToRoomRequest { payload, options, ..to_room("a", "e", "") };
        receipts.push(answer(backend.notify().emit_to_room(request)).await.unwrap().receipt.unwrap());
    }
    let page = list(&backend, listing("a")).await;
    assert_eq!(page.messages.len(), 4, "one more would be too much");
    let rest = list(&backend, ListMessagesRequest { page_token: page.next_page_token, ..listing("a") }).await;
    assert_eq!((rest.messages.len(), &*rest.next_page_token), (1, ""));
    for ((listed, receipt), sent) in page.messages.iter().chain(&rest.messages).zip(&receipts).zip(payloads) {
        let payload = listed.payload.clone().map(|payload| match payload {
            stored_message::Payload::Json(json) => emit_to_room_request::Payload::Json(json),
            stored_message::Payload::Binary(bytes) => emit_to_room_request::Payload::Binary(bytes),
        });
        assert!(payload == sent, "{}", listed.position);
        assert_eq!((&listed.id, &listed.position), (&receipt.message_id, &receipt.position));
        assert_eq!(listed.read, None, "nobody reads");
    }
}

#[tokio::test]
async fn each_user_has_a_read_state_of_their_own_in_a_room_of_many() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut receipts = Vec::new();
    for n in 1..=4 {
        receipts.push(backend.store_in(ADMINS, "note", &n.to_string()).await);
    }
    assert_eq!((unread(&backend, ADMINS, "1").await, unread(&backend, ADMINS, "2").await), (4, 4));
    assert_eq!(read(&backend, ADMINS, "1", message(&receipts[2].message_id)).await, 3);
    assert_eq!(read(&backend, ADMINS, "1", message(&receipts[2].message_id)).await, 3, "again");
    assert_eq!(read(&backend, ADMINS, "1", up_to(&receipts[0].position)).await, 2);
    let of = |user: &str| ListMessagesRequest { user_id: user.into(), ..listing(ADMINS) };
    let states = list(&backend, of("1")).await.messages.iter().map(|message| message.read).collect::<Vec<_>>();
    assert_eq!(states, [Some(true), Some(false), Some(true), Some(false)]);
    assert_eq!(texts(&backend, ListMessagesRequest { unread_only: true, ..of("1") }).await, ["2", "4"]);
    assert_eq!(texts(&backend, ListMessagesRequest { unread_only: true, ..of("2") }).await, ["1", "2", "3", "4"]);

    let (epoch, _) = receipts[0].position.rsplit_once('.').unwrap();
    assert_eq!(read(&backend, ADMINS, "1", up_to(&format!("{epoch}.{}", i64::MAX))).await, 0);
    backend.store_in(ADMINS, "note", "5").await;
    assert_eq!(unread(&backend, ADMINS, "1").await, 1, "what comes later is unread");
    assert_eq!(unread(&backend, ADMINS, "2").await, 5);
}

#[tokio::test]
async fn what_is_not_for_a_user_is_neither_listed_nor_counted_nor_readable() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let odd = r#"a","7"#;
    let mut request = to_room(ADMINS, "note", "1");
    let except_user_ids = vec!["1".into(), odd.into()];
    request.options = Some(EmitOptions { store: true, except_user_ids, ..EmitOptions::default() });
    let hidden = answer(backend.notify().emit_to_room(request)).await.unwrap().receipt.unwrap();
    backend.store_in(ADMINS, "note", "2").await;
    for (user, expected) in [("1", &["2"][..]), (odd, &["2"]), ("7", &["1", "2"]), ("11", &["1", "2"])] {
        let request = ListMessagesRequest { user_id: user.into(), ..listing(ADMINS) };
        assert_eq!(texts(&backend, request).await, expected, "{user}");
        assert_eq!(unread(&backend, ADMINS, user).await, expected.len() as u64, "{user}");
    }
    assert_eq!(texts(&backend, listing(ADMINS)).await, ["1", "2"]);
    let request = MarkReadRequest { room: ADMINS.into(), user_id: "1".into(), what: Some(message(&hidden.message_id)) };
    refused(Code::NotFound, backend.mailbox().mark_read(request)).await;
}

#[tokio::test]
async fn what_has_expired_is_neither_listed_nor_counted_nor_deleted() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut request = to_room("user:42", "note", "1");
    let ttl = Some(HOUR.try_into().unwrap());
    request.options = Some(EmitOptions { store: true, ttl, ..EmitOptions::default() });
    let short = answer(backend.notify().emit_to_room(request)).await.unwrap().receipt.unwrap();
    backend.store_in("user:42", "note", "2").await;
    assert_eq!(unread(&backend, "user:42", "").await, 2);
    server.clock.advance(2 * HOUR);
    assert_eq!(unread(&backend, "user:42", "42").await, 1);
    assert_eq!(texts(&backend, listing("user:42")).await, ["2"]);
    let request =
        MarkReadRequest { room: "user:42".into(), user_id: String::new(), what: Some(message(&short.message_id)) };
    refused(Code::NotFound, backend.mailbox().mark_read(request)).await;
    assert_eq!(delete(&backend, "user:42", delete_messages_request::What::All(true)).await, 1);
}

#[tokio::test]
async fn the_users_devices_in_the_room_are_told_of_what_was_read_and_nobody_else() {
    let server = TestServer::start_with(|config| {
        let events = EventPattern::new("*").into_iter().collect();
        let auth_timeout = Duration::from_secs(5);
        config.websocket.push(EndpointConfig { path: "/all".into(), events, auth_timeout });
    })
    .await;
    let backend = server.backend().await;
    let first = backend.store_in(ADMINS, "note", "1").await;
    backend.store_in(ADMINS, "note", "2").await;
    let mut devices = [admin(&server, "1").await, admin(&server, "1").await];
    let mut colleague = admin(&server, "2").await;
    let mut elsewhere = server.connect("1").await;
    let mut plain = PlainDevice::builder(server.clients(), "/all").open().await.expect("the WebSocket opens");
    plain.send_text(auth_message(&token_with(&json!({ "sub": "1", "role": "admin" })))).await;
    deadline("the plain WebSocket", async { while backend.get_user("1").await.connections.len() < 4 {} }).await;

    assert_eq!(read(&backend, ADMINS, "1", message(&first.message_id)).await, 1);
    assert_eq!(read(&backend, ADMINS, "1", message(&first.message_id)).await, 1);
    assert_eq!(read(&backend, ADMINS, "1", up_to(&first.position)).await, 1);
    backend.store_in(ADMINS, "note", "3").await;
    let note = ("note".to_owned(), "3".to_owned());
    for device in &mut devices {
        assert_eq!(heard(&backend, device, "1").await, [told(1), note.clone()], "once");
    }
    assert_eq!(heard(&backend, &mut colleague, "2").await, [note]);
    assert_eq!(heard(&backend, &mut elsewhere, "1").await, []);
    let PlainFrame::Text(text) = plain.receive().await else { panic!("no text") };
    assert_eq!(text, "3", "and no count before it");
}

#[tokio::test]
async fn messages_are_deleted_for_all_and_those_are_told_who_had_not_read_them() {
    use delete_messages_request::{Ids, What};

    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut receipts = Vec::new();
    for n in 1..=6 {
        receipts.push(backend.store_in(ADMINS, "note", &n.to_string()).await);
    }
    read(&backend, ADMINS, "1", up_to(&receipts[3].position)).await;
    let (mut reader, mut other) = (admin(&server, "1").await, admin(&server, "2").await);
    let ids = |indices: &[usize]| {
        let ids = indices.iter().map(|index| receipts[*index].message_id.clone()).collect();
        What::MessageIds(Ids { ids })
    };
    assert_eq!(delete(&backend, ADMINS, ids(&[0, 1])).await, 2);
    assert_eq!(delete(&backend, ADMINS, ids(&[0])).await, 0, "it is not there");
    assert_eq!(heard(&backend, &mut reader, "1").await, [], "these were read");
    assert_eq!(heard(&backend, &mut other, "2").await, [told(4)]);
    assert_eq!(delete(&backend, ADMINS, What::UpTo(receipts[4].position.clone())).await, 3);
    assert_eq!(texts(&backend, listing(ADMINS)).await, ["6"]);
    assert_eq!(heard(&backend, &mut reader, "1").await, [told(1)]);
    assert_eq!(heard(&backend, &mut other, "2").await, [told(1)]);
    assert_eq!(delete(&backend, ADMINS, What::All(true)).await, 1);
    assert_eq!(heard(&backend, &mut other, "2").await, [told(0)]);
    backend.store_in(ADMINS, "note", "7").await;
    assert_eq!(unread(&backend, ADMINS, "1").await, 1);
    assert_eq!(texts(&backend, listing(ADMINS)).await, ["7"]);
}
