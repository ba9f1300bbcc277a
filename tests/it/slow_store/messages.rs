//! Direct messages over a database that is far away, hangs, or loses the answer to a commit.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{STORE_PATIENCE, of_store};
use crate::{
    harness::{Device, SlowProxy, TestServer, eventually_within, new_database},
    messages::{acknowledged, enable, get},
    stored::readiness,
};

fn message(text: &str) -> Value {
    json!({ "receiverId": "bob", "message": text, "clientMessageId": text })
}

/// Sends a message as often as the device is told that it may not be stored, each time once the store is ready.
async fn send(server: &TestServer, device: &mut Device, text: &str) {
    loop {
        eventually_within(STORE_PATIENCE, "the store to be ready", async || readiness(server).await == 200).await;
        let ack = acknowledged(device, "message:send", message(text)).await;
        if ack["ok"] == true {
            return;
        }
        assert_eq!(ack["error"]["code"], "unavailable", "{ack}");
    }
}

async fn send_over(delay: Duration) {
    let proxy = SlowProxy::start(&new_database(), delay).await;
    let server = TestServer::start_with(|config| {
        enable(config);
        config.store.url = proxy.url().into();
    })
    .await;
    let mut alice = server.connect("alice").await;
    let mut others = [server.connect("alice").await, server.connect("bob").await];
    send(&server, &mut alice, "first").await;

    let cut = proxy.cut_after(&["answer-lost", "COMMIT"]);
    alice.emit("message:send", &[message("answer-lost")]);
    of_store("the commit", cut).await;
    send(&server, &mut alice, "answer-lost").await;

    proxy.hang();
    alice.emit("message:send", &[message("hung")]);
    of_store("the transaction", proxy.holds()).await;
    proxy.go_on();
    send(&server, &mut alice, "hung").await;
    send(&server, &mut alice, "last").await;

    let expected = ["first", "answer-lost", "hung", "last"];
    for device in &mut others {
        for text in expected {
            assert_eq!(device.expect_event("message:received").await.value()["content"], text, "after {delay:?}");
        }
    }
    let listed = get(&server, "conversation/alice", "bob").await.1;
    let texts = listed.as_array().expect("a list").iter().rev().map(|message| &message["content"]);
    assert_eq!(texts.collect::<Vec<_>>(), expected);
    assert_eq!(get(&server, "unread-count", "bob").await.1, json!({ "count": expected.len() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_comes_once_and_in_its_place_whatever_the_database_does() {
    join_all([Duration::ZERO, Duration::from_millis(20)].map(send_over)).await;
}
