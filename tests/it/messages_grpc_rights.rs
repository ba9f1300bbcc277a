//! Who may do what with direct messages over gRPC, and what is refused.

use bugle::messages::Policy;
use bugle::proto::v1::{
    AllowConversationRequest, BlockUserRequest, EraseUserRequest, ForbidConversationRequest, ListConversationsRequest,
    MessagesListMessagesRequest, MessagesMarkReadRequest, SendMessageRequest, UnblockUserRequest,
    messages_list_messages_request::What as Listed,
    messages_mark_read_request::{Ids, What as Read},
};
use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::harness::{Device, TestServer, answer, api_key, named, refused, token_with, violations};
use crate::messages_grpc::{
    HOUR, RECEIVED, allow, block, contents, deletion, enabled, ids, list, message, of, read, sent, start, with,
};

/// Sends as a device does, and gives the code of the refusal, if it is refused.
async fn device_sends(device: &mut Device, receiver: &str) -> Option<String> {
    let ack = device.emit_with_ack("message:send", &[json!({ "receiverId": receiver, "message": "hi" })]).await;
    ack[0]["error"]["code"].as_str().map(ToOwned::to_owned)
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
