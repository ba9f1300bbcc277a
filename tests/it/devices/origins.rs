//! Which pages, paths and transports may connect at all.

use bugle::socketio::TransportName;

use super::{POLLING, request, session_id, status, turned_away};
use crate::harness::{Device, DeviceBuilder, TestServer, Transport};

const LISTED: &str = "https://app.example.com";

async fn server() -> TestServer {
    TestServer::start_with(|config| config.clients.cors_origins = vec![LISTED.into()]).await
}

#[tokio::test]
async fn pages_of_the_own_host_and_of_listed_origins_may_connect() {
    let server = server().await;
    let own = format!("http://{}", server.clients());
    for transport in [Transport::WebSocket, Transport::Polling, Transport::Upgrade] {
        for origin in [own.as_str(), LISTED, "HTTPS://APP.example.com"] {
            let device = server.device("42").transport(transport).origin(origin).connect().await;
            device.unwrap_or_else(|error| panic!("{origin} over {transport:?}: {error:?}"));
        }
        server.device("42").transport(transport).connect().await.expect("a client without an origin connects");
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let server = server().await;
    let other_port = format!("http://127.0.0.1:{}", server.admin().port());
    let other_scheme = format!("ftp://{}", server.clients());
    for transport in [Transport::WebSocket, Transport::Polling] {
        for origin in
            ["https://evil.example", "null", "", "https://app.example.com.evil.example", &other_port, &other_scheme]
        {
            let device = server.device("42").transport(transport).origin(origin);
            assert_eq!(turned_away(device).await, (403, None), "{origin} over {transport:?}");
        }
        let twice = server.device("42").transport(transport).origin(LISTED).origin(LISTED);
        assert_eq!(turned_away(twice).await.0, 403, "two origins over {transport:?}");
    }
}

#[tokio::test]
async fn a_session_cannot_be_used_from_another_origin() {
    let server = server().await;
    let opened = request(server.clients(), "GET", POLLING, &[("origin", LISTED)], "").await;
    let session = format!("{POLLING}&sid={}", session_id(&opened));
    for method in ["GET", "POST"] {
        let stolen = request(server.clients(), method, &session, &[("origin", "https://evil.example")], "40").await;
        assert_eq!(status(&stolen), 403, "{stolen}");
    }
}

#[tokio::test]
async fn allowed_origins_alone_get_cors_headers() {
    let server = server().await;
    let allowed = request(server.clients(), "GET", POLLING, &[("origin", LISTED)], "").await.to_lowercase();
    assert!(allowed.contains("access-control-allow-origin: https://app.example.com\r\n"), "{allowed}");
    assert!(allowed.contains("access-control-allow-credentials: true\r\n"), "{allowed}");
    assert!(allowed.contains("access-control-expose-headers: retry-after\r\n"), "{allowed}");
    assert!(allowed.contains("vary: "), "caches must tell origins apart: {allowed}");
    let foreign = request(server.clients(), "GET", POLLING, &[("origin", "https://evil.example")], "").await;
    assert!(!foreign.to_lowercase().contains("access-control-allow-origin"), "{foreign}");
}

#[tokio::test]
async fn a_preflight_is_answered_for_allowed_origins_alone() {
    let server = server().await;
    let ask = async |origin| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        request(server.clients(), "OPTIONS", POLLING, &headers, "").await.to_lowercase()
    };
    let allowed = ask(LISTED).await;
    assert_eq!(status(&allowed), 200);
    assert!(allowed.contains("access-control-allow-origin: https://app.example.com\r\n"), "{allowed}");
    assert!(allowed.contains("access-control-allow-headers: authorization,content-type\r\n"), "{allowed}");
    assert!(allowed.contains("access-control-allow-methods: get,post\r\n"), "{allowed}");
    let foreign = ask("https://evil.example").await;
    assert!(!foreign.contains("access-control-allow-origin"), "{foreign}");
}

#[tokio::test]
async fn no_path_but_the_configured_one_is_answered() {
    let server = TestServer::start_with(|config| config.socketio.path = "/live/events".into()).await;
    let query = "?EIO=4&transport=polling";
    for path in ["/live/events", "/live/events/"] {
        let answer = request(server.clients(), "GET", &format!("{path}{query}"), &[], "").await;
        assert_eq!(status(&answer), 200, "{path}");
        session_id(&answer);
    }
    for path in
        ["/live", "/live/", "/live/events2", "/live/events/more", "/live/events//", "/socket.io/", "/x/live/events/"]
    {
        let answer = request(server.clients(), "GET", &format!("{path}{query}"), &[], "").await;
        assert_eq!(status(&answer), 404, "{path}");
    }
    server.device("42").path("/live/events").connect().await.expect("the device connects");
    assert_eq!(turned_away(server.device("42")).await.0, 404);
}

#[tokio::test]
async fn a_transport_that_is_closed_is_refused() {
    let only = async |transport| TestServer::start_with(|config| config.socketio.transports = vec![transport]).await;
    let refused = async |device: DeviceBuilder| turned_away(device).await.0;
    let polling = only(TransportName::Polling).await;
    polling.device("42").transport(Transport::Polling).connect().await.expect("polling is open");
    assert_eq!(refused(polling.device("42")).await, 400);
    let websocket = only(TransportName::WebSocket).await;
    websocket.device("42").connect().await.expect("WebSocket is open");
    assert_eq!(refused(websocket.device("42").transport(Transport::Polling)).await, 400);
    let polled = polling.device("42").transport(Transport::Upgrade);
    assert_eq!(refused(polled).await, 400, "nor is there a way to it later");
}

#[tokio::test]
async fn requests_that_are_no_engine_io_are_refused() {
    let server = TestServer::start().await;
    for query in [
        "",
        "?EIO=4",
        "?transport=polling",
        "?EIO=5&transport=polling",
        "?EIO=x&transport=polling",
        "?EIO=4&transport=smoke",
    ] {
        let answer = request(server.clients(), "GET", &format!("/socket.io/{query}"), &[], "").await;
        assert_eq!(status(&answer), 400, "{query}");
    }
    for sid in ["x", "AAAAAAAAAAAAAAAA", "%F0%9F%8E%BA", &"A".repeat(20_000)] {
        let answer = request(server.clients(), "GET", &format!("{POLLING}&sid={sid}"), &[], "").await;
        assert_eq!(status(&answer), 400, "{answer}");
    }
    let put = request(server.clients(), "PUT", POLLING, &[], "").await;
    assert!(matches!(status(&put), 400 | 405), "{put}");
    let bare = request(server.clients(), "GET", "/socket.io/?EIO=4&transport=websocket", &[], "").await;
    assert_eq!(status(&bare), 400, "{bare}");
    Device::builder(server.clients()).token(crate::harness::token("42")).connect().await.expect("the server goes on");
}
