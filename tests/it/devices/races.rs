//! Devices that are gone before they are there.

use std::time::Duration;

use bugle::auth::KeyConfig;
use bugle::config::Config;
use futures_util::future::join_all;
use secrecy::SecretString;

use super::{WEBSOCKET, connect_packet, next_beginning, online, streams_held};
use crate::harness::{Backend, Device, RawSocket, TestServer, Transport, token};

/// Enough keys that might have signed a token for its verification to take a while.
fn many_keys(config: &mut Config) {
    for number in 0..5_000 {
        let secret = Some(SecretString::from(format!("secret-{number}-of-thirty-two-bytes-or-more")));
        config
            .auth
            .jwt
            .keys
            .insert(0, KeyConfig { kid: None, algorithm: "HS256".into(), secret, public_key_file: None });
    }
}

/// Nobody is left, and soon enough that no deadline of ours can be what took them out.
async fn nobody_left(server: &TestServer, backend: &Backend) {
    let gone = tokio::time::timeout(Duration::from_secs(3), online(backend, 0)).await;
    gone.expect("devices that are gone are forgotten at once");
    let stats = backend.get_stats().await;
    assert_eq!((stats.users, stats.rooms), (0, 0));
    streams_held(server, backend, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn devices_that_reset_right_after_their_connect_leave_nothing() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let connect = connect_packet("42");
    for _ in 0..10 {
        let devices = (0..50).map(async |number| {
            let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
            socket.send_text(connect.clone()).await;
            if number % 3 == 0 {
                next_beginning(&mut socket, "40").await;
            }
            socket.abort();
        });
        join_all(devices).await;
    }
    nobody_left(&server, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn devices_that_reset_while_their_token_is_verified_leave_nothing() {
    let server = TestServer::start_with(many_keys).await;
    let backend = server.backend().await;
    let connect = connect_packet("42");
    let devices = (0..20).map(async |_| {
        let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
        socket.send_text(connect.clone()).await;
        next_beginning(&mut socket, "0").await;
        socket.abort();
    });
    join_all(devices).await;
    // Whoever connects now is verified after them.
    server.connect("43").await.close().await;
    nobody_left(&server, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_devices_that_reset_while_their_token_is_verified_leave_nothing() {
    let server = TestServer::start_with(many_keys).await;
    let backend = server.backend().await;
    let target = format!("/socket.io/?EIO=3&transport=websocket&token={}", token("42"));
    let devices = (0..20).map(async |_| {
        RawSocket::connect(server.clients(), &target).await.expect("the WebSocket opens").abort();
    });
    join_all(devices).await;
    server.connect("43").await.close().await;
    nobody_left(&server, &backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disconnect_while_devices_connect_leaves_none_of_them_half_there() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for transport in [Transport::WebSocket, Transport::Polling, Transport::Upgrade] {
        let connecting =
            join_all((0..30).map(|_| server.device("42").without_welcome().transport(transport).connect()));
        let disconnecting = async {
            let mut count = 0;
            while count < 30 {
                count += backend.disconnect_user("42", "").await.disconnected;
            }
        };
        let (devices, ()) = tokio::join!(connecting, disconnecting);
        let ended = devices.into_iter().filter_map(Result::ok).map(async |mut device: Device| {
            device.transport_closed().await;
        });
        join_all(ended).await;
        nobody_left(&server, &backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_device_that_was_welcomed_gets_what_was_sent_since_its_connect() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let connecting = join_all((0..50).map(|_| server.device("42").connect()));
    let emitting = async {
        let mut sent = 0;
        while backend.emit_to_user("42", "count", &sent.to_string()).await.matched < 50 {
            sent += 1;
        }
        sent
    };
    let (devices, last) = tokio::join!(connecting, emitting);
    for device in devices {
        let mut device = device.expect("the device is let in");
        let mut next = device.expect_event("count").await.value().as_u64().expect("a number");
        while next < last {
            let number = device.expect_event("count").await.value().as_u64().expect("a number");
            assert_eq!(number, next + 1, "nothing is left out and nothing comes twice");
            next = number;
        }
    }
}
