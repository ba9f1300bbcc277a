//! How many devices, from where and of whom.

use std::time::Duration;

use super::{online, refusal, turned_away};
use crate::harness::{
    Backend, ConnectError, Device, DeviceBuilder, Protocol, RawSocket, TestServer, Transport, deadline, token,
};

const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::Polling];
const AGAIN: Option<&str> = Some("5");

/// Waits until there is a place for the device.
async fn let_in(device: impl Fn() -> DeviceBuilder) -> Device {
    deadline("a place to be given back", async {
        loop {
            if let Ok(device) = device().connect().await {
                return device;
            }
        }
    })
    .await
}

#[tokio::test]
async fn too_many_devices_in_all_are_told_to_come_back_and_places_are_given_back() {
    let server = TestServer::start_with(|config| config.limits.connections = 2).await;
    for transport in TRANSPORTS {
        let device = || server.device("42").transport(transport);
        let (first, second) = (let_in(device).await, let_in(device).await);
        for transport in TRANSPORTS {
            let (status, after) = turned_away(server.device("42").transport(transport)).await;
            assert_eq!((status, after.as_deref()), (503, AGAIN));
        }
        first.close().await;
        let third = let_in(device).await;
        match transport {
            Transport::WebSocket => second.abort().await,
            // That one would be missed by its pings alone.
            Transport::Polling | Transport::Upgrade => second.close().await,
        }
        let fourth = let_in(device).await;
        third.close().await;
        fourth.close().await;
    }
}

#[tokio::test]
async fn too_many_devices_of_an_address_do_not_hinder_others() {
    let server = TestServer::start_with(|config| config.limits.connections_per_address = 1).await;
    let first = server.connect("42").await;
    for transport in TRANSPORTS {
        let (status, after) = turned_away(server.device("42").transport(transport)).await;
        assert_eq!((status, after.as_deref()), (429, AGAIN));
    }
    let elsewhere = server.device("42").local_address([127, 0, 0, 2].into());
    elsewhere.connect().await.expect("another address has places of its own");
    first.close().await;
    let_in(|| server.device("42")).await;
}

#[tokio::test]
async fn requests_of_a_session_are_not_new_devices() {
    let server = TestServer::start_with(|config| config.limits.connections = 1).await;
    let backend = server.backend().await;
    let mut device = server.device("42").transport(Transport::Upgrade).connect().await.expect("it polls and upgrades");
    backend.emit_to_user("42", "news", "1").await;
    device.expect_event("news").await;
}

#[tokio::test]
async fn one_device_too_many_of_a_user_is_cut_without_a_word() {
    let server = TestServer::start_with(|config| config.limits.connections_per_user = 2).await;
    let backend = server.backend().await;
    let _phone = server.connect("42").await;
    let tablet = server.connect("42").await;
    for protocol in [Protocol::V4, Protocol::V3] {
        for transport in TRANSPORTS {
            let third = server.device("42").transport(transport).protocol(protocol).connect().await;
            assert!(matches!(third, Err(ConnectError::Closed)), "{protocol:?} over {transport:?}: {third:?}");
        }
    }
    server.connect("43").await;
    assert_eq!(backend.emit_to_user("42", "news", "1").await.matched, 2);
    tablet.close().await;
    let_in(|| server.device("42")).await;
}

#[tokio::test]
async fn places_of_devices_that_were_refused_or_never_spoke_are_given_back() {
    let server = TestServer::start_with(|config| {
        config.limits.connections = 4;
        config.socketio.connect_timeout = Duration::from_millis(200);
    })
    .await;
    let backend = server.backend().await;
    for transport in TRANSPORTS {
        refusal(Device::builder(server.clients()).transport(transport).token("bad")).await;
    }
    let silent = RawSocket::connect(server.clients(), super::WEBSOCKET).await.expect("the WebSocket opens");
    let gone = RawSocket::connect(server.clients(), super::WEBSOCKET).await.expect("the WebSocket opens");
    gone.abort();
    let mut devices = Vec::new();
    for _ in 0..4 {
        devices.push(let_in(|| server.device("42")).await);
    }
    online(&backend, 4).await;
    drop(silent);
}

async fn address_of(backend: &Backend, user: &str) -> String {
    backend.get_user(user).await.connections.remove(0).address
}

#[tokio::test]
async fn a_trusted_proxy_tells_where_a_device_is() {
    let server = TestServer::start_with(|config| {
        config.clients.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.limits.connections_per_address = 1;
    })
    .await;
    let backend = server.backend().await;
    let behind = |user: &str, address: &str| server.device(user).header("x-forwarded-for", address);
    let device = behind("42", "6.6.6.6, 203.0.113.7").header("user-agent", "Tests/1").connect().await;
    let _device = device.expect("the device is let in");
    assert_eq!(address_of(&backend, "42").await, "203.0.113.7");
    assert_eq!(backend.get_user("42").await.connections[0].user_agent, "Tests/1");
    assert_eq!(turned_away(behind("43", "203.0.113.7")).await.0, 429);
    behind("43", "203.0.113.8").connect().await.expect("another device behind the proxy has a place");

    let liar = Device::builder(server.clients()).token(token("44")).header("x-forwarded-for", "203.0.113.9");
    let _liar = liar.local_address([127, 0, 0, 2].into()).connect().await.expect("the device is let in");
    assert_eq!(address_of(&backend, "44").await, "127.0.0.2");
}

#[tokio::test]
async fn a_trusted_proxy_tells_the_own_host() {
    let server = TestServer::start_with(|config| {
        config.clients.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    })
    .await;
    let page = || server.device("42").origin("https://app.example.com").header("x-forwarded-host", "app.example.com");
    page().connect().await.expect("the page is of the own host");
    assert_eq!(turned_away(page().local_address([127, 0, 0, 2].into())).await.0, 403);
}
