//! A store whose tasks do not run, as if the database did not answer them: each operation ends by its own deadline.

use std::{pin::Pin, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, timeout},
};

use super::{
    Config, Error, Pages, Reader, Sharing, Status, Store, Which, Window, deadlines::PATIENCE, epochs::Generation,
};
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;
use crate::message::{EventName, LogEntry, MessageId, Payload, Position, RoomName, UserId};

/// As the README says.
const DEADLINE: Duration = PATIENCE.saturating_mul(2);
/// More than wait in any queue of the store.
const MANY: usize = 5_000;

type Operation<'a> = (&'static str, Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>);

/// Boxes an operation whose result does not matter if it succeeds.
macro_rules! operation {
    ($name:literal, $call:expr) => {
        ($name, Box::pin(async { $call.await.map(drop) }) as Pin<Box<dyn Future<Output = _>>>)
    };
}

/// Runs a test with a store that stands in this status. Its tasks belong to a runtime that is not run.
fn with_store<T>(sharing: Sharing, status: Status, test: impl AsyncFnOnce(&Store) -> T) -> T {
    let idle = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = match sharing {
        Sharing::Single => "sqlite::memory:",
        Sharing::Cluster => "postgres://bugle@127.0.0.1:1/bugle",
    };
    let config = Config { url: url.into(), max_age: Duration::from_hours(1), max_messages: 100 };
    let store = {
        let _in_idle = idle.enter();
        Store::open(&config, sharing, Clock::system(), &Lifecycle::new()).expect("it opens")
    };
    let parts = store.inner.database.parts();
    parts.epochs.set(vec![Generation { number: 0, epoch: "first".into() }]);
    parts.statuses.set(status);
    paused().block_on(test(&store))
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

fn user() -> UserId {
    UserId::new("42").expect("a name")
}

fn room() -> RoomName {
    RoomName::of_user(&user())
}

/// Runs an operation. Returns how long it took if it failed.
async fn failed_after(name: &str, operation: impl Future<Output = Result<(), Error>>) -> Duration {
    let begun = Instant::now();
    let done = timeout(DEADLINE * 100, operation).await;
    let done = done.unwrap_or_else(|_| panic!("{name} has no deadline"));
    assert!(matches!(done, Err(Error::Unavailable(_) | Error::Unreachable)), "{name}: {done:?}");
    begun.elapsed()
}

async fn read_operations(store: &Store) {
    let (room, user, id) = (room(), user(), MessageId::at(Clock::system().now()));
    let elsewhere = Position::new("before".into(), 7);
    let reader = Reader { user: user.clone(), unread_only: true };
    let reports = store.watermark_reports(&user, store.incarnation());
    let users = [user.clone()];
    let operations: Vec<Operation<'_>> = vec![
        operation!("mailbox", store.mailbox(&room)),
        operation!("stands", store.stands(&room, &elsewhere)),
        operation!("undelivered", store.undelivered(&user)),
        operation!("begin_first_resume", reports.begin_first_resume(None)),
        operation!("skip_to", reports.skip_to(7)),
    ];
    for (name, operation) in operations {
        assert_eq!(failed_after(name, operation).await, DEADLINE, "{name}");
    }
    if store.inner.watermarks.is_shared() {
        return;
    }
    // One connection reads and writes.
    let operations: Vec<Operation<'_>> = vec![
        operation!("list", store.list(&room, Window { after: 0, max: 1 }, Some(&reader))),
        operation!("page", store.page::<LogEntry>(&Pages::default(), &room, 0)),
        operation!("messages_at", store.messages_at(&room, &[1])),
        operation!("messages_by_id", store.messages_by_id(&room, &[id])),
        operation!("count_unread", store.count_unread(&room, &user)),
        operation!("count_unread_of", store.count_unread_of(&room, &users)),
        operation!("first_stored_within", store.first_stored_within(&room, DEADLINE)),
        operation!("stored_within", async { store.stored_within(DEADLINE).next().await }),
        operation!("mark_read", store.mark_read(&room, &user, Which::ALL)),
        operation!("delete", store.delete(&room, &[id])),
        operation!("delete_to", store.delete_to(&room, 7)),
        operation!("append", store.append(vec![message()])),
    ];
    for (name, operation) in operations {
        assert_eq!(failed_after(name, operation).await, DEADLINE, "{name}");
    }
}

fn message() -> super::NewMessage {
    super::NewMessage {
        room: room(),
        id: MessageId::at(Clock::system().now()),
        event: EventName::new("e").expect("a name"),
        payload: Payload::None,
        except_users: Vec::new(),
        ttl: None,
        idempotency: None,
        direct: None,
    }
}

#[test]
fn each_operation_of_a_store_that_does_not_answer_ends_by_its_deadline() {
    for sharing in [Sharing::Single, Sharing::Cluster] {
        for status in [Status::Opening, Status::Serving] {
            with_store(sharing, status, read_operations);
        }
    }
}

#[test]
fn what_waits_for_others_ends_by_the_same_deadline() {
    with_store(Sharing::Single, Status::Serving, async |store| {
        let room = room();
        let lookups =
            (0..MANY).map(|_| async { failed_after("a lookup", async { store.mailbox(&room).await.map(drop) }).await });
        let took = futures_util::future::join_all(lookups).await;
        assert!(took.iter().all(|took| *took == DEADLINE), "the longest took {:?}", took.iter().max());
        let pages = Pages::<LogEntry>::default();
        let many_pages = (0..MANY).map(|after| {
            let (pages, room) = (&pages, &room);
            failed_after("a page", async move { store.page(pages, room, after as u64).await.map(drop) })
        });
        let took = futures_util::future::join_all(many_pages).await;
        assert!(took.iter().all(|took| *took == DEADLINE), "the longest took {:?}", took.iter().max());
        let user = user();
        let reports = store.watermark_reports(&user, store.incarnation());
        reports.note_in_flight(7, false);
        reports.note_proven(7);
        let _writing = store.inner.watermarks.hold_writing().await;
        assert_eq!(failed_after("skip_to", reports.skip_to(7)).await, DEADLINE);
        assert_eq!(failed_after("write_watermarks", store.write_watermarks()).await, DEADLINE);
    });
}
