use std::collections::HashSet;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest, EmitToUsersRequest, Receipt};
use futures_util::future::join_all;
use tonic::{Code, Response};

use crate::harness::{
    Backend, TestServer, answer, api_key, counts, deadline, refused, to_everyone, to_room, to_user, to_users,
    violations,
};

const OTHER_KEY: &str = "another-api-key-of-thirty-two-bytes-or-more";

#[expect(clippy::unnecessary_wraps, reason = "requests have it so")]
fn once(key: &str) -> Option<EmitOptions> {
    Some(EmitOptions { idempotency_key: key.into(), ..EmitOptions::default() })
}

async fn emit(backend: &Backend, request: EmitToUserRequest) -> Receipt {
    let response = answer(backend.notify().emit_to_user(request)).await.expect("the emit is accepted");
    response.receipt.expect("an accepted emit has a receipt")
}

#[tokio::test]
async fn a_repetition_gets_the_first_receipt_and_sends_nothing() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let request = EmitToUserRequest { options: once("order-1"), ..to_user("42", "order", "1") };
    let first = emit(&backend, request.clone()).await;
    assert_eq!((counts(&first), first.duplicate), ((1, 1, 0), false));

    let mut late = server.connect("42").await;
    let second = emit(&backend, request.clone()).await;
    assert_eq!(second, Receipt { duplicate: true, ..first });
    let other = emit(&backend, EmitToUserRequest { options: once("order-2"), ..request }).await;
    assert!(!other.duplicate);
    backend.emit_to_user("42", "next", "1").await;

    for event in ["order", "order", "next"] {
        device.expect_event(event).await;
    }
    for event in ["order", "next"] {
        late.expect_event(event).await;
    }
}

#[tokio::test]
async fn another_request_under_a_known_key_is_refused() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let request = EmitToUserRequest { options: once("k"), ..to_user("42", "order", "1") };
    emit(&backend, request.clone()).await;
    let volatile = once("k").map(|options| EmitOptions { volatile: true, ..options });
    let except = once("k").map(|options| EmitOptions { except_user_ids: vec!["1".into()], ..options });
    for other in [
        EmitToUserRequest { options: once("k"), ..to_user("42", "order", "2") },
        EmitToUserRequest { event: "offer".into(), ..request.clone() },
        EmitToUserRequest { payload: None, ..request.clone() },
        EmitToUserRequest { options: volatile, ..request.clone() },
        EmitToUserRequest { options: except, ..request.clone() },
    ] {
        let status = refused(Code::InvalidArgument, backend.notify().emit_to_user(other)).await;
        let description = "was used for another request to this audience within 5 minutes: choose a new one";
        assert_eq!(violations(&status), [("options.idempotency_key".to_owned(), description.to_owned())]);
    }
    assert!(emit(&backend, request).await.duplicate, "the first one still stands");
}

#[tokio::test]
async fn a_key_holds_for_one_api_key_and_one_audience() {
    let server =
        TestServer::start_with(|config| config.grpc.api_keys.push(api_key("other", OTHER_KEY, &["emit"]))).await;
    let backend = server.backend().await;
    let other = server.backend_with(OTHER_KEY).await;
    let request = EmitToUserRequest { options: once("k"), ..to_user("42", "e", "1") };
    assert!(!emit(&backend, request.clone()).await.duplicate);
    assert!(!emit(&other, request.clone()).await.duplicate, "another backend's key is another key");
    assert!(emit(&other, request.clone()).await.duplicate);
    assert!(!emit(&backend, EmitToUserRequest { user_id: "43".into(), ..request }).await.duplicate);

    let mut room = to_room("listing:7", "e", "1");
    room.options = once("k");
    let mut all = to_everyone("e", "1");
    all.options = once("k");
    let mut users_room = to_room("user:42", "e", "1");
    users_room.options = once("k");
    let mut notify = backend.notify();
    assert!(!answer(notify.emit_to_room(room)).await.unwrap().receipt.unwrap().duplicate);
    assert!(!answer(notify.broadcast(all)).await.unwrap().receipt.unwrap().duplicate);
    assert!(
        answer(notify.emit_to_room(users_room)).await.unwrap().receipt.unwrap().duplicate,
        "it is the same audience"
    );
}

#[tokio::test]
async fn a_repetition_to_users_is_a_duplicate_for_each_who_had_it() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let request = EmitToUsersRequest { options: once("k"), ..to_users(&["1", "2"], "e", "1") };
    assert!(!answer(notify.emit_to_users(request.clone())).await.unwrap().total.unwrap().duplicate);
    assert!(answer(notify.emit_to_users(request.clone())).await.unwrap().total.unwrap().duplicate);
    let more = EmitToUsersRequest { options: once("k"), ..to_users(&["1", "3"], "e", "1") };
    let response = answer(notify.emit_to_users(more)).await.unwrap();
    let duplicates: Vec<_> = response.receipts.iter().map(|each| each.receipt.as_ref().unwrap().duplicate).collect();
    assert_eq!((duplicates, response.total.unwrap().duplicate), (vec![true, false], false));
}

#[tokio::test]
async fn a_key_that_one_of_several_users_had_otherwise_sends_to_none_of_them() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("1").await;
    emit(&backend, EmitToUserRequest { options: once("k"), ..to_user("2", "other", "1") }).await;
    let request = EmitToUsersRequest { options: once("k"), ..to_users(&["1", "2"], "e", "1") };
    refused(Code::InvalidArgument, backend.notify().emit_to_users(request)).await;
    backend.emit_to_user("1", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next", "nothing was sent before");
}

/// The room is larger than what is served without a pause, so that the repetitions come while the first is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repetitions_at_the_same_time_wait_for_the_first_ones_receipt() {
    const DEVICES: usize = 300;
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let connecting = (0..DEVICES).map(|_| server.connect("42"));
    let mut devices = join_all(connecting).await;

    let request = EmitToUserRequest { options: once("k"), ..to_user("42", "order", "1") };
    let emits = (0..16).map(|_| {
        let (mut notify, request) = (backend.notify(), request.clone());
        async move { notify.emit_to_user(request).await.map(Response::into_inner) }
    });
    let answers = deadline("all receipts", join_all(emits)).await;
    let receipts: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().receipt.unwrap()).collect();
    let ids: HashSet<_> = receipts.iter().map(|receipt| &receipt.message_id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1);
    assert!(receipts.iter().all(|receipt| receipt.enqueued == DEVICES as u64), "each waited for the whole receipt");

    backend.emit_to_user("42", "next", "1").await;
    for device in &mut devices {
        device.expect_event("order").await;
        device.expect_event("next").await;
    }
}
