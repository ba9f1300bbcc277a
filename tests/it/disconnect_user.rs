use std::time::{Duration, Instant};

use bugle::proto::v1::{DisconnectUserRequest, DisconnectUserResponse, GetUsersRequest};
use serde_json::json;
use tonic::Code;

use crate::harness::{
    Backend, ClosedBy, Device, Protocol, TestServer, Transport, answer, is_node_count, named, refused, violations,
};

async fn disconnect_except(backend: &Backend, user: &str, except: Vec<String>) -> DisconnectUserResponse {
    let request =
        DisconnectUserRequest { user_id: user.into(), reason: "signed out".into(), except_connection_ids: except };
    answer(backend.notify().disconnect_user(request)).await.expect("the call is accepted")
}

/// The device is told, then leaves the namespace, then loses its transport.
async fn expect_farewell(device: &mut Device, reason: &str, since: Instant) {
    let told = device.expect_event("bugle:disconnect").await;
    assert_eq!(told.value(), json!({ "code": "disconnected", "reason": reason, "retry": false }));
    assert_eq!(device.closed().await.by, ClosedBy::ServerPacket);
    let cut = device.transport_closed().await.at;
    assert!(cut - since < Duration::from_secs(1), "the transport was cut after {:?}", cut - since);
}

#[tokio::test]
async fn disconnecting_a_user_closes_every_connection_within_a_second_and_tells_why() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let polling = server.device("42").transport(Transport::Polling).connect().await.unwrap();
    let upgraded = server.device("42").transport(Transport::Upgrade).connect().await.unwrap();
    let old = server.device("42").protocol(Protocol::V3).connect().await.unwrap();
    let mut devices = [server.connect("42").await, polling, upgraded, old];
    let mut stranger = server.connect("43").await;

    let since = Instant::now();
    let response = backend.disconnect_user("42", "signed out").await;
    assert_eq!((response.disconnected, response.partial), (4, false));
    assert!(is_node_count(response.nodes, 4), "{response:?}");
    assert!(!backend.get_user("42").await.online, "presence knows at once");
    let stats = backend.get_stats().await;
    assert_eq!((stats.users, stats.connections), (1, 1));
    for device in &mut devices {
        expect_farewell(device, "signed out", since).await;
    }
    assert_eq!(backend.disconnect_user("42", "").await.disconnected, 0);
    backend.emit_to_user("43", "next", "1").await;
    stranger.expect_event("next").await;
}

#[tokio::test]
async fn excepted_connections_stay() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut phone = server.connect("42").await;
    let mut tablet = server.connect("42").await;
    let kept = phone.welcome().connection_id.clone();
    let since = Instant::now();
    let strangers = uuid::Uuid::new_v4().to_string();
    assert_eq!(disconnect_except(&backend, "42", vec![strangers, kept.clone()]).await.disconnected, 1);
    expect_farewell(&mut tablet, "signed out", since).await;
    let left: Vec<_> = backend.get_user("42").await.connections.into_iter().map(|connection| connection.id).collect();
    assert_eq!(left, [kept]);
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(phone.next_event().await.name, "next", "the phone was told nothing");
}

#[tokio::test]
async fn a_disconnect_without_a_reason_has_one_all_the_same() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let since = Instant::now();
    backend.disconnect_user("42", "").await;
    expect_farewell(&mut device, "disconnected by the backend", since).await;
}

#[tokio::test]
async fn a_user_who_was_disconnected_may_come_back() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    backend.disconnect_user("42", "").await;
    device.closed().await;
    let mut again = server.connect("42").await;
    assert_eq!(backend.emit_to_user("42", "e", "1").await.matched, 1);
    again.expect_event("e").await;
}

#[tokio::test]
async fn what_is_wrong_with_a_disconnect_is_said_field_by_field() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let _device = server.connect("42").await;
    let request = DisconnectUserRequest {
        user_id: String::new(),
        reason: format!("{}\n", "x".repeat(256)),
        except_connection_ids: vec!["42".into()],
    };
    let status = refused(Code::InvalidArgument, backend.notify().disconnect_user(request)).await;
    let expected = [
        ("user_id", "is empty: give 1 to 256 bytes"),
        (
            "except_connection_ids[0]",
            "is not a connection id: those are UUIDs, as in the welcome event and in Presence",
        ),
        ("reason", "has 257 bytes: at most 256 are allowed"),
        ("reason", "has a control character"),
    ];
    assert_eq!(violations(&status), expected.map(|(field, what)| (field.to_owned(), what.to_owned())));

    let ids = vec![uuid::Uuid::new_v4().to_string(); 1_001];
    let request =
        DisconnectUserRequest { user_id: "42".into(), reason: String::new(), except_connection_ids: ids.clone() };
    let status = refused(Code::InvalidArgument, backend.notify().disconnect_user(request)).await;
    assert_eq!(named(&status), ["except_connection_ids"]);
    let users = answer(backend.presence().get_users(GetUsersRequest { user_ids: vec!["42".into()] })).await.unwrap();
    assert!(users.users[0].online, "a refused call disconnects nobody");
}
