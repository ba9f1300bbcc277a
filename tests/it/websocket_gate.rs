//! Plain WebSocket: who is turned away before the upgrade, so that they come back by themselves.

use std::net::Ipv4Addr;

use http::{StatusCode, header::RETRY_AFTER};

use crate::harness::{
    ConnectError, Device, PlainDevice, PlainDeviceBuilder, PlainFrame, auth_message, raw_http, token,
};
use crate::websocket::{PATH, connect, device, start_with};

/// The refusal's status, and when to come back.
async fn refused(device: PlainDeviceBuilder) -> (StatusCode, Option<String>) {
    match device.open().await {
        Err(ConnectError::Http { status, headers, .. }) => {
            (status, headers.get(RETRY_AFTER).map(|value| value.to_str().expect("a number").to_owned()))
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn limits_refuse_the_upgrade_and_count_all_devices() {
    let server = start_with(|config| config.limits.connections_per_address = 2).await;
    let _phone = server.device("42").path("/ws").connect().await.expect("the phone connects");
    let player = connect(&server, "42").await;
    let again = Some("5".to_owned());
    assert_eq!(refused(device(&server)).await, (StatusCode::TOO_MANY_REQUESTS, again));
    let elsewhere = device(&server).local_address(Ipv4Addr::new(127, 0, 0, 9).into());
    elsewhere.open().await.expect("another address has places of its own");
    player.abort();
    while device(&server).open().await.is_err() {}
}

#[tokio::test]
async fn a_full_server_refuses_the_upgrade() {
    let server = start_with(|config| config.limits.connections = 1).await;
    let _silent = device(&server).open().await.expect("there is one place");
    assert_eq!(refused(device(&server)).await, (StatusCode::SERVICE_UNAVAILABLE, Some("5".to_owned())));
}

#[tokio::test]
async fn a_draining_server_refuses_the_upgrade() {
    let server = start_with(|config| config.drain.pace = 1).await;
    let mut first = connect(&server, "42").await;
    let mut second = connect(&server, "43").await;
    server.stop();
    tokio::select! {
        _ = first.receive() => {}
        _ = second.receive() => {}
    }
    // The other one's turn comes in a second; until then the server listens.
    assert_eq!(refused(device(&server)).await, (StatusCode::SERVICE_UNAVAILABLE, Some("5".to_owned())));
}

#[tokio::test]
async fn a_user_with_too_many_connections_is_closed_with_1013() {
    let server = start_with(|config| config.limits.connections_per_user = 1).await;
    let _first = connect(&server, "42").await;
    let mut second = device(&server).open().await.expect("nobody knows whose it is yet");
    second.send_text(auth_message(&token("42"))).await;
    assert_eq!(
        second.receive().await,
        PlainFrame::closed(1013, "limits.connections_per_user is met: try again in 5 s")
    );
    assert_eq!(server.backend().await.get_user("42").await.connections.len(), 1);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let server = start_with(|config| config.clients.cors_origins = vec!["https://app.example.com".into()]).await;
    let own = format!("http://{}", server.clients());
    for origin in ["https://evil.example.com", "null", "http://localhost:1"] {
        let status = refused(device(&server).header("origin", origin)).await;
        assert_eq!(status, (StatusCode::FORBIDDEN, None), "{origin}");
    }
    for origin in ["https://app.example.com", own.as_str()] {
        device(&server).header("origin", origin).open().await.expect("an allowed origin");
    }
}

#[tokio::test]
async fn what_opens_no_websocket_is_told_so() {
    let server = start_with(|_| ()).await;
    let ask = async |path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
        let answer = raw_http(server.clients(), request).await;
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(ask(PATH, "").await, "HTTP/1.1 426 Upgrade Required");
    for path in ["/ws/balance", "/ws/balance/player/", "/ws/balance/player/x"] {
        assert_eq!(ask(path, "").await, "HTTP/1.1 404 Not Found", "{path}");
    }
    let old = PlainDevice::builder(server.clients(), PATH).header("sec-websocket-protocol", "chat");
    old.open().await.expect("a protocol that is offered need not be taken");
}

#[tokio::test]
async fn socket_io_goes_on_at_the_path_above() {
    let server = start_with(|_| ()).await;
    let backend = server.backend().await;
    let builder = Device::builder(server.clients()).token(token("42")).path("/ws");
    let mut phone = builder.connect().await.expect("the phone connects");
    let mut player = connect(&server, "42").await;
    assert_eq!(backend.emit_to_user("42", "balance", "1").await.matched, 2);
    assert_eq!(phone.expect_event("balance").await.json(), "1");
    assert_eq!(player.receive().await, PlainFrame::text("1"));
}
