//! Health and metrics as an operator's probes see them. All tests share the process's metrics: they only ever go up here.

use bugle::proto::v1::{EmitOptions, EmitToUserRequest};
use tonic::Code;

use crate::harness::{Backend, TestServer, answer, deadline, raw_http, refused, to_everyone, to_room, to_user};

async fn get(server: &TestServer, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let answer = raw_http(server.admin(), request).await;
    let answer = String::from_utf8(answer.to_vec()).expect("an answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.to_owned(), body.to_owned())
}

/// The value of a metric with its labels as they are rendered; none if it is not there yet.
async fn metric(server: &TestServer, series: &str) -> Option<f64> {
    let (head, body) = get(server, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap_or_else(|_| panic!("{series} {line}")))
}

/// By how much these series at least went up while something was done.
async fn increases<const N: usize>(
    server: &TestServer,
    series: [&str; N],
    doing: impl Future<Output = ()>,
) -> [f64; N] {
    let mut increases = [0.0; N];
    for (increase, series) in increases.iter_mut().zip(series) {
        *increase -= metric(server, series).await.unwrap_or_default();
    }
    doing.await;
    for (increase, series) in increases.iter_mut().zip(series) {
        *increase += metric(server, series).await.unwrap_or_else(|| panic!("{series} is missing"));
    }
    increases
}

#[tokio::test]
async fn livez_and_readyz_answer_and_the_root_says_what_is_there() {
    let server = TestServer::start().await;
    let ready = async {
        while let (head, body) = get(&server, "/readyz").await
            && !head.starts_with("HTTP/1.1 200 ")
        {
            assert_eq!(body, "the store was not reached yet (store.url)\n");
        }
    };
    deadline("the store to be reached", ready).await;
    for path in ["/livez", "/readyz"] {
        let (head, body) = get(&server, path).await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(body, "ok\n");
    }
    let (head, body) = get(&server, "/").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert_eq!(body, "Bugle, for operators: /livez, /readyz, /metrics\n");
    for path in ["/debug", "/livez/", "/socket.io/?EIO=4&transport=polling"] {
        assert!(get(&server, path).await.0.starts_with("HTTP/1.1 404 "), "{path}");
    }
}

#[tokio::test]
async fn a_stop_takes_readiness_down_and_leaves_the_process_alive() {
    let server = TestServer::start_with(|config| config.drain.deadline = std::time::Duration::from_mins(1)).await;
    let backend = server.backend().await;
    // As long as this stream is open the server does not end.
    let (_emits, to_send) = tokio::sync::mpsc::channel(1);
    let emits = tokio_stream::wrappers::ReceiverStream::new(to_send);
    let _results = answer(backend.notify().emit_stream(emits)).await.unwrap();
    let _device = server.connect("42").await;
    server.stop();
    let (head, body) = get(&server, "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "stopping\n");
    assert!(get(&server, "/livez").await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn emits_are_counted_by_audience_and_outcome() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let _device = server.connect("42").await;
    let series = [
        r#"bugle_emits_total{audience="user",outcome="sent"}"#,
        r#"bugle_emits_total{audience="room",outcome="sent"}"#,
        r#"bugle_emits_total{audience="everyone",outcome="sent"}"#,
        r#"bugle_emits_total{audience="user",outcome="duplicate"}"#,
        r#"bugle_emits_total{audience="user",outcome="refused"}"#,
        "bugle_deliveries_total",
        "bugle_emit_seconds_count",
    ];
    let options = Some(EmitOptions { idempotency_key: "k".into(), ..EmitOptions::default() });
    let once = EmitToUserRequest { options, ..to_user("42", "e", "1") };
    let increases = increases(
        &server,
        series,
        Box::pin(async {
            let mut notify = backend.notify();
            answer(notify.emit_to_room(to_room("a", "e", "1"))).await.unwrap();
            answer(notify.broadcast(to_everyone("e", "1"))).await.unwrap();
            for _ in 0..2 {
                answer(notify.emit_to_user(once.clone())).await.unwrap();
            }
            let other = EmitToUserRequest { event: "other".into(), ..once.clone() };
            refused(Code::InvalidArgument, notify.emit_to_user(other)).await;
        }),
    );
    let increases = increases.await;
    assert!(increases.iter().zip([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0]).all(|(is, least)| *is >= least), "{increases:?}");
}

#[tokio::test]
async fn grpc_calls_are_counted_by_method_and_code_and_refusals_by_reason() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let stranger = Backend::anonymous(server.grpc()).await;
    let series = [
        r#"bugle_grpc_calls_total{method="bugle.v1.Notify/EmitToUser",code="OK"}"#,
        r#"bugle_grpc_calls_total{method="bugle.v1.Notify/EmitToUser",code="INVALID_ARGUMENT"}"#,
        r#"bugle_grpc_calls_total{method="bugle.v1.Notify/EmitToUser",code="UNAUTHENTICATED"}"#,
        r#"bugle_grpc_calls_total{method="bugle.v1.Rooms/GetRoom",code="NOT_FOUND"}"#,
        r#"bugle_refusals_total{edge="grpc",reason="api_key"}"#,
    ];
    let increases = increases(
        &server,
        series,
        Box::pin(async {
            backend.emit_to_user("42", "e", "1").await;
            refused(Code::InvalidArgument, backend.notify().emit_to_user(to_user("", "e", "1"))).await;
            refused(Code::Unauthenticated, stranger.notify().emit_to_user(to_user("42", "e", "1"))).await;
            backend.get_room("nowhere").await.unwrap_err();
        }),
    );
    let increases = increases.await;
    assert!(increases.iter().all(|increase| *increase >= 1.0), "{increases:?}");
}

#[tokio::test]
async fn what_there_is_now_and_what_the_process_takes_is_shown() {
    let server = TestServer::start().await;
    let _devices = [server.connect("1").await, server.connect("1").await, server.connect("2").await];
    let (head, body) = get(&server, "/metrics").await;
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    for name in [
        "bugle_connections",
        "bugle_users",
        "bugle_rooms",
        "bugle_connects_total{transport=",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(body.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{body}");
    }
}
