//! Who may see and send direct messages.

use bugle::messages::Policy;
use serde_json::{Value, json};

use crate::harness::{TestServer, token_with};
use crate::messages::{PATH, acknowledged, ask, code, do_it, enable, get, post, posted, server};

#[tokio::test]
async fn a_third_user_sees_nothing_of_a_conversation() {
    let server = server().await;
    let mut third = server.connect("carol").await;
    let body = json!({ "receiverId": "bob", "content": "secret", "transactionId": "txn-1", "listingId": "l-1" });
    let id = post(&server, "alice", body).await.1["id"].as_str().unwrap().to_owned();
    let routes = [
        ("PUT", format!("{id}/read"), [403, 204, 404]),
        ("GET", "transaction/txn-1".into(), [200, 200, 404]),
        ("GET", "listing/l-1".into(), [200, 200, 404]),
        ("GET", format!("conversation/bob?before={id}"), [200, 400, 404]),
        ("GET", format!("conversations?before={id}"), [200, 200, 404]),
        ("DELETE", id.clone(), [204, 403, 404]),
    ];
    for (method, path, expected) in &routes {
        for (user, status) in ["bob", "carol"].into_iter().zip(&expected[1..]) {
            // Before its sender deletes it.
            if *status != 400 {
                let answer = do_it(&server, method, path, user).await;
                assert_eq!(answer.0, *status, "{user}: {method} {path}: {}", answer.1);
            }
        }
    }
    for (event, argument) in
        [("message:read", json!({ "messageIds": [id] })), ("message:delete", json!({ "messageId": id }))]
    {
        let ack = acknowledged(&mut third, event, argument).await;
        assert_eq!(ack["error"]["code"], "not_found", "{event}: {ack}");
    }
    for user in ["alice", "bob"] {
        let (status, empty) = get(&server, &format!("conversation/{user}"), "carol").await;
        assert_eq!((status, empty), (200, json!([])), "carol's own conversations are empty");
    }
    assert_eq!(get(&server, "unread-count", "carol").await.1, json!({ "count": 0 }));
    for (method, path, expected) in &routes {
        assert_eq!(do_it(&server, method, path, "alice").await.0, expected[0], "alice: {method} {path}");
    }
    for (method, path, _) in &routes {
        let path = format!("{PATH}/{path}");
        assert_eq!(ask(&server, method, &path, "no token", &Value::Null).await.0, 401, "{method} {path}");
    }
    let marker = posted(&server, "alice", "carol", "hello").await;
    assert_eq!(third.next_event().await.value(), marker, "nothing came before");
}

#[tokio::test]
async fn a_block_holds_in_both_directions_until_it_ends() {
    let server = server().await;
    let (mut alice, mut bob) = (server.connect("alice").await, server.connect("bob").await);
    assert_eq!(acknowledged(&mut bob, "message:block", json!({ "userId": "alice" })).await, json!({ "ok": true }));
    assert_eq!(get(&server, "blocks", "bob").await, (200, json!(["alice"])));
    for (from, to) in [("alice", "bob"), ("bob", "alice")] {
        let refused = post(&server, from, json!({ "receiverId": to, "content": "x" })).await;
        assert_eq!(code(&refused), (403, "permission_denied"), "{from}");
    }
    let ack = acknowledged(&mut alice, "message:send", json!({ "receiverId": "bob", "message": "x" })).await;
    assert_eq!(ack["error"]["code"], "forbidden", "{ack}");
    let ack = acknowledged(&mut alice, "typing:start", json!("bob")).await;
    assert_eq!(ack["error"]["code"], "forbidden", "{ack}");
    assert_eq!(do_it(&server, "DELETE", "blocks/alice", "bob").await.0, 204);
    let message = posted(&server, "alice", "bob", "again").await;
    assert_eq!(bob.next_event().await.value(), message, "nothing came before");
    assert_eq!(do_it(&server, "PUT", "blocks/bob", "bob").await.0, 400);
}

#[tokio::test]
async fn only_granted_conversations_are_possible_if_the_policy_says_so() {
    let server = TestServer::start_with(|config| {
        enable(config);
        config.messages.policy = Policy::Granted;
    })
    .await;
    let refused = post(&server, "alice", json!({ "receiverId": "bob", "content": "x" })).await;
    assert_eq!(code(&refused), (403, "permission_denied"));
    let claims = json!({ "sub": "alice", "conversations": ["shop-*", "dave"] });
    for (to, status) in [("shop-7", 201), ("dave", 201), ("bob", 403), ("shop", 403)] {
        let body = json!({ "receiverId": to, "content": "x" });
        assert_eq!(ask(&server, "POST", PATH, &token_with(&claims), &body).await.0, status, "{to}");
    }
}

#[tokio::test]
async fn a_right_to_the_room_of_a_topic_may_be_required() {
    let server = TestServer::start_with(|config| {
        enable(config);
        config.messages.transaction_room = "transaction:{id}".into();
    })
    .await;
    let with_right = token_with(&json!({ "sub": "alice", "rooms": ["transaction:1"] }));
    let body = |id: &str| json!({ "receiverId": "bob", "content": "x", "transactionId": id });
    assert_eq!(ask(&server, "POST", PATH, &with_right, &body("1")).await.0, 201);
    assert_eq!(code(&ask(&server, "POST", PATH, &with_right, &body("2")).await), (403, "permission_denied"));
    assert_eq!(ask(&server, "GET", &format!("{PATH}/transaction/1"), &with_right, &Value::Null).await.0, 200);
    assert_eq!(code(&get(&server, "transaction/1", "bob").await), (403, "permission_denied"));
}
