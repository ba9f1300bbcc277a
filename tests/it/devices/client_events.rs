//! What devices send.

use serde_json::{Value, json};

use super::{WEBSOCKET, connect_packet, next_beginning, online, raw_device};
use crate::harness::{Protocol, RawSocket, TestServer, Transport, token};

fn code(ack: &[Value]) -> &str {
    assert_eq!(ack.len(), 1, "an acknowledgement has one argument: {ack:?}");
    ack[0]["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {ack:?}"))
}

#[tokio::test]
async fn an_event_that_no_rule_allows_is_refused() {
    let server = TestServer::start().await;
    for transport in [Transport::WebSocket, Transport::Polling, Transport::Upgrade] {
        for protocol in [Protocol::V4, Protocol::V3] {
            let device = server.device("42").transport(transport).protocol(protocol).connect().await;
            let mut device = device.expect("the device is let in");
            for name in ["unknown", "", "connect", "disconnect", "bugle:unknown", "bugle:disconnect", "\u{1F3BA}"] {
                let ack = device.emit_with_ack(name, &[json!({ "a": 1 })]).await;
                assert_eq!(code(&ack), "unknown_event", "{name} over {transport:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_device_cannot_emit_to_others() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut sender = server.connect("42").await;
    let mut other = server.connect("42").await;
    for name in ["message", "join", "bugle:disconnect"] {
        sender.emit_with_ack(name, &[json!("everyone")]).await;
    }
    backend.emit_to_user("42", "next", "1").await;
    other.expect_event("next").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_are_handled_in_the_order_in_which_they_came() {
    let server = TestServer::start().await;
    let mut socket = raw_device(&server, "42").await;
    // As a client sends what it has kept while it was offline.
    for id in 0..3_000 {
        socket.send_text(format!(r#"42{id}["unknown"]"#)).await;
    }
    for id in 0..3_000 {
        let ack = next_beginning(&mut socket, "43").await;
        assert!(ack.starts_with(&format!("43{id}[")), "{id} was to come, not {ack}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_is_sent_when_the_connect_is_accepted_is_handled() {
    let server = TestServer::start().await;
    for _ in 0..100 {
        let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
        socket.send_text(connect_packet("42")).await;
        next_beginning(&mut socket, "40").await;
        socket.send_text(r#"427["unknown"]"#).await;
        let ack = next_beginning(&mut socket, "43").await;
        assert!(ack.starts_with(r#"437[{"error""#), "{ack}");
    }
}

#[tokio::test]
async fn a_binary_argument_is_refused_and_not_ignored() {
    let server = TestServer::start().await;
    let mut socket = raw_device(&server, "42").await;
    for name in ["bugle:refresh", "unknown"] {
        socket.send_text(format!(r#"451-7["{name}",{{"_placeholder":true,"num":0}}]"#)).await;
        socket.send_binary(&b"\x00\xff"[..]).await;
        let ack = next_beginning(&mut socket, "437").await;
        let expected = if name == "unknown" { "unknown_event" } else { "invalid_argument" };
        assert!(ack.contains(expected), "{ack}");
    }
    let mixed = json!(["bugle:refresh", { "token": token("42") }, { "_placeholder": true, "num": 0 }]);
    socket.send_text(format!("451-8{mixed}")).await;
    socket.send_binary(&b"x"[..]).await;
    let ack = next_beginning(&mut socket, "438").await;
    assert!(ack.contains("invalid_argument"), "{ack}");
}

#[tokio::test]
async fn a_large_event_is_read_and_refused() {
    let server = TestServer::start().await;
    for transport in [Transport::WebSocket, Transport::Polling] {
        let mut device = server.device("42").transport(transport).connect().await.expect("the device is let in");
        let ack = device.emit_with_ack("unknown", &[json!("x".repeat(990_000))]).await;
        assert_eq!(code(&ack), "unknown_event");
    }
}

#[tokio::test]
async fn a_device_that_sends_too_much_is_closed_and_may_come_back() {
    let server = TestServer::start_with(|config| config.socketio.max_message = 1_024).await;
    let backend = server.backend().await;
    let mut bystander = server.connect("43").await;
    for transport in [Transport::WebSocket, Transport::Upgrade] {
        let mut device = server.device("42").transport(transport).connect().await.expect("the device is let in");
        for number in 0..20_000 {
            device.emit("unknown", &[json!(number)]);
        }
        let told = device.expect_event("bugle:disconnect").await.value();
        assert_eq!((&told["code"], &told["retry"]), (&json!("rate"), &json!(true)));
        online(&backend, 1).await;
        device.transport_closed().await;
        server.connect("42").await.close().await;
        online(&backend, 1).await;
    }
    backend.emit_to_user("43", "news", "1").await;
    bystander.expect_event("news").await;
}

#[tokio::test]
async fn an_acknowledgement_goes_to_the_id_that_was_asked_for_it() {
    let server = TestServer::start().await;
    let mut socket = raw_device(&server, "42").await;
    for id in ["0", "1", "4294967296", "9223372036854775807"] {
        socket.send_text(format!(r#"42{id}["unknown",1]"#)).await;
        let ack = next_beginning(&mut socket, "43").await;
        assert!(ack.starts_with(&format!("43{id}[")), "{id}: {ack}");
    }
    socket.send_text(r#"42["unknown",1]"#).await;
    socket.send_text(r#"425["unknown",1]"#).await;
    // A ping may come in between.
    let ack = next_beginning(&mut socket, "43").await;
    assert!(ack.starts_with("435["), "who asks for no answer gets none: {ack}");
}
