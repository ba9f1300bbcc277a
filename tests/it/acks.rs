//! What devices acknowledge, and what a backend that waits for it is told.

use std::time::Duration;

use bugle::proto::v1::{Ack, AckOptions, EmitOptions, EmitToUserRequest, Receipt, ack::Outcome, ack_options::Mode};
use prost::Message;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::NODES;
use crate::harness::{
    Backend, EVERY_WAY, PlainDevice, PlainFrame, RawGrpc, TestServer, Transport, counts, deadline, grpc_frame, named,
    refused, to_everyone, to_user, token, with_options,
};
use crate::websocket::endpoint;

pub const LONG: Duration = Duration::from_mins(1);

pub fn acks(mode: Mode, timeout: Duration) -> EmitOptions {
    let timeout = prost_types::Duration::try_from(timeout).expect("a timeout fits");
    let ack = Some(AckOptions { mode: mode.into(), timeout: Some(timeout) });
    EmitOptions { ack, ..EmitOptions::default() }
}

fn asking(user: &str, mode: Mode, timeout: Duration) -> EmitToUserRequest {
    EmitToUserRequest { options: Some(acks(mode, timeout)), ..to_user(user, "e", "1") }
}

/// Lets a call wait while the test goes on.
#[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
pub fn in_background<F: Future<Output: Send> + Send + 'static>(call: F) -> JoinHandle<F::Output> {
    tokio::spawn(call)
}

/// Sends an emit and leaves it waiting.
fn begin(backend: &Backend, request: EmitToUserRequest) -> JoinHandle<tonic::Result<Receipt>> {
    let mut notify = backend.notify();
    in_background(async move {
        let response = notify.emit_to_user(request).await?.into_inner();
        Ok(response.receipt.expect("an accepted emit has a receipt"))
    })
}

async fn ended(emit: JoinHandle<tonic::Result<Receipt>>) -> Receipt {
    deadline("the receipt", emit).await.expect("the call ends").expect("the emit is accepted")
}

/// The outcomes with what was replied, in the order of the receipt.
pub fn outcomes(receipt: &Receipt) -> Vec<(Outcome, &str)> {
    receipt.acks.iter().map(|ack| (ack.outcome(), ack.json.as_str())).collect()
}

fn elapsed(ack: &Ack) -> Duration {
    ack.elapsed.expect("each ack says how long it took").try_into().expect("it is not negative")
}

#[tokio::test]
async fn every_device_is_waited_for_and_its_reply_is_told_to_the_letter() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (transport, protocol) in EVERY_WAY {
        let mut first =
            server.device("42").transport(transport).protocol(protocol).connect().await.expect("it is let in");
        let mut second = server.connect("42").await;
        let emit = begin(&backend, asking("42", Mode::All, LONG));
        let (asked, also_asked) = (first.expect_event("e").await, second.expect_event("e").await);
        assert_eq!((asked.json(), asked.args.len()), ("1", 1), "a handler (data, ack) gets no second argument");
        second.acknowledge(&also_asked, "[]");
        let reply = r#"[{"b":1.10, "a":12345678901234567890},null,"_placeholder"]"#;
        first.acknowledge(&asked, reply);
        let receipt = ended(emit).await;
        assert_eq!((counts(&receipt), receipt.replied), ((2, 2, 0), 2), "{transport:?} {protocol:?}");
        for (device, json) in [(&first, reply), (&second, "[]")] {
            let id = &device.welcome().connection_id;
            let ack = receipt.acks.iter().find(|ack| ack.connection_id == *id).expect("every connection is listed");
            assert_eq!((ack.user_id.as_str(), ack.outcome(), ack.json.as_str()), ("42", Outcome::Replied, json));
            assert!(elapsed(ack) < LONG);
        }
        first.close().await;
        second.close().await;
        deadline("both to be gone", async { while backend.get_user("42").await.online {} }).await;
    }
}

#[tokio::test]
async fn any_is_answered_at_the_first_reply_and_the_others_are_not_known_yet() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let (mut quick, mut slow) = (server.connect("1").await, server.connect("2").await);
    let mut notify = backend.notify();
    let mut request = to_everyone("e", "1");
    request.options = Some(acks(Mode::Any, LONG));
    let emit = in_background(async move { notify.broadcast(request).await });
    let asked = quick.expect_event("e").await;
    quick.acknowledge(&asked, "[1,2]");
    let response = deadline("the receipt", emit).await.expect("the call ends").expect("the emit is accepted");
    let receipt = response.into_inner().receipt.expect("a receipt");
    assert_eq!(outcomes(&receipt), [(Outcome::Replied, "[1,2]"), (Outcome::Pending, "")]);
    assert_eq!((receipt.acks[0].user_id.as_str(), receipt.acks[1].user_id.as_str()), ("1", "2"));
    // Nobody waits for it any more, and it does no harm.
    let late = slow.expect_event("e").await;
    slow.acknowledge(&late, "[]");
    backend.emit_to_user("2", "next", "1").await;
    slow.expect_event("next").await;
}

#[tokio::test]
async fn at_the_timeout_the_call_is_ok_with_what_is_known() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let _silent = server.connect("42").await;
    let timeout = Duration::from_millis(300);
    let emit = begin(&backend, asking("42", Mode::All, timeout));
    let asked = device.expect_event("e").await;
    device.acknowledge(&asked, "[true]");
    let receipt = ended(emit).await;
    assert_eq!(outcomes(&receipt), [(Outcome::Replied, "[true]"), (Outcome::Timeout, "")]);
    assert!(elapsed(&receipt.acks[1]) >= timeout);

    let nobody = ended(begin(&backend, asking("nobody", Mode::Any, LONG))).await;
    assert_eq!((counts(&nobody), nobody.acks.len()), ((0, 0, 0), 0), "there is nobody to wait for");
}

#[tokio::test]
async fn a_connection_that_ends_is_gone_at_once() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let (mut leaving, mut crashing, mut out) =
        (server.connect("42").await, server.connect("42").await, server.connect("42").await);
    let emit = begin(&backend, asking("42", Mode::All, LONG));
    for device in [&mut leaving, &mut crashing, &mut out] {
        device.expect_event("e").await;
    }
    leaving.close().await;
    crashing.abort().await;
    backend.disconnect_user("42", "logged out").await;
    assert_eq!(outcomes(&ended(emit).await), [(Outcome::Gone, ""); 3]);
}

#[tokio::test]
async fn a_reply_counts_though_the_connection_ends_right_after() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for _ in 0..50 {
        let mut device = server.connect("42").await;
        let emit = begin(&backend, asking("42", Mode::Any, LONG));
        let asked = device.expect_event("e").await;
        device.acknowledge(&asked, "[1]");
        device.close().await;
        assert_eq!(outcomes(&ended(emit).await), [(Outcome::Replied, "[1]")]);
        deadline("it to be gone", async { while backend.get_user("42").await.online {} }).await;
    }
}

#[tokio::test]
async fn what_is_no_json_is_unsupported() {
    let server = TestServer::start_with(|config| config.websocket.push(endpoint("/plain", &["e"]))).await;
    let backend = server.backend().await;
    let mut plain = PlainDevice::builder(server.clients(), "/plain").open().await.expect("the upgrade is agreed to");
    plain.authenticate(&token("42")).await;
    let (mut binary, mut bad) = (server.connect("42").await, server.connect("42").await);
    let emit = begin(&backend, asking("42", Mode::All, LONG));
    assert_eq!(plain.receive().await, PlainFrame::text("1"));
    let (asked, also_asked) = (binary.expect_event("e").await, bad.expect_event("e").await);
    binary.acknowledge_binary(&asked, r#"[{"_placeholder":true,"num":0}]"#, "bytes");
    bad.acknowledge(&also_asked, "[nonsense");
    assert_eq!(outcomes(&ended(emit).await), [(Outcome::Unsupported, ""); 3]);
}

#[tokio::test]
async fn what_a_queue_does_not_take_is_dropped() {
    let server = TestServer::start_with(|config| config.socketio.queue_bytes = 16 * 1024).await;
    let backend = server.backend().await;
    let device = server.device("42").transport(Transport::Polling).connect().await.expect("the device is let in");
    device.stop_reading();
    let block = format!("\"{}\"", "x".repeat(32 * 1024));
    // The poll that is under way takes the first.
    for _ in 0..2 {
        assert_eq!(backend.emit_to_user("42", "block", &block).await.enqueued, 1);
    }
    let receipt = ended(begin(&backend, asking("42", Mode::Any, LONG))).await;
    assert_eq!((counts(&receipt), outcomes(&receipt)), ((1, 0, 1), vec![(Outcome::Dropped, "")]));
}

#[tokio::test]
async fn nothing_else_waits_for_an_acknowledgement() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let emit = begin(&backend, asking("42", Mode::All, LONG));
    let asked = device.expect_event("e").await;
    backend.emit_to_user("42", "next", "2").await;
    backend.join_room("r", "42").await;
    server.connect("42").await.close().await;
    device.expect_event("next").await;
    device.acknowledge(&asked, "[]");
    assert_eq!(outcomes(&ended(emit).await), [(Outcome::Replied, "[]")]);
}

#[tokio::test]
async fn a_repetition_gets_the_acknowledgements_of_the_first() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let request = || {
        let options = EmitOptions { idempotency_key: "k".into(), ..acks(Mode::All, LONG) };
        EmitToUserRequest { options: Some(options), ..to_user("42", "e", "1") }
    };
    let (first, second) = (begin(&backend, request()), begin(&backend, request()));
    let asked = device.expect_event("e").await;
    device.acknowledge(&asked, "[\"once\"]");
    let (first, second) = (ended(first).await, ended(second).await);
    let third = ended(begin(&backend, request())).await;
    assert_eq!([&first, &second, &third].iter().filter(|receipt| receipt.duplicate).count(), 2);
    for receipt in [first, second, third] {
        assert_eq!((outcomes(&receipt), receipt.replied), (vec![(Outcome::Replied, "[\"once\"]")], 1));
    }
    let mut other = request();
    other.options.as_mut().unwrap().ack.as_mut().unwrap().mode = Mode::Any.into();
    refused(Code::InvalidArgument, backend.notify().emit_to_user(other)).await;
}

#[tokio::test]
async fn a_deadline_of_the_call_that_comes_first_ends_it() {
    let server = TestServer::start().await;
    let mut device = server.connect("42").await;
    let raw = RawGrpc::connect(server.grpc()).await;
    let request = grpc_frame(false, &asking("42", Mode::All, LONG).encode_to_vec());
    let answer = raw.call("/bugle.v1.Notify/EmitToUser", &[("grpc-timeout", "200m")], request).await;
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    device.expect_event("e").await;
}

#[tokio::test]
async fn a_server_that_stops_answers_with_what_it_has() {
    let mut server = TestServer::start_with(|config| config.drain.pace = 1).await;
    let backend = server.backend().await;
    let (mut replying, mut silent) = (server.connect("1").await, server.connect("2").await);
    let mut request = to_everyone("e", "1");
    request.options = Some(acks(Mode::All, LONG));
    let mut notify = backend.notify();
    let emit = in_background(async move { notify.broadcast(request).await });
    let asked = replying.expect_event("e").await;
    silent.expect_event("e").await;
    replying.acknowledge(&asked, "[]");
    // Handled after what came before it on the same connection.
    replying.emit_with_ack("unknown", &[]).await;
    server.stop();
    let response = deadline("the receipt", emit).await.expect("the call ends").expect("the emit is accepted");
    let receipt = response.into_inner().receipt.expect("a receipt");
    // With several nodes, the one that was called may stop before it hears of the reply.
    assert!(NODES > 1 || receipt.acks[0].outcome() == Outcome::Replied);
    assert!([Outcome::Pending, Outcome::Gone].contains(&receipt.acks[1].outcome()));
    server.stopped().await.expect("the server ends well");
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name_and_no_timeout_is_five_seconds() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let timeout = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let any = Mode::Any.into();
    for (ack, fields) in [
        (AckOptions::default(), vec!["options.ack.mode"]),
        (AckOptions { mode: 7, timeout: timeout(0, 0) }, vec!["options.ack.mode", "options.ack.timeout"]),
        (AckOptions { mode: any, timeout: timeout(0, 999_999) }, vec!["options.ack.timeout"]),
        (AckOptions { mode: any, timeout: timeout(60, 1) }, vec!["options.ack.timeout"]),
        (AckOptions { mode: any, timeout: timeout(-1, 0) }, vec!["options.ack.timeout"]),
    ] {
        let options = EmitOptions { ack: Some(ack), ..EmitOptions::default() };
        let status = refused(Code::InvalidArgument, backend.notify().emit_to_user(with_options(options))).await;
        assert_eq!(named(&status), fields);
    }
    let collapsed = EmitOptions { collapse_key: "c".into(), ..acks(Mode::Any, LONG) };
    let status = refused(Code::InvalidArgument, backend.notify().emit_to_user(with_options(collapsed))).await;
    assert_eq!(named(&status), ["options.ack"]);

    let ack = Some(AckOptions { mode: any, timeout: None });
    let options = Some(EmitOptions { ack, ..EmitOptions::default() });
    let emit = begin(&backend, EmitToUserRequest { options, ..to_user("42", "e", "1") });
    let asked = device.expect_event("e").await;
    device.acknowledge(&asked, "[]");
    assert_eq!(outcomes(&ended(emit).await), [(Outcome::Replied, "[]")], "and nothing was sent before");
}

#[tokio::test]
async fn replies_past_a_mebibyte_are_counted_without_what_they_say() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut devices = [server.connect("42").await, server.connect("42").await, server.connect("42").await];
    let emit = begin(&backend, asking("42", Mode::All, LONG));
    let long = format!("[\"{}\"]", "x".repeat(600_000));
    for device in &mut devices {
        let asked = device.expect_event("e").await;
        device.acknowledge(&asked, &long);
    }
    let receipt = ended(emit).await;
    let lengths: Vec<_> = receipt.acks.iter().map(|ack| (ack.outcome(), ack.json.len())).collect();
    assert_eq!(lengths, [(Outcome::Replied, long.len()), (Outcome::Replied, 0), (Outcome::Replied, 0)]);
    assert_eq!(receipt.replied, 3);
}
