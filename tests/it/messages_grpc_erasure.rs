//! What is stored of a user is deleted.

use std::time::Duration;

use bugle::proto::v1::{EraseUserRequest, EraseUserResponse};
use futures_util::future::join_all;
use serde_json::Value;
use tonic::Request;

use crate::harness::{Backend, TestServer, answer, eventually};
use crate::messages_grpc::{
    UNREAD, allow, block, conversations, enabled, list, mailbox, message, of, send, sent, with,
};

async fn erase(backend: &Backend, user: &str) -> EraseUserResponse {
    answer(backend.messages().erase_user(EraseUserRequest { user_id: user.into() })).await.expect("it is erased")
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
