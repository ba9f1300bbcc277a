//! Direct messages as backends send, read and change them.

use std::time::Duration;

use bugle::config::Config;
use bugle::messages::Policy;
use bugle::proto::v1::{
    AllowConversationRequest, BlockUserRequest, Conversation, DeleteMessageRequest, DirectMessage, EraseUserRequest,
    EraseUserResponse, ForbidConversationRequest, ListConversationsRequest, ListMessagesRequest,
    MessagesListMessagesRequest, MessagesMarkReadRequest, SendMessageRequest, SendMessageResponse, UnblockUserRequest,
    messages_list_messages_request::What as Listed,
    messages_mark_read_request::{Ids, What as Read},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::harness::{
    Backend, Device, TestServer, answer, api_key, eventually, named, refused, token_with, violations,
};

const RECEIVED: &str = "message:received";
const UNREAD: &str = "bugle:unread";
const HOUR: Duration = Duration::from_hours(1);

fn enabled(config: &mut Config) {
    config.messages.enabled = true;
}

async fn start() -> TestServer {
    TestServer::start_with(enabled).await
}

fn message(sender: &str, receiver: &str, content: &str) -> SendMessageRequest {
    SendMessageRequest {
        sender_id: sender.into(),
        receiver_id: receiver.into(),
        content: content.into(),
        ..SendMessageRequest::default()
    }
}

async fn send(backend: &Backend, request: SendMessageRequest) -> SendMessageResponse {
    answer(backend.messages().send_message(request)).await.expect("it is sent")
}

async fn sent(backend: &Backend, sender: &str, receiver: &str, content: &str) -> DirectMessage {
    send(backend, message(sender, receiver, content)).await.message.expect("there is a message")
}

fn of(user: &str, what: Listed) -> MessagesListMessagesRequest {
    MessagesListMessagesRequest { user_id: user.into(), what: Some(what), ..MessagesListMessagesRequest::default() }
}

fn with(peer: &str) -> Listed {
    Listed::PeerId(peer.into())
}

async fn list(backend: &Backend, request: MessagesListMessagesRequest) -> Vec<DirectMessage> {
    answer(backend.messages().list_messages(request)).await.expect("they are listed").messages
}

async fn contents(backend: &Backend, request: MessagesListMessagesRequest) -> Vec<String> {
    list(backend, request).await.into_iter().map(|message| message.content).collect()
}

async fn conversations(backend: &Backend, user: &str) -> Vec<Conversation> {
    let request = ListConversationsRequest { user_id: user.into(), ..ListConversationsRequest::default() };
    answer(backend.messages().list_conversations(request)).await.expect("they are listed").conversations
}

fn ids(messages: &[&DirectMessage]) -> Read {
    Read::MessageIds(Ids { ids: messages.iter().map(|message| message.id.clone()).collect() })
}

async fn read(backend: &Backend, user: &str, what: impl Into<Option<Read>>) -> tonic::Result<u64> {
    let request = MessagesMarkReadRequest { user_id: user.into(), what: what.into() };
    answer(backend.messages().mark_read(request)).await.map(|response| response.count)
}

fn deletion(user: &str, id: &str) -> DeleteMessageRequest {
    DeleteMessageRequest { user_id: user.into(), message_id: id.into() }
}

async fn allow(backend: &Backend, user: &str, peer: &str, ttl: Option<Duration>) {
    let ttl = ttl.map(|ttl| ttl.try_into().expect("a short time"));
    let request = AllowConversationRequest { user_id: user.into(), peer_id: peer.into(), ttl };
    answer(backend.messages().allow_conversation(request)).await.expect("it is allowed");
}

async fn block(backend: &Backend, user: &str, peer: &str) {
    let request = BlockUserRequest { user_id: user.into(), peer_id: peer.into() };
    answer(backend.messages().block_user(request)).await.expect("the user is blocked");
}

async fn erase(backend: &Backend, user: &str) -> EraseUserResponse {
    answer(backend.messages().erase_user(EraseUserRequest { user_id: user.into() })).await.expect("it is erased")
}

/// The messages of a user's mailbox.
async fn mailbox(backend: &Backend, user: &str) -> usize {
    let request = ListMessagesRequest { room: format!("user:{user}"), ..ListMessagesRequest::default() };
    answer(backend.mailbox().list_messages(request)).await.expect("it is listed").messages.len()
}

/// Sends as a device does, and gives the code of the refusal, if it is refused.
async fn device_sends(device: &mut Device, receiver: &str) -> Option<String> {
    let ack = device.emit_with_ack("message:send", &[json!({ "receiverId": receiver, "message": "hi" })]).await;
    ack[0]["error"]["code"].as_str().map(ToOwned::to_owned)
}

fn millis(message: &DirectMessage) -> i64 {
    let at = message.created_at.expect("it was stored at some time");
    assert_eq!(at.nanos % 1_000_000, 0);
    at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000
}

#[tokio::test]
async fn a_message_reaches_the_devices_of_both_users_and_is_listed_for_both() {
    let server = start().await;
    let backend = server.backend().await;
    let (mut ann, mut bob) = (server.connect("ann").await, server.connect("bob").await);
    let topic = SendMessageRequest {
        transaction_id: "t1".into(),
        listing_id: "l1".into(),
        ..message("ann", "bob", "Is it still there?\n\tAnn 🎟")
    };
    let message = send(&backend, topic.clone()).await.message.expect("there is a message");
    assert_eq!((&*message.sender_id, &*message.receiver_id, &message.content), ("ann", "bob", &topic.content));
    assert_eq!((&*message.transaction_id, &*message.listing_id, message.is_read), ("t1", "l1", false));
    assert_eq!(message.created_at, message.updated_at);
    for device in [&mut ann, &mut bob] {
        let body = device.expect_event(RECEIVED).await.value();
        let expected = json!({
            "id": message.id, "senderId": "ann", "receiverId": "bob", "content": topic.content, "transactionId": "t1",
            "listingId": "l1", "isRead": false, "createdAt": body["createdAt"], "updatedAt": body["createdAt"],
        });
        assert_eq!(body, expected);
    }
    let other = sent(&backend, "bob", "ann", "Yes").await;
    assert!(millis(&other) > millis(&message), "a conversation has one order");
    assert_eq!((&*other.transaction_id, &*other.listing_id), ("", ""));

    for (user, peer, unread) in [("ann", "bob", 1), ("bob", "ann", 1)] {
        let conversation =
            Conversation { peer_id: peer.into(), last_message: Some(other.clone()), unread_count: unread };
        assert_eq!(conversations(&backend, user).await, [conversation]);
        assert_eq!(list(&backend, of(user, with(peer))).await, [other.clone(), message.clone()]);
        for what in [Listed::TransactionId("t1".into()), Listed::ListingId("l1".into())] {
            assert_eq!(list(&backend, of(user, what)).await, std::slice::from_ref(&message));
        }
    }
    assert!(list(&backend, of("cid", Listed::TransactionId("t1".into()))).await.is_empty(), "it is not cid's");
    assert!(conversations(&backend, "cid").await.is_empty());
}

#[tokio::test]
async fn a_repeated_client_message_id_sends_nothing_for_a_day() {
    let server = start().await;
    let backend = server.backend().await;
    let mut bob = server.connect("bob").await;
    let request = SendMessageRequest { client_message_id: "c1".into(), ..message("ann", "bob", "once") };
    let first = send(&backend, request.clone()).await;
    assert!(!first.duplicate);
    server.clock.advance(23 * HOUR);
    let again = send(&backend, request.clone()).await;
    assert_eq!((&again.message, again.duplicate), (&first.message, true));
    for other in [
        SendMessageRequest { content: "twice".into(), ..request.clone() },
        SendMessageRequest { transaction_id: "t1".into(), ..request.clone() },
    ] {
        let status = refused(Code::InvalidArgument, backend.messages().send_message(other)).await;
        assert_eq!(named(&status), ["client_message_id"]);
    }
    block(&backend, "bob", "ann").await;
    assert_eq!(send(&backend, request.clone()).await, again, "it was sent before the block");
    let unblock = UnblockUserRequest { user_id: "bob".into(), peer_id: "ann".into() };
    answer(backend.messages().unblock_user(unblock)).await.expect("it is unblocked");
    let elsewhere = SendMessageRequest { receiver_id: "cid".into(), ..request.clone() };
    assert!(!send(&backend, elsewhere).await.duplicate, "another conversation");
    bob.expect_event(RECEIVED).await;
    sent(&backend, "ann", "bob", "next").await;
    assert_eq!(bob.expect_event(RECEIVED).await.value()["content"], "next", "one was sent");

    let id = first.message.expect("there is a message").id;
    answer(backend.messages().delete_message(deletion("ann", &id))).await.expect("it is deleted");
    refused(Code::NotFound, backend.messages().send_message(request)).await;
}

#[tokio::test]
async fn lists_are_read_in_pages_to_the_end() {
    let server = TestServer::start_with(|config| {
        enabled(config);
        config.messages.conversation_rate.burst = 1_000;
        config.messages.rate.burst = 1_000;
    })
    .await;
    let backend = server.backend().await;
    for n in 0..7 {
        // Two conversations may have a message each of one millisecond.
        server.clock.advance(Duration::from_secs(1));
        sent(&backend, "ann", "bob", &n.to_string()).await;
        server.clock.advance(Duration::from_secs(1));
        sent(&backend, &format!("peer-{n}"), "ann", "hello").await;
    }
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let request = MessagesListMessagesRequest { page_size: 3, before, ..of("bob", with("ann")) };
        let page = list(&backend, request).await;
        all.extend(page.iter().map(|message| message.content.clone()));
        if page.len() < 3 {
            break;
        }
        before = page[2].id.clone();
    }
    assert_eq!(all, ["6", "5", "4", "3", "2", "1", "0"]);

    let (mut peers, mut before) = (Vec::new(), String::new());
    loop {
        let request = ListConversationsRequest { user_id: "ann".into(), page_size: 3, before };
        let page = answer(backend.messages().list_conversations(request)).await.expect("a page").conversations;
        peers.extend(page.iter().map(|conversation| conversation.peer_id.clone()));
        if page.len() < 3 {
            break;
        }
        before = page[2].last_message.clone().expect("a conversation has a message").id;
    }
    assert_eq!(peers, ["peer-6", "bob", "peer-5", "peer-4", "peer-3", "peer-2", "peer-1", "peer-0"]);

    let past = MessagesListMessagesRequest { before: "2020-01-01T00:00:00Z".into(), ..of("bob", with("ann")) };
    assert!(list(&backend, past).await.is_empty());
    let theirs = list(&backend, of("ann", with("peer-0"))).await[0].id.clone();
    let foreign = MessagesListMessagesRequest { before: theirs, ..of("bob", with("ann")) };
    refused(Code::NotFound, backend.messages().list_messages(foreign)).await;
    for n in 0..60 {
        sent(&backend, "cid", "dan", &n.to_string()).await;
    }
    assert_eq!(list(&backend, of("cid", with("dan"))).await.len(), 50, "if no size is given");
    let large = MessagesListMessagesRequest { page_size: 1_000, ..of("cid", with("dan")) };
    assert_eq!(list(&backend, large).await.len(), 60);
}

#[tokio::test]
async fn what_was_read_is_counted_and_the_devices_of_both_users_are_told() {
    let server = start().await;
    let backend = server.backend().await;
    let mut messages = Vec::new();
    for n in 0..4 {
        messages.push(sent(&backend, "ann", "bob", &n.to_string()).await);
    }
    let answered = sent(&backend, "bob", "ann", "answer").await;
    let mut ann = server.connect("ann").await;
    ann.expect_event(RECEIVED).await;
    for _ in 0..4 {
        ann.expect_event(RECEIVED).await;
    }
    assert_eq!(read(&backend, "bob", ids(&[&messages[1], &answered])).await.expect("it is read"), 1);
    let told = ann.expect_event("message:read").await.value();
    assert_eq!((&told["messageIds"], &told["readerId"]), (&json!([messages[1].id]), &json!("bob")));
    assert!(told["readAt"].is_string());
    assert_eq!(read(&backend, "bob", ids(&[&messages[1]])).await.expect("it was read before"), 0);
    assert_eq!(conversations(&backend, "bob").await[0].unread_count, 3);
    assert_eq!(read(&backend, "bob", Read::PeerId("ann".into())).await.expect("all are read"), 3);
    assert_eq!(ann.expect_event("message:read").await.value()["messageIds"].as_array().map(Vec::len), Some(3));
    assert_eq!(conversations(&backend, "bob").await[0].unread_count, 0);
    assert_eq!(conversations(&backend, "ann").await[0].unread_count, 1, "the answer");
    assert!(list(&backend, of("ann", with("bob"))).await.iter().skip(1).all(|message| message.is_read));

    let code = |result: tonic::Result<u64>| result.map_err(|status| status.code());
    assert_eq!(code(read(&backend, "ann", ids(&[&messages[0]])).await), Err(Code::PermissionDenied));
    assert_eq!(code(read(&backend, "cid", ids(&[&messages[0]])).await), Err(Code::NotFound));
    assert_eq!(code(read(&backend, "bob", Read::PeerId("cid".into())).await), Ok(0));
}

#[tokio::test]
async fn only_the_sender_of_a_message_has_it_deleted_for_both() {
    let server = start().await;
    let backend = server.backend().await;
    let mut bob = server.connect("bob").await;
    let message = sent(&backend, "ann", "bob", "oh").await;
    bob.expect_event(RECEIVED).await;
    let refusals = [("bob", Code::PermissionDenied), ("cid", Code::NotFound)];
    for (user, code) in refusals {
        refused(code, backend.messages().delete_message(deletion(user, &message.id))).await;
    }
    answer(backend.messages().delete_message(deletion("ann", &message.id))).await.expect("it is deleted");
    assert_eq!(bob.expect_event("message:deleted").await.value(), json!({ "messageId": message.id }));
    assert_eq!(bob.expect_event(UNREAD).await.value(), json!({ "room": "user:bob", "count": 0 }));
    assert!(conversations(&backend, "bob").await.is_empty() && conversations(&backend, "ann").await.is_empty());
    assert_eq!((mailbox(&backend, "ann").await, mailbox(&backend, "bob").await), (0, 0));
    refused(Code::NotFound, backend.messages().delete_message(deletion("ann", &message.id))).await;
}

#[tokio::test]
async fn a_key_acts_for_the_users_whom_its_pattern_matches_and_for_no_others() {
    const SHOP: &str = "the-key-of-the-shops-that-is-long-enough";
    let server = TestServer::start_with(|config| {
        enabled(config);
        config.grpc.api_keys.push(api_key("shops", SHOP, &["messages:shop-*", "mailbox"]));
    })
    .await;
    let shops = server.backend_with(SHOP).await;
    let message = sent(&shops, "shop-1", "ann", "It is sent").await;
    assert_eq!(list(&shops, of("shop-1", with("ann"))).await, std::slice::from_ref(&message));
    block(&shops, "shop-1", "bob").await;
    allow(&shops, "shop-1", "shop-2", None).await;

    let mut calls = shops.messages();
    let (user_id, peer_id) = ("ann".to_owned(), "shop-1".to_owned());
    let denied = Code::PermissionDenied;
    let statuses: Vec<Status> = vec![
        refused(denied, calls.send_message(self::message("ann", "shop-1", "Thanks"))).await,
        refused(
            denied,
            calls.list_conversations(ListConversationsRequest {
                user_id: user_id.clone(),
                ..ListConversationsRequest::default()
            }),
        )
        .await,
        refused(denied, calls.list_messages(of("ann", with("shop-1")))).await,
        refused(
            denied,
            calls.mark_read(MessagesMarkReadRequest { user_id: user_id.clone(), what: Some(ids(&[&message])) }),
        )
        .await,
        refused(denied, calls.delete_message(deletion("ann", &message.id))).await,
        refused(denied, calls.erase_user(EraseUserRequest { user_id: user_id.clone() })).await,
        refused(
            denied,
            calls.allow_conversation(AllowConversationRequest {
                user_id: peer_id.clone(),
                peer_id: user_id.clone(),
                ttl: None,
            }),
        )
        .await,
        refused(
            denied,
            calls.forbid_conversation(ForbidConversationRequest { user_id: peer_id.clone(), peer_id: user_id.clone() }),
        )
        .await,
        refused(denied, calls.block_user(BlockUserRequest { user_id: user_id.clone(), peer_id: peer_id.clone() }))
            .await,
        refused(denied, calls.unblock_user(UnblockUserRequest { user_id, peer_id })).await,
    ];
    let expected =
        "the API key `shops` lacks the scope `messages`, or one `messages:PATTERN` whose pattern matches the user";
    assert!(statuses.iter().all(|status| status.message() == expected), "{statuses:?}");
}

#[tokio::test]
async fn under_the_policy_granted_a_backend_or_the_token_allows_a_conversation() {
    let server = TestServer::start_with(|config| {
        enabled(config);
        config.messages.policy = Policy::Granted;
    })
    .await;
    let backend = server.backend().await;
    let mut ann = server.connect("ann").await;
    let claims = json!({ "sub": "bob", "conversations": ["shop-*", "ann"] });
    let mut bob = server.device("bob").token(token_with(&claims)).connect().await.expect("the device connects");
    let denied = Some("forbidden".to_owned());
    assert_eq!(device_sends(&mut ann, "cid").await, denied);
    assert_eq!(device_sends(&mut ann, "bob").await, denied, "bob's token says what bob may");
    assert_eq!(device_sends(&mut bob, "cid").await, denied);
    assert_eq!(device_sends(&mut bob, "shop-7").await, None);
    assert_eq!(device_sends(&mut bob, "ann").await, None);
    ann.expect_event(RECEIVED).await;

    sent(&backend, "ann", "cid", "by a backend").await;
    ann.expect_event(RECEIVED).await;
    assert_eq!(device_sends(&mut ann, "cid").await, denied, "that grants nothing");
    allow(&backend, "cid", "ann", None).await;
    assert_eq!(device_sends(&mut ann, "cid").await, None, "in both directions");
    server.clock.advance(25 * HOUR);
    assert_eq!(device_sends(&mut ann, "cid").await, denied, "24 hours if nothing is said");
    allow(&backend, "ann", "cid", Some(HOUR)).await;
    assert_eq!(device_sends(&mut ann, "cid").await, None);
    allow(&backend, "ann", "cid", Some(48 * HOUR)).await;
    server.clock.advance(47 * HOUR);
    assert_eq!(device_sends(&mut ann, "cid").await, None, "the last one counts");

    let forbid = ForbidConversationRequest { user_id: "cid".into(), peer_id: "ann".into() };
    answer(backend.messages().forbid_conversation(forbid)).await.expect("it is forbidden");
    assert_eq!(device_sends(&mut ann, "cid").await, denied);
    let forbid = ForbidConversationRequest { user_id: "ann".into(), peer_id: "bob".into() };
    answer(backend.messages().forbid_conversation(forbid)).await.expect("it is forbidden");
    assert_eq!(device_sends(&mut bob, "ann").await, None, "by the token's claim");
}

#[tokio::test]
async fn a_block_holds_for_backends_too_in_both_directions() {
    let server = start().await;
    let backend = server.backend().await;
    sent(&backend, "ann", "bob", "before").await;
    block(&backend, "bob", "ann").await;
    block(&backend, "bob", "ann").await;
    for (sender, receiver) in [("ann", "bob"), ("bob", "ann")] {
        let status =
            refused(Code::PermissionDenied, backend.messages().send_message(message(sender, receiver, "x"))).await;
        assert!(!status.message().contains("API key"), "{}", status.message());
    }
    allow(&backend, "ann", "bob", None).await;
    refused(Code::PermissionDenied, backend.messages().send_message(message("ann", "bob", "x"))).await;
    assert_eq!(contents(&backend, of("ann", with("bob"))).await, ["before"]);
    let unblock = |user: &str, peer: &str| UnblockUserRequest { user_id: user.into(), peer_id: peer.into() };
    answer(backend.messages().unblock_user(unblock("ann", "bob"))).await.expect("ann has blocked nobody");
    refused(Code::PermissionDenied, backend.messages().send_message(message("ann", "bob", "x"))).await;
    answer(backend.messages().unblock_user(unblock("bob", "ann"))).await.expect("it is unblocked");
    sent(&backend, "ann", "bob", "after").await;
}

#[tokio::test]
async fn each_wrong_field_is_named() {
    let server = start().await;
    let backend = server.backend().await;
    let mut calls = backend.messages();
    let invalid = Code::InvalidArgument;
    let long = "x".repeat(257);
    let request = SendMessageRequest {
        transaction_id: "a\nb".into(),
        listing_id: long.clone(),
        client_message_id: long.clone(),
        ..message("", "", "x")
    };
    let status = refused(invalid, calls.send_message(request)).await;
    assert_eq!(named(&status), ["sender_id", "receiver_id", "transaction_id", "listing_id", "client_message_id"]);
    let cases = [
        (message("ann", "ann", "x"), "receiver_id", "is the sender: write to another user"),
        (message("ann", "bob", ""), "content", "is empty: give 1 to 4000 characters"),
        (message("ann", "bob", &"é".repeat(4_001)), "content", "has more than 4000 characters"),
        (
            message("ann", "bob", "a\u{7}"),
            "content",
            "has a control character at position 1: only newlines and tabs are allowed",
        ),
    ];
    for (request, field, problem) in cases {
        let status = refused(invalid, calls.send_message(request)).await;
        assert_eq!(violations(&status), [(field.to_owned(), problem.to_owned())]);
    }
    sent(&backend, "ann", "bob", &"🎟".repeat(4_000)).await;

    let request =
        MessagesListMessagesRequest { page_size: -1, before: "x".into(), ..MessagesListMessagesRequest::default() };
    assert_eq!(
        named(&refused(invalid, calls.list_messages(request)).await),
        ["user_id", "what", "page_size", "before"]
    );
    let request = of("ann", Listed::ListingId(String::new()));
    assert_eq!(named(&refused(invalid, calls.list_messages(request)).await), ["listing_id"]);
    let request = ListConversationsRequest { page_size: -1, before: "1".into(), ..ListConversationsRequest::default() };
    assert_eq!(named(&refused(invalid, calls.list_conversations(request)).await), ["user_id", "page_size", "before"]);

    let what = |ids: Vec<String>| Some(Read::MessageIds(Ids { ids }));
    for (what, field) in [
        (None, "what"),
        (what(Vec::new()), "message_ids.ids"),
        (what(vec!["x".into()]), "message_ids.ids[0]"),
        (what(vec![Uuid::new_v4().to_string(); 501]), "message_ids.ids"),
        (Some(Read::PeerId(String::new())), "peer_id"),
    ] {
        let status = read(&backend, "ann", what).await.expect_err("it is refused");
        assert_eq!((status.code(), named(&status)), (invalid, vec![field.to_owned()]));
    }
    assert_eq!(named(&refused(invalid, calls.delete_message(deletion("", "x"))).await), ["user_id", "message_id"]);
    assert_eq!(named(&refused(invalid, calls.erase_user(EraseUserRequest::default())).await), ["user_id"]);
    let (user_id, peer_id) = ("ann".to_owned(), "ann".to_owned());
    let ttl = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let request = AllowConversationRequest { user_id: user_id.clone(), peer_id: "bob".into(), ttl };
    assert_eq!(named(&refused(invalid, calls.allow_conversation(request)).await), ["ttl"]);
    let request = AllowConversationRequest { user_id: user_id.clone(), peer_id: peer_id.clone(), ttl: None };
    assert_eq!(named(&refused(invalid, calls.allow_conversation(request)).await), ["peer_id"]);
    let request = BlockUserRequest { user_id, peer_id };
    assert_eq!(named(&refused(invalid, calls.block_user(request)).await), ["peer_id"]);
    let request = UnblockUserRequest::default();
    assert_eq!(named(&refused(invalid, calls.unblock_user(request)).await), ["user_id", "peer_id"]);
}

#[tokio::test]
async fn a_message_counts_towards_the_rates_of_its_sender_and_of_the_key() {
    let server = TestServer::start_each_with(|_, config| {
        enabled(config);
        config.limits.emits_per_api_key = bugle::limits::Rate { per_second: 1, burst: 3 };
    })
    .await;
    let backend = server.backend_of(0).await;
    let many = (0..20).map(|n| {
        let backend = backend.clone();
        async move { answer(backend.messages().send_message(message(&format!("u{n}"), "bob", "x"))).await }
    });
    let refusals: Vec<_> = join_all(many).await.into_iter().filter_map(Result::err).collect();
    assert!(!refusals.is_empty(), "20 in a moment are more than 3");
    for status in refusals {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().starts_with("limits.emits_per_api_key"), "{}", status.message());
    }
}

/// More than one transaction deletes.
const MANY: usize = 450;

/// A server at which two users have written many messages.
async fn with_many_messages() -> TestServer {
    let server = TestServer::start_with(|config| {
        enabled(config);
        (config.messages.rate.burst, config.messages.conversation_rate.burst) = (2_000, 2_000);
    })
    .await;
    let backend = server.backend().await;
    join_all((0..MANY).map(|n| {
        let (sender, receiver) = if n % 2 == 0 { ("ann", "bob") } else { ("bob", "ann") };
        let (backend, request) = (backend.clone(), message(sender, receiver, &n.to_string()));
        async move { send(&backend, request).await }
    }))
    .await;
    server
}

#[tokio::test]
async fn an_erasure_is_completed_though_its_caller_gives_up() {
    let server = with_many_messages().await;
    let backend = server.backend().await;
    let mut request = Request::new(EraseUserRequest { user_id: "ann".into() });
    request.set_timeout(Duration::from_millis(1));
    // It may be faster.
    let _ = answer(backend.messages().erase_user(request)).await;
    eventually("the end of the erasure", async || {
        conversations(&backend, "bob").await.is_empty() && mailbox(&backend, "bob").await == 0
    })
    .await;
}

#[tokio::test]
async fn an_erased_user_is_gone_on_both_sides_and_has_an_empty_mailbox() {
    let server = with_many_messages().await;
    let backend = server.backend().await;
    sent(&backend, "cid", "ann", "1").await;
    sent(&backend, "cid", "bob", "2").await;
    backend.store_in("user:ann", "note", "3").await;
    block(&backend, "cid", "ann").await;
    block(&backend, "ann", "dan").await;
    allow(&backend, "ann", "cid", None).await;
    let mut bob = server.device("bob").resume(Value::Null).connect().await.expect("the device connects");
    let mut count = u64::MAX;

    let erased = erase(&backend, "ann").await;
    assert_eq!((erased.deleted, erased.mailbox_deleted), (MANY as u64 + 1, 1));
    while count != 1 {
        let event = bob.next_event().await;
        if event.name == UNREAD {
            count = event.value()["count"].as_u64().expect("a number");
        }
    }
    assert!(conversations(&backend, "ann").await.is_empty());
    assert_eq!(mailbox(&backend, "ann").await, 0);
    let left: Vec<_> =
        conversations(&backend, "bob").await.into_iter().map(|one| (one.peer_id, one.unread_count)).collect();
    assert_eq!(left, [("cid".to_owned(), 1)]);
    assert!(list(&backend, of("bob", with("ann"))).await.is_empty());
    assert_eq!((mailbox(&backend, "bob").await, mailbox(&backend, "cid").await), (1, 1));

    sent(&backend, "ann", "cid", "cid's block is gone").await;
    sent(&backend, "dan", "ann", "ann's block is gone").await;
    let erased = erase(&backend, "ann").await;
    assert_eq!((erased.deleted, erased.mailbox_deleted), (2, 0));
    assert_eq!(erase(&backend, "nobody").await, EraseUserResponse::default());
}
