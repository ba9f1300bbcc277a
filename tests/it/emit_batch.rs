use bugle::proto::v1::{
    Emit, EmitBatchRequest, EmitError, EmitOptions, EmitResult, Receipt,
    emit::{Payload, Target},
    emit_error, emit_result,
};
use tonic::Code;

use crate::harness::{Backend, TestServer, answer, api_key, counts, emit_to, refused, violations};

const USERS_KEY: &str = "a-key-that-may-emit-to-single-users-alone";

fn user(id: &str) -> Target {
    Target::UserId(id.into())
}

async fn results(backend: &Backend, emits: Vec<Emit>) -> Vec<Result<Receipt, EmitError>> {
    let response = answer(backend.notify().emit_batch(EmitBatchRequest { emits })).await.expect("the call is accepted");
    response.results.into_iter().map(unwrapped).collect()
}

fn unwrapped(result: EmitResult) -> Result<Receipt, EmitError> {
    match result.result.expect("a result is one or the other") {
        emit_result::Result::Receipt(receipt) => Ok(receipt),
        emit_result::Result::Error(error) => Err(error),
    }
}

#[tokio::test]
async fn a_batch_is_sent_in_order_and_each_emit_has_its_result() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let mut other = server.connect("43").await;
    backend.join_room("listing:7", "42").await;
    let binary = Emit { payload: Some(Payload::Binary("bytes".into())), ..emit_to(user("42"), "binary", "") };

    let emits = vec![
        emit_to(user("42"), "first", "1"),
        emit_to(Target::Room("listing:7".into()), "second", "2"),
        emit_to(Target::Everyone(true), "third", "3"),
        binary,
        Emit { payload: None, ..emit_to(user("nobody"), "fourth", "") },
    ];
    let receipts: Vec<_> = results(&backend, emits).await.into_iter().map(Result::unwrap).collect();
    let counted: Vec<_> = receipts.iter().map(counts).collect();
    assert_eq!(counted, [(1, 1, 0), (1, 1, 0), (2, 2, 0), (1, 1, 0), (0, 0, 0)]);
    for event in ["first", "second", "third"] {
        device.expect_event(event).await;
    }
    assert_eq!(&device.expect_event("binary").await.binary()[..], b"bytes");
    assert_eq!(other.expect_event("third").await.json(), "3");
}

#[tokio::test]
async fn a_thousand_emits_to_one_user_arrive_in_the_order_of_the_batch() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let emits = (0..1_000).map(|number: u32| emit_to(user("42"), "e", &number.to_string()));
    let results = results(&backend, emits.collect()).await;
    assert_eq!(
        results.iter().filter(|result| result.as_ref().is_ok_and(|receipt| receipt.enqueued == 1)).count(),
        1_000
    );
    for number in 0..1_000 {
        assert_eq!(device.expect_event("e").await.json(), number.to_string());
    }
}

#[tokio::test]
async fn a_bad_emit_of_a_batch_stops_no_other_and_says_what_is_wrong() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let envelope = Some(EmitOptions { envelope: true, ..EmitOptions::default() });
    let binary = Some(Payload::Binary("bytes".into()));
    let emits = vec![
        emit_to(user("42"), "first", "1"),
        Emit { target: None, ..emit_to(user(""), "e", "1") },
        emit_to(Target::Everyone(false), "e", "1"),
        emit_to(user(""), "connect", "{"),
        emit_to(Target::Room("a\nb".into()), "e", "1"),
        emit_to(user("42"), "e", &large),
        Emit { options: envelope, payload: binary, ..emit_to(Target::Everyone(true), "e", "") },
        emit_to(user("42"), "last", "1"),
    ];
    let results = results(&backend, emits).await;
    let fields = |index: usize| {
        let error = results[index].as_ref().unwrap_err();
        assert_eq!(error.code(), emit_error::Code::InvalidArgument);
        error.violations.iter().map(|violation| &*violation.field).collect::<Vec<_>>()
    };
    assert_eq!(fields(1), ["target"]);
    assert_eq!(fields(2), ["everyone"]);
    assert_eq!(fields(3), ["user_id", "event", "json"]);
    assert_eq!(fields(4), ["room"]);
    assert_eq!(fields(5), ["payload"]);
    assert_eq!(fields(6), ["options.envelope"]);
    assert_eq!([0, 7].map(|index| counts(results[index].as_ref().unwrap())), [(1, 1, 0); 2]);
    device.expect_event("first").await;
    device.expect_event("last").await;
}

#[tokio::test]
async fn the_scope_is_asked_for_each_emit_of_a_batch() {
    let server =
        TestServer::start_with(|config| config.grpc.api_keys.push(api_key("users", USERS_KEY, &["emit:user"]))).await;
    let backend = server.backend_with(USERS_KEY).await;
    let emits = vec![
        emit_to(Target::Everyone(true), "e", "1"),
        emit_to(user("42"), "e", "1"),
        emit_to(Target::Room("listing:7".into()), "e", "1"),
        emit_to(Target::Room("user:42".into()), "e", "1"),
    ];
    let results = results(&backend, emits).await;
    for index in [0, 2] {
        assert_eq!(results[index].as_ref().unwrap_err().code(), emit_error::Code::PermissionDenied);
    }
    assert!(results[1].is_ok() && results[3].is_ok());
}

#[tokio::test]
async fn an_empty_batch_and_one_of_more_than_a_thousand_are_refused_whole() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    for entries in [0, 1_001] {
        let emits = vec![emit_to(user("42"), "e", "1"); entries];
        let status = refused(Code::InvalidArgument, backend.notify().emit_batch(EmitBatchRequest { emits })).await;
        let description = format!("has {entries} entries: give 1 to 1000");
        assert_eq!(violations(&status), [("emits".to_owned(), description)]);
    }
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next", "nothing was sent before");
}
