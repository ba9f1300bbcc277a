//! Where a token may stand, and what is said to those that are no good.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bugle::auth::{KeyConfig, mint};
use bugle::clock::Clock;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{INVALID, REQUIRED, UNREADABLE, WEBSOCKET, next_beginning, refusal};
use crate::harness::{Device, DeviceBuilder, Protocol, RawSocket, TestServer, Transport, token, token_with};

const TRANSPORTS: [Transport; 3] = [Transport::WebSocket, Transport::Polling, Transport::Upgrade];

#[tokio::test]
async fn a_token_counts_in_auth_in_the_query_and_in_the_header_with_bearer_and_without() {
    let server = TestServer::start().await;
    let plain = token("42");
    let bearer = format!("Bearer {plain}");
    for transport in TRANSPORTS {
        for protocol in [Protocol::V3, Protocol::V4] {
            for token in [&plain, &bearer] {
                let device = || Device::builder(server.clients()).transport(transport).protocol(protocol);
                let places = [device().token(token), device().query_token(token), device().header_token(token)];
                for device in places {
                    let device = device.connect().await.expect("the device is let in");
                    assert_eq!(device.welcome().user_id, "42");
                }
            }
        }
    }
}

#[tokio::test]
async fn auth_counts_before_the_query_and_the_query_before_the_header() {
    let server = TestServer::start().await;
    let device = || Device::builder(server.clients());
    let user = async |device: DeviceBuilder| device.connect().await.expect("it is let in").welcome().user_id.clone();
    let all = device().token(token("auth")).query_token(token("query")).header_token(&token("header"));
    assert_eq!(user(all).await, "auth");
    let both = device().query_token(token("query")).header_token(&token("header"));
    assert_eq!(user(both).await, "query");
    let empty = device().auth(json!({ "token": "" })).query_token("").header_token(&token("header"));
    assert_eq!(user(empty).await, "header", "what is empty is not there");
    assert_eq!(refusal(device().token("bad").query_token(token("query"))).await, INVALID);
    assert_eq!(refusal(device().query_token("bad").header_token(&token("header"))).await, INVALID);
}

#[tokio::test]
async fn auth_of_every_json_type_is_refused_in_the_same_words() {
    let server = TestServer::start().await;
    let long = "x".repeat(900_000);
    let cases: [(Value, &str); 19] = [
        (Value::Null, REQUIRED),
        (json!(true), REQUIRED),
        (json!(1), REQUIRED),
        (json!("text"), REQUIRED),
        (json!(token("42")), REQUIRED),
        (json!([]), REQUIRED),
        (json!(["token"]), REQUIRED),
        (json!({}), REQUIRED),
        (json!({ "token": null }), REQUIRED),
        (json!({ "token": "" }), REQUIRED),
        (json!({ "token": " Bearer " }), REQUIRED),
        (json!({ "padding": &long }), REQUIRED),
        (json!({ "token": 42 }), INVALID),
        (json!({ "token": false }), INVALID),
        (json!({ "token": [] }), INVALID),
        (json!({ "token": {} }), INVALID),
        (json!({ "token": [token("42")] }), INVALID),
        (json!({ "token": "text" }), INVALID),
        (json!({ "token": &long }), INVALID),
    ];
    for (auth, expected) in cases {
        for transport in [Transport::WebSocket, Transport::Polling] {
            let device = Device::builder(server.clients()).auth(auth.clone()).transport(transport);
            let shown: String = auth.to_string().chars().take(40).collect();
            assert_eq!(refusal(device).await, expected, "{shown} over {transport:?}");
        }
    }
    assert_eq!(refusal(Device::builder(server.clients())).await, REQUIRED);
}

#[tokio::test]
async fn auth_that_is_no_json_is_told_from_a_token_that_is_missing_or_no_text() {
    let server = TestServer::start().await;
    let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
    let deep_object = format!("{}1{}", r#"{"token":"#.repeat(80_000), "}".repeat(80_000));
    let (good, query) = (token("42"), format!("{WEBSOCKET}&token={}", token("42")));
    for (auth, expected) in [
        ("{", UNREADABLE),
        ("nonsense", UNREADABLE),
        ("\u{0}", UNREADABLE),
        (&format!(r#"{{"token":"{good}""#), UNREADABLE),
        (&format!(r#"{{"token":"{good}","\ud800":1}}"#), UNREADABLE),
        (&format!(r#"{{"token":"{good}\ud800"}}"#), INVALID),
        (&deep_object, INVALID),
        (&deep, REQUIRED),
        (r#""\ud800""#, REQUIRED),
    ] {
        let shown: String = auth.chars().take(40).collect();
        // A token in the query does not make up for what stands in `auth`.
        for target in [WEBSOCKET, &query].into_iter().take(if expected == REQUIRED { 1 } else { 2 }) {
            let mut socket = RawSocket::connect(server.clients(), target).await.expect("the WebSocket opens");
            socket.send_text(format!("40{auth}")).await;
            let refusal = next_beginning(&mut socket, "44").await;
            assert_eq!(refusal, format!(r#"44{{"message":"{expected}"}}"#), "{shown}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_beside_a_good_token_does_not_hide_it() {
    let server = TestServer::start().await;
    let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
    for (name, json) in [
        ("resume", r#""\ud800""#),
        ("resume", r#"{"\ud800":"e.1"}"#),
        ("resume", r#"{"user:42":"\ud800"}"#),
        ("resume", r#"{"user:42":1e999}"#),
        ("resume", &deep),
        ("other", r#"["\udc00\ud800"]"#),
        ("other", &deep),
    ] {
        let mut socket = RawSocket::connect(server.clients(), WEBSOCKET).await.expect("the WebSocket opens");
        socket.send_text(format!(r#"40{{"{name}":{json},"token":"{}"}}"#, token("42"))).await;
        next_beginning(&mut socket, r#"42["connected","#).await;
        if name == "resume" {
            let resumed = next_beginning(&mut socket, r#"42["bugle:resumed","#).await;
            assert!(resumed.contains(r#""user:42""#), "{resumed}");
        }
    }
}

#[tokio::test]
async fn old_clients_are_refused_in_the_same_words() {
    let server = TestServer::start().await;
    for transport in [Transport::WebSocket, Transport::Polling] {
        let device = || Device::builder(server.clients()).protocol(Protocol::V3).transport(transport);
        assert_eq!(refusal(device()).await, REQUIRED);
        assert_eq!(refusal(device().query_token("Bearer")).await, REQUIRED);
        assert_eq!(refusal(device().query_token("bad")).await, INVALID);
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_wherever_it_stands() {
    let server = TestServer::start_with(|config| config.auth.jwt.audience = vec!["bugle".into()]).await;
    let now = Clock::system().now().as_second();
    let good = token_with(&json!({ "sub": "42", "aud": "bugle" }));
    let (signed, signature) = good.rsplit_once('.').expect("a token has parts");
    let exchanged = if signature.starts_with('A') { "B" } else { "A" };
    let bad = [
        ("no token at all", "nonsense".to_owned()),
        ("wrong signature", format!("{signed}.{exchanged}{}", &signature[1..])),
        ("no signature", format!("{signed}.")),
        ("another secret", minted("another-secret-of-thirty-two-bytes-or-more", now + 3600)),
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("expired", token_with(&json!({ "sub": "42", "aud": "bugle", "exp": now - 60 }))),
        ("not yet valid", token_with(&json!({ "sub": "42", "aud": "bugle", "nbf": now + 600 }))),
        ("another audience", token_with(&json!({ "sub": "42", "aud": "other" }))),
        ("no audience", token_with(&json!({ "sub": "42" }))),
        ("no expiry", token_with(&json!({ "sub": "42", "aud": "bugle", "exp": null }))),
        ("no user", token_with(&json!({ "aud": "bugle" }))),
        ("too long", token_with(&json!({ "sub": "42", "aud": "bugle", "padding": "x".repeat(8192) }))),
    ];
    for (what, token) in bad {
        let device = || Device::builder(server.clients());
        for device in [device().token(&token), device().query_token(&token), device().header_token(&token)] {
            assert_eq!(refusal(device).await, INVALID, "{what}");
        }
    }
    Device::builder(server.clients()).token(good).connect().await.expect("the good one is let in");
}

fn minted(secret: &str, exp: i64) -> String {
    let secret = Some(SecretString::from(secret));
    let key = KeyConfig { kid: None, algorithm: "HS256".into(), secret, public_key_file: None };
    let claims = json!({ "sub": "42", "aud": "bugle", "exp": exp });
    mint(&key, claims.as_object().expect("claims are an object")).expect("the token is minted")
}

fn unsigned(algorithm: &str) -> String {
    let exp = Clock::system().now().as_second() + 3600;
    let claims = json!({ "sub": "42", "aud": "bugle", "exp": exp });
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.", part(&json!({ "alg": algorithm, "typ": "JWT" })), part(&claims))
}

#[tokio::test]
async fn a_token_is_good_until_its_time_and_the_leeway_are_over() {
    let server = TestServer::start_with(|config| config.auth.jwt.leeway = Duration::from_mins(1)).await;
    let token = token("42");
    let device = || Device::builder(server.clients()).token(&token);
    server.clock.advance(Duration::from_hours(1) + Duration::from_secs(30));
    device().connect().await.expect("the leeway lets it in");
    server.clock.advance(Duration::from_mins(1));
    assert_eq!(refusal(device()).await, INVALID);
}

#[tokio::test]
async fn user_and_roles_are_claims_of_any_name_and_a_number_is_a_user_too() {
    let server = TestServer::start_with(|config| {
        config.auth.jwt.user_claim = "userId".into();
        config.auth.jwt.role_claim = "roles".into();
    })
    .await;
    let claims = json!({ "userId": 42, "sub": "other", "roles": ["admin", "support"], "role": "other" });
    let device = Device::builder(server.clients()).token(token_with(&claims)).connect().await;
    let device = device.expect("the device is let in");
    assert_eq!(device.welcome().user_id, "42");
    let mut rooms = device.welcome().rooms.clone();
    rooms.sort();
    assert_eq!(rooms, ["everyone", "role:admin", "role:support", "user:42"]);
    let without = Device::builder(server.clients()).token(token_with(&json!({ "sub": "42" })));
    assert_eq!(refusal(without).await, INVALID);
}
