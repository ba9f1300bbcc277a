//! Acknowledgements of many emits at one time.

use std::time::{Duration, Instant};

use bugle::proto::v1::{
    Emit, EmitBatchRequest, EmitOptions, EmitStreamRequest, EmitToUsersRequest, ack::Outcome, ack_options::Mode, emit,
    emit_result,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::acks::{LONG, acks, in_background, outcomes};
use crate::harness::{TestServer, counts, deadline, emit_to, to_users};

#[tokio::test]
async fn a_batch_waits_for_all_of_its_acknowledgements_together() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let timeout = Duration::from_millis(400);
    let once = EmitOptions { idempotency_key: "k".into(), ..acks(Mode::All, timeout) };
    let user = || emit::Target::UserId("42".into());
    let mut emits: Vec<_> = (0..20)
        .map(|number| Emit { options: Some(acks(Mode::All, timeout)), ..emit_to(user(), "e", &number.to_string()) })
        .collect();
    emits[3].options = None;
    // The second is answered with the first one's receipt, for which those behind do not wait.
    for emit in &mut emits[5..7] {
        *emit = Emit { options: Some(once.clone()), ..emit_to(user(), "e", "5") };
    }
    let mut notify = backend.notify();
    let began = Instant::now();
    let batch = in_background(async move { notify.emit_batch(EmitBatchRequest { emits }).await });
    for number in (0..20).filter(|number| *number != 6) {
        let event = device.expect_event("e").await;
        assert_eq!(event.json(), number.to_string());
        if number == 19 {
            device.acknowledge(&event, "[\"last\"]");
        }
    }
    let results = deadline("the results", batch).await.expect("the call ends").expect("the batch is accepted");
    assert!(began.elapsed() < timeout * 3, "not one after the other: {:?}", began.elapsed());
    let receipts = results.into_inner().results.into_iter().map(|result| match result.result {
        Some(emit_result::Result::Receipt(receipt)) => receipt,
        other => panic!("no receipt: {other:?}"),
    });
    for (number, receipt) in receipts.enumerate() {
        let expected = match number {
            3 => vec![],
            19 => vec![(Outcome::Replied, "[\"last\"]")],
            _ => vec![(Outcome::Timeout, "")],
        };
        assert_eq!((outcomes(&receipt), receipt.duplicate), (expected, number == 6), "{number}");
    }
}

#[tokio::test]
async fn several_users_are_waited_for_together() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let users: Vec<_> = (0..10).map(|user| user.to_string()).collect();
    let users: Vec<_> = users.iter().map(String::as_str).collect();
    let mut devices = futures_util::future::join_all(users.iter().map(|user| server.connect(user))).await;
    let timeout = Duration::from_millis(400);
    let request = EmitToUsersRequest { options: Some(acks(Mode::All, timeout)), ..to_users(&users, "e", "1") };
    let mut notify = backend.notify();
    let began = Instant::now();
    let emit = in_background(async move { notify.emit_to_users(request).await });
    let asked = devices[7].expect_event("e").await;
    devices[7].acknowledge(&asked, "[7]");
    let response = deadline("the receipts", emit).await.expect("the call ends").expect("it is accepted").into_inner();
    assert!(began.elapsed() < timeout * 3, "not one after the other: {:?}", began.elapsed());
    let total = response.total.expect("a total");
    assert_eq!((counts(&total), total.replied, total.acks.len()), ((10, 10, 0), 1, 0));
    for (number, each) in response.receipts.iter().enumerate() {
        let expected = if number == 7 { (Outcome::Replied, "[7]") } else { (Outcome::Timeout, "") };
        assert_eq!(outcomes(each.receipt.as_ref().expect("a receipt")), [expected]);
    }
}

#[tokio::test]
async fn in_a_stream_later_emits_to_the_room_are_sent_and_answered_meanwhile() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let (emits, to_send) = mpsc::channel(16);
    let opening = backend.notify().emit_stream(ReceiverStream::new(to_send)).await;
    let mut results = opening.expect("a stream is accepted").into_inner();
    for number in 0..10 {
        let mut emit = emit_to(emit::Target::UserId("42".into()), "e", &number.to_string());
        emit.options = if number % 2 == 0 { Some(acks(Mode::All, LONG)) } else { None };
        let request = EmitStreamRequest { correlation_id: number.to_string(), emit: Some(emit) };
        emits.send(request).await.expect("the stream goes on");
    }
    let mut asked = Vec::new();
    for number in 0..10 {
        let event = device.expect_event("e").await;
        assert_eq!((event.json(), event.ack.is_some()), (number.to_string().as_str(), number % 2 == 0));
        asked.extend(event.ack.is_some().then_some(event));
    }
    let mut answered = Vec::new();
    while answered.len() < 10 {
        let result = deadline("a result", results.message()).await.expect("it goes on").expect("it goes on");
        answered.push(result.correlation_id);
        if answered.len() == 5 {
            assert!(answered.iter().all(|id| id.parse::<u32>().unwrap() % 2 == 1), "{answered:?}");
            for event in &asked {
                device.acknowledge(event, "[]");
            }
        }
    }
}
