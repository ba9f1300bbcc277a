//! A stream whose emits are partly stored, plain, repeated and refused, on a database that is far away.

use std::time::Duration;

use bugle::proto::v1::{
    Emit, EmitOptions, EmitResult, EmitStreamRequest, EmitStreamResponse, emit::Target, emit_error, emit_result,
};
use serde_json::json;

use super::{FarStore, be_resumed, of_store, resuming};
use crate::harness::{answer, emit_to};

/// What an emit of a stream asks for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Stored,
    Plain,
    /// With an idempotency key of its own.
    StoredOnce,
    PlainOnce,
    /// The last `StoredOnce` again, with its key.
    StoredAgain,
    /// The last `PlainOnce` again, with its key.
    PlainAgain,
    /// To be stored with `except_rooms`, which is refused.
    Refused,
}

/// The number of an emit, and its kind.
type Numbered = (usize, Kind);

/// Each kind follows each.
fn every_pair() -> Vec<Numbered> {
    use Kind::{Plain, PlainAgain, PlainOnce, Refused, Stored, StoredAgain, StoredOnce};
    let kinds = [StoredOnce, PlainOnce, Stored, StoredAgain, Plain, PlainAgain, Refused];
    // The first pairs are of those that others repeat.
    let pairs = kinds.into_iter().flat_map(|first| kinds.map(|second| [first, second]));
    let all = [StoredOnce, PlainOnce].into_iter().chain(pairs.flatten());
    all.enumerate().collect()
}

/// The emits to user 42; each has its number as its payload and its correlation id.
fn requests(emits: &[Numbered]) -> Vec<EmitStreamRequest> {
    let (mut stored, mut plain) = (0, 0);
    let request = |&(number, kind): &Numbered| {
        match kind {
            Kind::StoredOnce => stored = number,
            Kind::PlainOnce => plain = number,
            Kind::Stored | Kind::Plain | Kind::StoredAgain | Kind::PlainAgain | Kind::Refused => {}
        }
        let repeated = match kind {
            Kind::StoredAgain => stored,
            Kind::PlainAgain => plain,
            Kind::Stored | Kind::Plain | Kind::StoredOnce | Kind::PlainOnce | Kind::Refused => number,
        };
        let has_key = !matches!(kind, Kind::Stored | Kind::Plain | Kind::Refused);
        let options = EmitOptions {
            store: matches!(kind, Kind::Stored | Kind::StoredOnce | Kind::StoredAgain | Kind::Refused),
            idempotency_key: if has_key { format!("key {repeated}") } else { String::new() },
            except_rooms: if matches!(kind, Kind::Refused) { vec!["team:1".into()] } else { Vec::new() },
            ..EmitOptions::default()
        };
        let emit = emit_to(Target::UserId("42".into()), "e", &repeated.to_string());
        let emit = Some(Emit { options: Some(options), ..emit });
        EmitStreamRequest { correlation_id: number.to_string(), emit }
    };
    emits.iter().map(request).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_and_plain_emits_of_a_stream_keep_their_order_on_a_slow_store() {
    let far = FarStore::start(Duration::from_millis(5)).await;
    let mut plain = far.server.connect("42").await;
    let mut resumed = resuming(&far.server, "42").await;
    be_resumed(&mut resumed, "42").await;
    let emits = every_pair();
    let mut notify = far.backend.notify();
    let stream = answer(notify.emit_stream(tokio_stream::iter(requests(&emits)))).await;
    let mut results = stream.expect("a stream is accepted");
    for _ in &emits {
        let result =
            of_store("a result", results.message()).await.expect("the stream goes on").expect("a result is due");
        let number: usize = result.correlation_id.parse().expect("the id is a number");
        check_result(emits[number], result);
    }
    far.backend.emit_to_user("42", "end", "0").await;
    let is_published = |kind| matches!(kind, Kind::Stored | Kind::Plain | Kind::StoredOnce | Kind::PlainOnce);
    for (number, _) in emits.iter().filter(|(_, kind)| is_published(*kind)) {
        for device in [&mut plain, &mut resumed] {
            assert_eq!(device.expect_event("e").await.values()[0], json!(number));
        }
    }
    for device in [&mut plain, &mut resumed] {
        device.expect_event("end").await;
    }
}

fn check_result((number, kind): Numbered, response: EmitStreamResponse) {
    let result = response.result.and_then(|EmitResult { result }| result).expect("a result is one or the other");
    let is_as_expected = match (kind, &result) {
        (Kind::Refused, emit_result::Result::Error(error)) => {
            let fields: Vec<_> = error.violations.iter().map(|violation| &*violation.field).collect();
            error.code() == emit_error::Code::InvalidArgument && fields == ["options.except_rooms"]
        }
        (Kind::Stored | Kind::StoredOnce, emit_result::Result::Receipt(receipt)) => {
            receipt.stored && !receipt.duplicate && receipt.enqueued == 2
        }
        (Kind::Plain | Kind::PlainOnce, emit_result::Result::Receipt(receipt)) => {
            !receipt.stored && !receipt.duplicate && receipt.enqueued == 2
        }
        (Kind::StoredAgain, emit_result::Result::Receipt(receipt)) => receipt.stored && receipt.duplicate,
        (Kind::PlainAgain, emit_result::Result::Receipt(receipt)) => !receipt.stored && receipt.duplicate,
        _ => false,
    };
    assert!(is_as_expected, "{number}, {kind:?}: {result:?}");
}
