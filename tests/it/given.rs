//! What counts as given to a user, and what goes to the user's next device.

use bugle::proto::v1::EmitOptions;
use serde_json::{Value, json};

use crate::harness::{Device, TestServer, answer, to_user};
use crate::messages::{acknowledged, do_it, enable, posted};

async fn sent(device: &mut Device, text: &str) {
    let ack = acknowledged(device, "message:send", json!({ "receiverId": "bob", "message": text })).await;
    assert_eq!(ack["ok"], true, "{ack}");
}

#[tokio::test]
async fn a_stored_emit_that_leaves_out_the_only_connection_goes_to_the_users_next_device() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let first = server.connect("42").await;
    let mut request = to_user("42", "e", "1");
    let except_connection_ids = vec![first.welcome().connection_id.clone()];
    request.options = Some(EmitOptions { store: true, except_connection_ids, ..EmitOptions::default() });
    answer(backend.notify().emit_to_user(request)).await.expect("it is stored");
    first.close().await;
    let mut next = server.connect("42").await;
    assert_eq!(next.expect_event("e").await.json(), "1");
}

#[tokio::test]
async fn what_a_device_has_sent_does_not_go_to_the_users_next_device() {
    let server = TestServer::start_with(enable).await;
    let mut first = server.connect("alice").await;
    let before = posted(&server, "bob", "alice", "0").await;
    assert_eq!(first.expect_event("message:received").await.value(), before);
    // The answer proves what came before it.
    for text in ["1", "2", "3"] {
        sent(&mut first, text).await;
    }
    let after = posted(&server, "bob", "alice", "4").await;
    assert_eq!(first.expect_event("message:received").await.value(), after);
    sent(&mut first, "5").await;
    first.close().await;
    let last = posted(&server, "bob", "alice", "6").await;
    let mut next = server.connect("alice").await;
    let mut event = next.expect_event("message:received").await.value();
    // The one before the close may not be proven.
    if event == after {
        event = next.expect_event("message:received").await.value();
    }
    assert_eq!(event, last);
}

#[tokio::test]
async fn a_message_that_is_deleted_at_once_comes_before_it_is_told_so() {
    const COUNT: usize = 20;
    let server = TestServer::start_with(enable).await;
    let mut devices = [server.connect("alice").await, server.connect("bob").await];
    let mut ids = Vec::new();
    for n in 0..COUNT {
        let message = posted(&server, "alice", "bob", &n.to_string()).await;
        let id = message["id"].as_str().expect("an id").to_owned();
        assert_eq!(do_it(&server, "DELETE", &id, "alice").await.0, 204);
        ids.push(id);
    }
    for device in &mut devices {
        for id in &ids {
            let received: Value = device.expect_event("message:received").ignoring(&["bugle:unread"]).await.value();
            assert_eq!(received["id"], **id);
            let deleted = device.expect_event("message:deleted").ignoring(&["bugle:unread"]).await.value();
            assert_eq!(deleted["messageId"], **id);
        }
    }
}
