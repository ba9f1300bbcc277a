//! The test console: its page, and the endpoints that do for a backend what gRPC does.

use bugle::config::Config;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{API_KEY, ConnectError, HttpCaller, HttpClient, TestServer, api_key, deadline};

const EMIT: &str = "/console/api/emit";
const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");
const EMIT_TO: &str = "a-key-that-may-emit-to-users-only-and-no-more";

fn on(config: &mut Config) {
    config.console.enabled = true;
    config.grpc.api_keys.push(api_key("users", EMIT_TO, &["emit:user"]));
}

#[track_caller]
fn ask(
    server: &TestServer,
    method: Method,
    target: &str,
    headers: &[(header::HeaderName, &str)],
    body: &str,
) -> impl Future<Output = Response<Bytes>> + use<> {
    let mut caller = HttpCaller::new(server.admin());
    for (name, value) in headers {
        caller.headers.push((name.clone(), value.parse().expect("a header's value")));
    }
    let (target, body) = (target.to_owned(), Bytes::copy_from_slice(body.as_bytes()));
    deadline("the answer", async move {
        let mut client = HttpClient::new(caller, CancellationToken::new());
        client.request(method, &target, body).await.expect("an answer")
    })
}

/// Asks with an API key, and with a body, as the page does.
#[track_caller]
fn post(server: &TestServer, key: &str, target: &str, body: &str) -> impl Future<Output = Response<Bytes>> + use<> {
    let bearer = format!("Bearer {key}");
    ask(server, Method::POST, target, &[JSON, (header::AUTHORIZATION, &bearer)], body)
}

fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).expect("the answer is JSON")
}

fn code(response: &Response<Bytes>) -> (StatusCode, String) {
    let answer = json(response);
    let error = answer["error"].as_object().expect("the answer is an error");
    assert!(error["message"].is_string() && error["violations"].is_array(), "{answer}");
    (response.status(), error["code"].as_str().expect("a code").to_owned())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
}

#[tokio::test]
async fn without_being_asked_for_there_is_no_console() {
    let server = TestServer::start().await;
    let page = ask(&server, Method::GET, "/console", &[], "").await;
    assert_eq!(page.status(), StatusCode::NOT_FOUND);
    let emit = post(&server, API_KEY, EMIT, r#"{"everyone":true,"event":"e"}"#).await;
    assert_eq!(emit.status(), StatusCode::NOT_FOUND);
    let origin = format!("http://{}", server.admin());
    let refused = server.device("42").origin(&origin).connect().await.expect_err("no page may connect");
    assert!(matches!(refused, ConnectError::Http { status: StatusCode::FORBIDDEN, .. }), "{refused:?}");
}

#[tokio::test]
async fn the_page_needs_no_key_and_is_locked_up() {
    let server = TestServer::start_with(on).await;
    for target in ["/console", "/console/"] {
        let page = ask(&server, Method::GET, target, &[], "").await;
        assert_eq!(page.status(), StatusCode::OK);
        let headers = page.headers();
        assert_eq!(header(headers, "content-type"), "text/html; charset=utf-8");
        assert_eq!(header(headers, "cache-control"), "no-store");
        assert_eq!(header(headers, "x-content-type-options"), "nosniff");
        assert_eq!(header(headers, "x-frame-options"), "DENY");
        let policy = header(headers, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(policy.contains(&format!("; connect-src 'self' ws://{}; ", server.clients())), "{policy}");
        let text = std::str::from_utf8(page.body()).expect("text");
        assert!(text.contains(&format!("content=\"http://{}\"", server.clients())), "the devices' URL");
        assert!(text.contains("value=\"/socket.io\""), "socketio.path");
        assert!(!text.contains(API_KEY), "no secret");
    }
}

#[tokio::test]
async fn the_page_may_connect_as_a_device_and_where_it_is_told() {
    let server = TestServer::start_with(|config| {
        on(config);
        config.console.path = "/test/websocket".into();
        config.console.clients_url = "https://notify.example.com".into();
    })
    .await;
    let page = ask(&server, Method::GET, "/test/websocket", &[], "").await;
    let policy = header(page.headers(), "content-security-policy");
    assert!(policy.contains("; connect-src 'self' wss://notify.example.com; "), "{policy}");
    for host in ["127.0.0.1", "localhost"] {
        let origin = format!("http://{host}:{}", server.admin().port());
        server.device("42").origin(&origin).connect().await.expect("the console connects");
    }
    let elsewhere = server.device("42").origin("http://localhost:1").connect().await;
    assert!(elsewhere.is_err(), "other pages may not");
}

#[tokio::test]
async fn an_emit_arrives_and_its_receipt_is_answered() {
    let server = TestServer::start_with(on).await;
    let mut device = server.connect("42").await;
    let text = r#"{"balance":100.50,"id":12345678901234567890}"#;
    let body = json!({ "user_id": "42", "event": "WALLET_UPDATE", "json": text }).to_string();
    let answer = post(&server, EMIT_TO, EMIT, &body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(answer.headers(), "cache-control"), "no-store");
    let receipt = json(&answer);
    assert_eq!((&receipt["matched"], &receipt["enqueued"], &receipt["dropped"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(device.expect_event("WALLET_UPDATE").await.json(), text);

    let body = r#"{"everyone":true,"event":"all","json":"1","options":{"envelope":true,"volatile":true}}"#;
    assert_eq!(post(&server, API_KEY, EMIT, body).await.status(), StatusCode::OK);
    assert!(device.expect_event("all").await.json().ends_with(r#","data":1}"#));
    let body = r#"{"room":"user:42","event":"room"}"#;
    assert_eq!(post(&server, API_KEY, EMIT, body).await.status(), StatusCode::OK);
    device.expect_event("room").await;
}

#[tokio::test]
async fn what_is_collapsed_or_retained_is_so_from_here_too() {
    let server = TestServer::start_with(on).await;
    let mut device = server.connect("42").await;
    let body = r#"{"user_id":"42","event":"price","json":"1","options":{"collapse_key":"k","retain":true}}"#;
    let first = json(&post(&server, API_KEY, EMIT, body).await);
    assert_eq!((&first["deferred"], &first["matched"]), (&json!(false), &json!(1)));
    let second = json(&post(&server, API_KEY, EMIT, &body.replace("\"1\"", "\"2\"")).await);
    assert_eq!((&second["deferred"], &second["matched"]), (&json!(true), &json!(0)));
    assert_eq!(device.expect_event("price").await.json(), "1");
    assert_eq!(device.expect_event("price").await.json(), "2");
    let mut late = server.connect("42").await;
    assert_eq!(late.expect_event("price").await.json(), "2");
}

#[tokio::test]
async fn counts_and_disconnects_are_answered() {
    let server = TestServer::start_with(on).await;
    let _device = server.connect("42").await;
    let bearer = format!("Bearer {API_KEY}");
    let stats = ask(&server, Method::GET, "/console/api/stats", &[(header::AUTHORIZATION, &bearer)], "").await;
    assert_eq!(json(&stats)["connections"], 1);
    assert_eq!(json(&stats)["users"], 1);
    let closed = post(&server, API_KEY, "/console/api/disconnect", r#"{"user_id":"42"}"#).await;
    assert_eq!(json(&closed), json!({ "disconnected": 1 }));
}

#[tokio::test]
async fn nothing_is_done_without_a_key_or_beyond_its_scopes() {
    let server = TestServer::start_with(on).await;
    let unknown = "a-key-of-nobody-that-is-long-enough-all-the-same";
    let body = r#"{"user_id":"42","event":"e"}"#;
    let unauthenticated = (StatusCode::UNAUTHORIZED, "unauthenticated".to_owned());
    for target in [EMIT, "/console/api/disconnect", "/console/api/stats", "/console/api/nothing", "/console/api"] {
        assert_eq!(code(&ask(&server, Method::POST, target, &[JSON], body).await), unauthenticated, "{target}");
        assert_eq!(code(&post(&server, unknown, target, body).await), unauthenticated, "{target}");
    }
    let denied = (StatusCode::FORBIDDEN, "permission_denied".to_owned());
    assert_eq!(code(&post(&server, EMIT_TO, EMIT, r#"{"everyone":true,"event":"e"}"#).await), denied);
    assert_eq!(code(&post(&server, EMIT_TO, "/console/api/disconnect", r#"{"user_id":"42"}"#).await), denied);
    let bearer = format!("Bearer {EMIT_TO}");
    let stats = ask(&server, Method::GET, "/console/api/stats", &[(header::AUTHORIZATION, &bearer)], "").await;
    assert_eq!(code(&stats), denied);
}

#[tokio::test]
async fn other_pages_cannot_ask() {
    let server = TestServer::start_with(on).await;
    let bearer = format!("Bearer {API_KEY}");
    let body = r#"{"user_id":"42","event":"e"}"#;
    let from = async |origin: &str, method: Method| {
        let headers = [JSON, (header::AUTHORIZATION, bearer.as_str()), (header::ORIGIN, origin)];
        ask(&server, method, EMIT, &headers, body).await
    };
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        let refused = (StatusCode::FORBIDDEN, "permission_denied".to_owned());
        assert_eq!(code(&from(origin, Method::POST).await), refused, "{origin}");
        let preflight = from(origin, Method::OPTIONS).await;
        assert_eq!(code(&preflight), refused, "{origin}");
        assert!(!preflight.headers().contains_key("access-control-allow-origin"));
    }
    let own = format!("http://{}", server.admin());
    assert_eq!(from(&own, Method::POST).await.status(), StatusCode::OK);
    let form = [(header::CONTENT_TYPE, "text/plain"), (header::AUTHORIZATION, bearer.as_str())];
    let answer = ask(&server, Method::POST, EMIT, &form, body).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_what_is_wrong() {
    let server = TestServer::start_with(on).await;
    let fields = |response: &Response<Bytes>| {
        assert_eq!(code(response), (StatusCode::BAD_REQUEST, "invalid_argument".to_owned()));
        let answer = json(response);
        let violations = answer["error"]["violations"].as_array().expect("a list").clone();
        violations.iter().map(|violation| violation["field"].as_str().expect("a field").to_owned()).collect::<Vec<_>>()
    };
    let refused = post(&server, API_KEY, EMIT, r#"{"user_id":"","event":"connect","json":"{"}"#).await;
    assert_eq!(fields(&refused), ["user_id", "event", "json"]);
    assert_eq!(fields(&post(&server, API_KEY, EMIT, r#"{"event":"e"}"#).await), ["target"]);
    assert_eq!(fields(&post(&server, API_KEY, EMIT, r#"{"room":1}"#).await), ["room"]);
    assert_eq!(fields(&post(&server, API_KEY, EMIT, r#"{"options":{"ttl":1}}"#).await), ["options.ttl"]);
    for body in ["", "{", "{} {}", "\u{0}"] {
        assert!(fields(&post(&server, API_KEY, EMIT, body).await).is_empty(), "{body:?}");
    }
    let large = json!({ "user_id": "42", "event": "e", "json": "1".repeat(4 << 20) }).to_string();
    assert_eq!(post(&server, API_KEY, EMIT, &large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let large = json!({ "user_id": "42", "event": "e", "json": "1".repeat(2 << 20) }).to_string();
    assert_eq!(fields(&post(&server, API_KEY, EMIT, &large).await), ["payload"]);
    let nowhere = post(&server, API_KEY, "/console/api/nothing", "{}").await;
    assert_eq!(code(&nowhere), (StatusCode::NOT_FOUND, "not_found".to_owned()));
    let bearer = format!("Bearer {API_KEY}");
    let wrong = ask(&server, Method::GET, EMIT, &[(header::AUTHORIZATION, &bearer)], "").await;
    assert_eq!(code(&wrong).0, StatusCode::METHOD_NOT_ALLOWED);
}
