//! A message that was committed though its emit was refused: a device gets it before all that is stored later.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToRoomRequest, EmitToUserRequest};
use futures_util::future::join_all;
use serde_json::json;
use tonic::Code;

use super::{
    FarStore, STORE_PATIENCE,
    hangs::{begin_stored, expect_refusal},
    of_store, staff,
};
use crate::{
    acks::in_background,
    harness::{Device, to_room, to_user},
    stored::store,
};

/// Emits that were refused without asking the database are not in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_message_comes_in_its_place_after_refusals_to_many_other_users() {
    const USERS: usize = 1_100;
    let far = FarStore::start(Duration::ZERO).await;
    let mut device = first_stored(&far).await;
    far.proxy.hang();
    // The first one waits until the server notices that the database hangs.
    refuse(&far, "0").await;
    let users: Vec<_> = (1..USERS).map(|user| user.to_string()).filter(|user| user != "42").collect();
    join_all(users.iter().map(|user| refuse(&far, user))).await;
    far.proxy.go_on();
    far.is_back().await;

    commit_and_refuse(&far).await;
    far.store("user:42", "3").await;
    for json in ["\"second\"", "3"] {
        assert_eq!(device.expect_event("stored").await.json(), json);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_message_comes_in_its_place_though_the_connection_that_reads_it_hangs() {
    let far = FarStore::start(Duration::ZERO).await;
    let mut device = first_stored(&far).await;
    commit_and_refuse(&far).await;
    let commits = far.proxy.hang_at(&["\"third\"", "COMMIT"]);
    let third = begin_stored(&far.backend, "\"third\"");
    of_store("the commit", commits).await;
    let reads = far.proxy.hang_connection_at(&["user:42"]);
    far.proxy.go_on();
    of_store("the second message to be read", reads).await;
    expect_refusal(third).await;
    far.is_back().await;
    far.store("user:42", "\"fourth\"").await;
    for json in ["\"second\"", "\"third\"", "\"fourth\""] {
        assert_eq!(device.expect_event("stored").await.json(), json);
    }
}

/// Who comes back is given it by catching up, and not again when something else is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_message_comes_once_to_a_device_that_was_away() {
    let far = FarStore::start(Duration::ZERO).await;
    let first = far.store("user:42", "1").await.position;
    commit_and_refuse(&far).await;
    let mut device = resuming_at(&far, "user:42", &first).await;
    for name in ["stored", "bugle:resumed"] {
        let event = device.try_next(STORE_PATIENCE).await.expect("an event comes");
        assert_eq!(event.name, name, "{}", event.raw);
    }
    far.store("user:42", "\"third\"").await;
    assert_eq!(device.expect_event("stored").await.values()[0], json!("third"));
}

/// The repetition is published itself: the mailbox keeps no more than the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_emit_whose_message_was_committed_before_is_published_with_its_options() {
    let far = FarStore::start(Duration::ZERO).await;
    let mut device = staff(&far.server, "42").connect().await.expect("the device connects");
    let options = Some(EmitOptions { idempotency_key: "second".into(), retain: true, ..store() });
    let request = EmitToRoomRequest { options, ..to_room("role:staff", "stored", "\"second\"") };
    let commits = far.proxy.hang_after(&["\"second\"", "COMMIT"]);
    let (mut notify, first) = (far.backend.notify(), request.clone());
    let refused = in_background(async move { Ok(notify.emit_to_room(first).await?.into_inner().receipt.unwrap()) });
    of_store("the commit", commits).await;
    expect_refusal(refused).await;
    far.proxy.go_on();
    far.is_back().await;

    let answer = of_store("the repetition", far.backend.notify().emit_to_room(request)).await.expect("it is accepted");
    let receipt = answer.into_inner().receipt.expect("a receipt");
    assert_eq!((receipt.stored, receipt.duplicate, receipt.enqueued), (true, true, 1));
    assert_eq!(device.expect_event("stored").await.json(), "\"second\"");
    let mut later = staff(&far.server, "43").connect().await.expect("the device connects");
    assert_eq!(later.expect_event("stored").await.json(), "\"second\"", "it is retained");
    far.store("role:staff", "3").await;
    assert_eq!(device.expect_event("stored").await.json(), "3", "the second one came once");
}

/// A room that ends while its gap is looked at has nothing to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_told_where_it_stands_though_it_leaves_a_room_that_is_being_looked_up() {
    let far = FarStore::start(Duration::ZERO).await;
    far.backend.join_room("listing:7", "42").await;
    far.store("listing:7", "1").await;
    let lookup = far.proxy.hang_connection_at(&["listing:7"]);
    let mut device = resuming_at(&far, "listing:7", "another-epoch.1").await;
    of_store("the lookup", lookup).await;
    far.backend.leave_room("listing:7", "42").await;
    far.proxy.go_on();
    let event = device.try_next(STORE_PATIENCE).await.expect("the device is told");
    assert_eq!(event.name, "bugle:resumed", "{}", event.raw);
}

async fn resuming_at(far: &FarStore, room: &str, position: &str) -> Device {
    let device = far.server.device("42").resume(json!({ room: position })).connect().await;
    device.expect("the device connects")
}

/// A device of user 42, who was sent a first message.
async fn first_stored(far: &FarStore) -> Device {
    let mut device = far.server.connect("42").await;
    far.store("user:42", "1").await;
    assert_eq!(device.expect_event("stored").await.json(), "1");
    device
}

/// Has the second message to user 42 committed and its emit refused.
async fn commit_and_refuse(far: &FarStore) {
    let commits = far.proxy.hang_after(&["\"second\"", "COMMIT"]);
    let refused = begin_stored(&far.backend, "\"second\"");
    of_store("the commit", commits).await;
    expect_refusal(refused).await;
    far.proxy.go_on();
    far.is_back().await;
}

/// Sends a stored emit to a user, which must be refused.
async fn refuse(far: &FarStore, user: &str) {
    let request = EmitToUserRequest { options: Some(store()), ..to_user(user, "stored", "1") };
    let status =
        of_store("the refusal", far.backend.notify().emit_to_user(request)).await.expect_err("the store hangs");
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
}
