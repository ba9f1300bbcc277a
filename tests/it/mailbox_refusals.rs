//! What backends may not ask of mailboxes.

use bugle::proto::v1::{
    CountUnreadRequest, DeleteMessagesRequest, ListMessagesRequest, MarkReadRequest,
    delete_messages_request::{Ids, What as Deleted},
    mark_read_request::What as Read,
};
use secrecy::SecretString;
use tonic::Code;

use crate::harness::{Backend, TestServer, api_key, named, refused};

fn listing(room: &str) -> ListMessagesRequest {
    ListMessagesRequest { room: room.into(), ..ListMessagesRequest::default() }
}

fn counting(room: &str, user: &str) -> CountUnreadRequest {
    CountUnreadRequest { room: room.into(), user_id: user.into() }
}

fn reading(room: &str, user: &str, what: Option<Read>) -> MarkReadRequest {
    MarkReadRequest { room: room.into(), user_id: user.into(), what }
}

fn deleting(room: &str, what: Option<Deleted>) -> DeleteMessagesRequest {
    DeleteMessagesRequest { room: room.into(), what }
}

/// The refusals of all calls with requests that are good.
async fn refusals(backend: &Backend, code: Code) -> Vec<String> {
    let reads = Some(Read::UpTo("epoch.1".into()));
    [
        refused(code, backend.mailbox().list_messages(listing("user:42"))).await,
        refused(code, backend.mailbox().count_unread(counting("user:42", ""))).await,
        refused(code, backend.mailbox().mark_read(reading("user:42", "", reads))).await,
        refused(code, backend.mailbox().delete_messages(deleting("user:42", Some(Deleted::All(true))))).await,
    ]
    .iter()
    .map(|status| status.message().to_owned())
    .collect()
}

#[tokio::test]
async fn bad_fields_are_named() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let receipt = backend.store_in("user:42", "note", "1").await;
    let foreign = "0123456789abcdef.1";
    assert_ne!(receipt.position, foreign);
    let lists = [
        (listing(""), "room"),
        (ListMessagesRequest { user_id: "43".into(), ..listing("user:42") }, "user_id"),
        (ListMessagesRequest { unread_only: true, ..listing("role:admin") }, "unread_only"),
        (ListMessagesRequest { since: "1".into(), ..listing("user:42") }, "since"),
        (ListMessagesRequest { since: foreign.into(), ..listing("user:42") }, "since"),
        (ListMessagesRequest { page_token: "x".into(), ..listing("user:42") }, "page_token"),
        (ListMessagesRequest { page_token: foreign.into(), ..listing("user:42") }, "page_token"),
        (ListMessagesRequest { page_size: -1, ..listing("user:42") }, "page_size"),
    ];
    for (request, field) in lists {
        let status = refused(Code::InvalidArgument, backend.mailbox().list_messages(request)).await;
        assert_eq!(named(&status), [field], "{}", status.message());
    }
    for (request, field) in
        [(counting("role:admin", ""), "user_id"), (counting("user:42", "4"), "user_id"), (counting("", "1"), "room")]
    {
        let status = refused(Code::InvalidArgument, backend.mailbox().count_unread(request)).await;
        assert_eq!(named(&status), [field]);
    }
    let reads = [
        (reading("user:42", "", None), "what"),
        (reading("role:admin", "", Some(Read::UpTo(receipt.position.clone()))), "user_id"),
        (reading("user:42", "", Some(Read::UpTo(foreign.into()))), "up_to"),
        (reading("user:42", "", Some(Read::UpTo(String::new()))), "up_to"),
        (reading("user:42", "", Some(Read::MessageId("7".into()))), "message_id"),
    ];
    for (request, field) in reads {
        let status = refused(Code::InvalidArgument, backend.mailbox().mark_read(request)).await;
        assert_eq!(named(&status), [field]);
    }
    let ids = |ids: Vec<String>| Some(Deleted::MessageIds(Ids { ids }));
    let deletions = [
        (deleting("user:42", None), "what"),
        (deleting("user:42", Some(Deleted::All(false))), "all"),
        (deleting("user:42", Some(Deleted::UpTo(foreign.into()))), "up_to"),
        (deleting("user:42", ids(Vec::new())), "message_ids.ids"),
        (deleting("user:42", ids(vec![receipt.message_id.clone(), "7".into()])), "message_ids.ids[1]"),
        (deleting("user:42", ids(vec![receipt.message_id.clone(); 1_001])), "message_ids.ids"),
    ];
    for (request, field) in deletions {
        let status = refused(Code::InvalidArgument, backend.mailbox().delete_messages(request)).await;
        assert_eq!(named(&status), [field]);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let elsewhere = backend.store_in("user:43", "note", "1").await.message_id;
    let request = reading("user:42", "", Some(Read::MessageId(elsewhere)));
    refused(Code::NotFound, backend.mailbox().mark_read(request)).await;
}

#[tokio::test]
async fn mailboxes_want_the_scope() {
    const KEY: &str = "another-api-key-of-thirty-two-bytes-or-more";
    let server = TestServer::start_with(|config| {
        config.grpc.api_keys.push(api_key("other", KEY, &["emit", "presence", "rooms", "disconnect"]));
    })
    .await;
    let backend = Backend::connect(server.grpc(), KEY).await;
    for message in refusals(&backend, Code::PermissionDenied).await {
        assert!(message.contains("`mailbox`"), "{message}");
    }
}

#[tokio::test]
async fn without_a_store_the_key_that_would_give_one_is_named() {
    let server = TestServer::start_with(|config| config.store.url = SecretString::from("")).await;
    for message in refusals(&server.backend().await, Code::FailedPrecondition).await {
        assert!(message.contains("store.url"), "{message}");
    }
}

#[tokio::test]
async fn a_store_out_of_reach_is_told_with_whether_to_ask_again() {
    let url = "postgres://nobody@127.0.0.1:1/none";
    let server = TestServer::start_with(|config| config.store.url = SecretString::from(url)).await;
    for message in refusals(&server.backend().await, Code::Unavailable).await {
        assert!(message.contains("safe to ask again"), "{message}");
    }
}
