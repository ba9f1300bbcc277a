use std::collections::HashMap;

use bugle::proto::v1::{
    Emit, EmitResult, EmitStreamRequest, EmitStreamResponse,
    emit::{Payload, Target},
    emit_error, emit_result,
};
use futures_util::{StreamExt, future::join_all};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::harness::{Backend, TestServer, api_key, deadline, emit_to};

const USERS_KEY: &str = "a-key-that-may-emit-to-single-users-alone";

/// A stream of emits and of their results.
struct EmitStream {
    emits: mpsc::Sender<EmitStreamRequest>,
    results: Streaming<EmitStreamResponse>,
}

impl EmitStream {
    async fn open(backend: &Backend) -> Self {
        let (emits, to_send) = mpsc::channel(16);
        let opening = async { backend.notify().emit_stream(ReceiverStream::new(to_send)).await };
        let results = deadline("the stream's begin", opening).await.expect("a stream is accepted").into_inner();
        Self { emits, results }
    }

    async fn send(&self, id: &str, emit: Emit) {
        let request = EmitStreamRequest { correlation_id: id.into(), emit: Some(emit) };
        deadline("room in the stream", self.emits.send(request)).await.expect("the stream goes on");
    }

    async fn result(&mut self) -> (String, emit_result::Result) {
        let next = deadline("a result", self.results.message()).await;
        let EmitStreamResponse { correlation_id, result } =
            next.expect("the stream has not failed").expect("the stream goes on");
        (correlation_id, result.and_then(|EmitResult { result }| result).expect("a result is one or the other"))
    }

    async fn rest(self) -> Result<usize, Status> {
        let Self { emits, results } = self;
        drop(emits);
        let results: Vec<_> = deadline("the stream's end", results.collect()).await;
        results.into_iter().try_fold(0, |count, result| result.map(|_| count + 1))
    }
}

fn user(id: &str) -> Target {
    Target::UserId(id.into())
}

fn room(name: &str) -> Target {
    Target::Room(name.into())
}

#[tokio::test]
async fn each_emit_of_a_stream_is_sent_at_once_and_answered_under_its_correlation_id() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let mut stream = EmitStream::open(&backend).await;
    for (id, target, matched) in [("a", user("42"), 1), ("", Target::Everyone(true), 1), ("a", room("nowhere"), 0)] {
        stream.send(id, emit_to(target, "e", "{\"n\":1.10}")).await;
        let (answered, result) = stream.result().await;
        assert_eq!(answered, id);
        assert!(matches!(result, emit_result::Result::Receipt(receipt) if receipt.matched == matched));
    }
    for _ in 0..2 {
        assert_eq!(device.expect_event("e").await.json(), "{\"n\":1.10}");
    }
    assert_eq!(stream.rest().await.expect("a stream that its caller ends ends well"), 0);
}

#[tokio::test]
async fn a_bad_emit_is_answered_in_the_stream_which_goes_on() {
    let server =
        TestServer::start_with(|config| config.grpc.api_keys.push(api_key("users", USERS_KEY, &["emit:user"]))).await;
    let backend = server.backend_with(USERS_KEY).await;
    let mut stream = EmitStream::open(&backend).await;
    let long = "x".repeat(257);
    let invalid = emit_error::Code::InvalidArgument;
    let binary = Emit { payload: Some(Payload::Binary(vec![0; (1 << 20) + 1].into())), ..Emit::default() };
    let cases = [
        ("no-fields", Emit::default(), invalid, &["target", "event"][..]),
        ("bad-json", emit_to(user(""), "bugle:x", "[1,]"), invalid, &["user_id", "event", "json"]),
        ("large", Emit { payload: binary.payload, ..emit_to(user("42"), "e", "") }, invalid, &["payload"]),
        ("denied", emit_to(room("listing:7"), "e", "1"), emit_error::Code::PermissionDenied, &[]),
        (&long, emit_to(user("42"), "e", "1"), invalid, &["correlation_id"]),
    ];
    for (id, emit, code, fields) in cases {
        stream.send(id, emit).await;
        let (answered, result) = stream.result().await;
        let emit_result::Result::Error(error) = result else { panic!("{id} was accepted") };
        let named: Vec<_> = error.violations.iter().map(|violation| &*violation.field).collect();
        assert_eq!((&*answered, error.code(), &named[..]), (id, code, fields));
    }
    stream.send("good", emit_to(user("42"), "e", "1")).await;
    assert!(matches!(stream.result().await, (id, emit_result::Result::Receipt(_)) if id == "good"));
    assert_eq!(stream.rest().await.unwrap(), 0);
}

#[tokio::test]
async fn results_that_are_still_due_come_before_the_end() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let stream = EmitStream::open(&backend).await;
    for number in 0..10 {
        stream.send("", emit_to(user("42"), "e", &number.to_string())).await;
    }
    assert_eq!(stream.rest().await.unwrap(), 10);
    for number in 0..10 {
        assert_eq!(device.expect_event("e").await.json(), number.to_string());
    }
}

/// Rooms of more devices than are served without a pause, so that emits pile up behind each other's turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emits_of_a_stream_arrive_in_the_order_of_their_room_under_load() {
    const EMITS: usize = 200;
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut devices = join_all((0..150).map(|_| server.connect("42"))).await;
    for room in ["a", "b"] {
        backend.join_room(room, "42").await;
    }
    let EmitStream { emits, results } = EmitStream::open(&backend).await;
    let sending = async move {
        for number in 0..EMITS {
            let name = ["a", "b"][number % 2];
            let emit = emit_to(room(name), name, &number.to_string());
            emits.send(EmitStreamRequest { correlation_id: number.to_string(), emit: Some(emit) }).await.unwrap();
        }
    };
    let results = results.map(|result| result.unwrap()).collect::<Vec<_>>();
    let ((), results) = deadline("all results", async { tokio::join!(sending, results) }).await;
    let mut answered: Vec<usize> = results.iter().map(|result| result.correlation_id.parse().unwrap()).collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..EMITS).collect::<Vec<_>>());

    for device in &mut devices {
        let mut last = HashMap::new();
        for _ in 0..EMITS {
            let event = device.next_event().await;
            let number: usize = event.json().parse().unwrap();
            assert!(last.insert(event.name, number).is_none_or(|before| before + 2 == number), "{number} came early");
        }
    }
}

#[tokio::test]
async fn a_stop_answers_what_was_accepted_and_ends_the_stream_unavailable() {
    let mut server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let mut stream = EmitStream::open(&backend).await;
    stream.send("accepted", emit_to(user("42"), "e", "1")).await;
    assert_eq!(stream.result().await.0, "accepted");
    server.stop();
    let status = deadline("the stream's end", stream.results.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("can be sent again"), "{}", status.message());
    device.expect_event("e").await;
    drop(stream);
    server.stopped().await.expect("the server stops well");
}
