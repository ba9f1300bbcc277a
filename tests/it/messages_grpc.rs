//! Direct messages as backends send, read and change them.

use std::time::Duration;

use bugle::config::Config;
use bugle::proto::v1::{
    AllowConversationRequest, BlockUserRequest, Conversation, DeleteMessageRequest, DirectMessage,
    ListConversationsRequest, ListMessagesRequest, MessagesListMessagesRequest, MessagesMarkReadRequest,
    SendMessageRequest, SendMessageResponse, UnblockUserRequest,
    messages_list_messages_request::What as Listed,
    messages_mark_read_request::{Ids, What as Read},
};
use serde_json::json;
use tonic::Code;

use crate::harness::{Backend, TestServer, answer, named, refused};

pub(crate) const RECEIVED: &str = "message:received";
pub(crate) const UNREAD: &str = "bugle:unread";
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn enabled(config: &mut Config) {
    config.messages.enabled = true;
}

pub(crate) async fn start() -> TestServer {
    TestServer::start_with(enabled).await
}

pub(crate) fn message(sender: &str, receiver: &str, content: &str) -> SendMessageRequest {
    SendMessageRequest {
        sender_id: sender.into(),
        receiver_id: receiver.into(),
        content: content.into(),
        ..SendMessageRequest::default()
    }
}

pub(crate) async fn send(backend: &Backend, request: SendMessageRequest) -> SendMessageResponse {
    answer(backend.messages().send_message(request)).await.expect("it is sent")
}

pub(crate) async fn sent(backend: &Backend, sender: &str, receiver: &str, content: &str) -> DirectMessage {
    send(backend, message(sender, receiver, content)).await.message.expect("there is a message")
}

pub(crate) fn of(user: &str, what: Listed) -> MessagesListMessagesRequest {
    MessagesListMessagesRequest { user_id: user.into(), what: Some(what), ..MessagesListMessagesRequest::default() }
}

pub(crate) fn with(peer: &str) -> Listed {
    Listed::PeerId(peer.into())
}

pub(crate) async fn list(backend: &Backend, request: MessagesListMessagesRequest) -> Vec<DirectMessage> {
    answer(backend.messages().list_messages(request)).await.expect("they are listed").messages
}

pub(crate) async fn contents(backend: &Backend, request: MessagesListMessagesRequest) -> Vec<String> {
    list(backend, request).await.into_iter().map(|message| message.content).collect()
}

pub(crate) async fn conversations(backend: &Backend, user: &str) -> Vec<Conversation> {
    let request = ListConversationsRequest { user_id: user.into(), ..ListConversationsRequest::default() };
    answer(backend.messages().list_conversations(request)).await.expect("they are listed").conversations
}

pub(crate) fn ids(messages: &[&DirectMessage]) -> Read {
    Read::MessageIds(Ids { ids: messages.iter().map(|message| message.id.clone()).collect() })
}

pub(crate) async fn read(backend: &Backend, user: &str, what: impl Into<Option<Read>>) -> tonic::Result<u64> {
    let request = MessagesMarkReadRequest { user_id: user.into(), what: what.into() };
    answer(backend.messages().mark_read(request)).await.map(|response| response.count)
}

pub(crate) fn deletion(user: &str, id: &str) -> DeleteMessageRequest {
    DeleteMessageRequest { user_id: user.into(), message_id: id.into() }
}

pub(crate) async fn allow(backend: &Backend, user: &str, peer: &str, ttl: Option<Duration>) {
    let ttl = ttl.map(|ttl| ttl.try_into().expect("a short time"));
    let request = AllowConversationRequest { user_id: user.into(), peer_id: peer.into(), ttl };
    answer(backend.messages().allow_conversation(request)).await.expect("it is allowed");
}

pub(crate) async fn block(backend: &Backend, user: &str, peer: &str) {
    let request = BlockUserRequest { user_id: user.into(), peer_id: peer.into() };
    answer(backend.messages().block_user(request)).await.expect("the user is blocked");
}

/// The messages of a user's mailbox.
pub(crate) async fn mailbox(backend: &Backend, user: &str) -> usize {
    let request = ListMessagesRequest { room: format!("user:{user}"), ..ListMessagesRequest::default() };
    answer(backend.mailbox().list_messages(request)).await.expect("it is listed").messages.len()
}

pub(crate) fn millis(message: &DirectMessage) -> i64 {
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
