//! Tokens that expire while their devices are connected.

use std::time::{Duration, Instant};

use bugle::auth::OnExpiry;
use bugle::clock::Clock;
use bugle::config::Config;
use serde_json::{Value, json};

use super::{online, refusal};
use crate::harness::{Device, DeviceBuilder, TestServer, Transport, token, token_with};

/// A token that is good for so long, with these claims.
fn token_for(good_for: Duration, claims: &Value) -> String {
    let now = Clock::system().now();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century are exact")]
    let exp = now.as_millisecond() as f64 / 1000.0 + good_for.as_secs_f64();
    let mut all = json!({ "sub": "42", "exp": exp });
    all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
    token_with(&all)
}

async fn server(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.auth.jwt.leeway = Duration::ZERO;
        config.auth.expiring_notice = Duration::from_secs(1);
        config.auth.rooms = vec!["team:{claim.team}".into()];
        change(config);
    })
    .await
}

fn device(server: &TestServer, good_for: Duration) -> DeviceBuilder {
    Device::builder(server.clients()).token(token_for(good_for, &json!({ "team": "red" })))
}

#[tokio::test]
async fn a_device_is_told_that_its_token_expires_and_is_cut_when_it_has() {
    let server = server(|_| ()).await;
    let backend = server.backend().await;
    let good_for = Duration::from_secs(2);
    let end = async |transport| {
        let begun = Instant::now();
        let mut device = device(&server, good_for).transport(transport).connect().await.expect("it is let in");
        let notice = device.expect_event("bugle:token_expiring").await.value();
        let told = begun.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_millis(1700)).contains(&told), "{told:?}");
        let expires_at = notice["expiresAt"].as_str().expect("a time").to_owned();
        assert!(expires_at.ends_with('Z') && expires_at.len() == "2026-01-31T09:30:00.000Z".len(), "{expires_at}");
        let goodbye = device.expect_event("bugle:disconnect").await.value();
        assert_eq!(goodbye, json!({ "code": "expired", "reason": "the token expired", "retry": true }));
        assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
        device.transport_closed().await;
        assert!(begun.elapsed() < Duration::from_millis(3500), "{:?}", begun.elapsed());
    };
    tokio::join!(end(Transport::WebSocket), end(Transport::Polling), end(Transport::Upgrade));
    online(&backend, 0).await;
}

#[tokio::test]
async fn without_a_notice_the_device_is_told_at_the_end_alone() {
    let server = server(|config| config.auth.expiring_notice = Duration::ZERO).await;
    let mut device = device(&server, Duration::from_millis(700)).connect().await.expect("it is let in");
    assert_eq!(device.expect_event("bugle:disconnect").await.value()["code"], "expired");
}

#[tokio::test]
async fn a_token_that_expires_is_kept_where_the_configuration_says_so() {
    let server = server(|config| config.auth.on_expiry = OnExpiry::Keep).await;
    let backend = server.backend().await;
    let mut device = device(&server, Duration::from_millis(500)).connect().await.expect("it is let in");
    assert!(device.try_next(Duration::from_millis(1200)).await.is_none(), "nothing is said");
    assert_eq!(backend.emit_to_user("42", "news", "1").await.enqueued, 1);
    device.expect_event("news").await;
}

#[tokio::test]
async fn a_refreshed_device_stays_and_is_told_again_before_the_new_token_expires() {
    let server = server(|_| ()).await;
    let mut device = device(&server, Duration::from_millis(1400)).connect().await.expect("it is let in");
    device.expect_event("bugle:token_expiring").await;
    let refreshed = Instant::now();
    let fresh = token_for(Duration::from_millis(2600), &json!({}));
    assert_eq!(device.emit_with_ack("bugle:refresh", &[json!({ "token": fresh })]).await, [json!({ "ok": true })]);
    device.expect_event("bugle:token_expiring").await;
    assert!(refreshed.elapsed() >= Duration::from_millis(1400), "the old token's end has passed");
    device.expect_event("bugle:disconnect").await;
    assert!(refreshed.elapsed() >= Duration::from_millis(2400), "{:?}", refreshed.elapsed());
}

async fn rooms(server: &TestServer) -> Vec<String> {
    server.backend().await.get_user("42").await.connections.remove(0).rooms
}

#[tokio::test]
async fn a_refresh_leaves_the_rooms_of_the_old_token_and_joins_those_of_the_new_one() {
    let server = server(|_| ()).await;
    let backend = server.backend().await;
    let old = token_for(Duration::from_hours(1), &json!({ "team": ["red", "green"], "role": "user" }));
    let mut device = Device::builder(server.clients()).token(old).connect().await.expect("it is let in");
    backend.join_room("lobby", "42").await;
    assert_eq!(rooms(&server).await, ["everyone", "lobby", "role:user", "team:green", "team:red", "user:42"]);
    let new = token_for(Duration::from_hours(1), &json!({ "team": ["blue", "green"], "role": "admin" }));
    let bearer = json!({ "token": format!("Bearer {new}") });
    assert_eq!(device.emit_with_ack("bugle:refresh", &[bearer]).await, [json!({ "ok": true })]);
    assert_eq!(rooms(&server).await, ["everyone", "lobby", "role:admin", "team:blue", "team:green", "user:42"]);
    assert_eq!(backend.emit_to_room("team:red", "news", "1").await.matched, 0);
    assert_eq!(backend.emit_to_room("team:blue", "news", "1").await.matched, 1);
    device.expect_event("news").await;
}

#[tokio::test]
async fn a_refresh_that_is_refused_changes_nothing() {
    let server = server(|_| ()).await;
    let backend = server.backend().await;
    let mut device = device(&server, Duration::from_hours(1)).connect().await.expect("it is let in");
    let expired = token_with(&json!({ "sub": "42", "exp": 1 }));
    let wrong = "the event takes one argument: { token: \"…\" }";
    let cases = [
        (vec![json!({ "token": token("43") })], "wrong_user", "the token names another user"),
        (vec![json!({ "token": expired })], "invalid_token", "Invalid or expired token"),
        (vec![json!({ "token": "nonsense" })], "invalid_token", "Invalid or expired token"),
        (vec![json!({ "token": "" })], "invalid_token", "Authentication token required"),
        (vec![json!({ "token": "x".repeat(9000) })], "invalid_token", "Invalid or expired token"),
        (vec![json!({ "token": 42 })], "invalid_argument", wrong),
        (vec![json!({})], "invalid_argument", wrong),
        (vec![json!(token("42"))], "invalid_argument", wrong),
        (vec![json!(null)], "invalid_argument", wrong),
        (vec![json!([token("42")])], "invalid_argument", wrong),
        (vec![], "invalid_argument", wrong),
    ];
    let before = rooms(&server).await;
    for (arguments, code, message) in cases {
        let ack = device.emit_with_ack("bugle:refresh", &arguments).await;
        assert_eq!(ack, [json!({ "error": { "code": code, "message": message } })], "{arguments:?}");
    }
    assert_eq!(rooms(&server).await, before);
    assert_eq!(backend.emit_to_user("42", "news", "1").await.enqueued, 1);
    device.expect_event("news").await;
}

#[tokio::test]
async fn a_refresh_with_a_token_that_ends_sooner_ends_sooner() {
    let server = server(|_| ()).await;
    let mut device = device(&server, Duration::from_hours(1)).connect().await.expect("it is let in");
    let short = token_for(Duration::from_millis(500), &json!({}));
    device.emit_with_ack("bugle:refresh", &[json!({ "token": short })]).await;
    device.expect_event("bugle:token_expiring").await;
    assert_eq!(device.expect_event("bugle:disconnect").await.value()["code"], "expired");
}

#[tokio::test]
async fn the_leeway_is_granted_to_live_connections_too() {
    let server = server(|config| config.auth.jwt.leeway = Duration::from_secs(1)).await;
    let begun = Instant::now();
    let mut device = device(&server, Duration::from_millis(600)).connect().await.expect("it is let in");
    device.expect_event("bugle:token_expiring").await;
    device.expect_event("bugle:disconnect").await;
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    let late = token_for(Duration::ZERO, &json!({}));
    server.clock.advance(Duration::from_secs(2));
    let late = Device::builder(server.clients()).token(late);
    assert_eq!(refusal(late).await, super::INVALID);
}

#[tokio::test]
async fn a_device_is_closed_when_the_time_of_day_jumps_past_its_tokens_end() {
    for transport in [Transport::WebSocket, Transport::Polling] {
        let server = server(|_| ()).await;
        let connect = async |hours| {
            let device = device(&server, Duration::from_hours(hours)).transport(transport);
            device.connect().await.expect("it is let in")
        };
        let (mut short, mut long) = (connect(1).await, connect(3).await);
        server.clock.advance(Duration::from_hours(2));
        assert_eq!(short.expect_event("bugle:disconnect").await.value()["code"], "expired");
        short.transport_closed().await;
        assert_eq!(server.backend().await.emit_to_user("42", "news", "1").await.enqueued, 1, "the other one stays");
        long.expect_event("news").await;
    }
}

#[tokio::test]
async fn a_device_is_told_that_its_token_expires_when_the_time_of_day_jumps_to_just_before() {
    let server = server(|config| config.auth.expiring_notice = Duration::from_mins(10)).await;
    let mut device = device(&server, Duration::from_hours(1)).connect().await.expect("it is let in");
    server.clock.advance(Duration::from_mins(55));
    device.expect_event("bugle:token_expiring").await;
    assert_eq!(server.backend().await.emit_to_user("42", "news", "1").await.enqueued, 1);
    device.expect_event("news").await;
}

#[tokio::test]
async fn a_device_stays_when_the_time_of_day_jumps_back_until_its_token_ends_by_that() {
    let server = server(|config| config.auth.expiring_notice = Duration::ZERO).await;
    let mut early = device(&server, Duration::from_secs(3)).connect().await.expect("it is let in");
    server.clock.set_back(Duration::from_mins(30));
    // It ends after the first one would have by the time before.
    let late = json!({ "sub": "43", "exp": server.clock.now().as_second() + 5 });
    let mut late = Device::builder(server.clients()).token(token_with(&late)).connect().await.expect("it is let in");
    assert_eq!(late.expect_event("bugle:disconnect").await.value()["code"], "expired");
    assert_eq!(server.backend().await.emit_to_user("42", "news", "1").await.enqueued, 1, "it is still there");
    early.expect_event("news").await;
    server.clock.advance(Duration::from_mins(30));
    assert_eq!(early.expect_event("bugle:disconnect").await.value()["code"], "expired");
}
