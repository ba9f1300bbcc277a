//! A store whose database is taken by another process, goes back in time, or cannot be written.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::{join, join_all};

use bugle::clock::Clock;
use bugle::lifecycle::Lifecycle;
use bugle::message::{Position, UserId};
use bugle::proto::v1::EmitToUserRequest;
use bugle::store::{Error, Status, Store, Which, Window};
use sqlx::{Connection, SqliteConnection};
use tonic::Code;

use super::store::{Kind, append, kinds, message, open, open_with, position, reopen, room, texts, wait_for};
use crate::harness::{
    OpenTransaction, TestServer, count, deadline, eventually, execute, new_database, refused, set_read_only, to_user,
    waits_for_lock,
};
use crate::stored::{emit_stored, readiness, store as stored};

const MAILBOX: &str = "user:42";

async fn store_some(store: &Store, count: u64) {
    for _ in 0..count {
        position(store, message(MAILBOX, "1")).await;
    }
}

async fn stands(store: &Store, position: &Position) -> bool {
    store.stands(&room(MAILBOX), position).await.expect("it can be looked up")
}

/// The path of a kind that is a SQLite file.
fn path(kind: &Kind) -> String {
    kind.url.strip_prefix("sqlite:").expect("a file").to_owned()
}

fn postgres() -> Kind {
    Kind::of(new_database())
}

/// Counts how often what is known is to be forgotten, as a new epoch begins.
fn count_epochs(store: &Store) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    store.on_new_epoch(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    count
}

#[tokio::test]
async fn a_second_process_waits_until_the_first_has_stopped() {
    for kind in kinds().into_iter().skip(1) {
        let (first, clock) = (open(&kind, &Clock::system()), Clock::system());
        store_some(&first, 1).await;
        let seen = first.position(1).await.unwrap();
        let second = open(&kind, &clock);
        assert!(matches!(append(&second, message(MAILBOX, "2")).await, Err(Error::Unreachable)), "{}", kind.url);
        assert!(second.list(&room(MAILBOX), Window { after: 0, max: 1 }, None).await.is_err());
        assert_eq!(second.status(), Status::HeldByAnother);
        store_some(&first, 1).await;
        first.close();
        wait_for(&second, Status::Serving).await;
        assert_eq!(position(&second, message(MAILBOX, "3")).await, 3);
        assert!(stands(&second, &seen).await);
        assert!(append(&first, message(MAILBOX, "4")).await.is_err());
    }
}

#[tokio::test]
async fn a_process_whose_lease_was_taken_refuses_until_that_lease_has_ended() {
    let kind = postgres();
    let store = open(&kind, &Clock::system());
    let epochs = count_epochs(&store);
    store_some(&store, 1).await;
    let seen = store.position(1).await.unwrap();
    execute(
        &kind.url,
        "UPDATE store SET generation = generation + 1, holder = 'another', \
         ends_at = (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT + 4000 WHERE id = 1",
    );
    assert!(matches!(append(&store, message(MAILBOX, "2")).await, Err(Error::Unreachable)));
    wait_for(&store, Status::HeldByAnother).await;
    assert!(append(&store, message(MAILBOX, "2")).await.is_err());
    wait_for(&store, Status::Serving).await;
    assert_eq!(position(&store, message(MAILBOX, "2")).await, 2, "what was refused was not stored");
    assert_ne!(epochs.load(Ordering::SeqCst), 0);
    assert_ne!(store.position(1).await.unwrap().epoch, seen.epoch);
    assert!(stands(&store, &seen).await, "nothing was lost");
}

#[tokio::test]
async fn a_position_of_after_the_backup_does_not_stand_once_the_backup_is_restored() {
    let [_, kind, _] = kinds();
    let (path, clock) = (path(&kind), Clock::system());
    let store = open(&kind, &clock);
    store_some(&store, 5).await;
    let (kept, begin) = (store.position(5).await.unwrap(), store.position(0).await.unwrap());
    // Nothing is written meanwhile.
    for suffix in ["", "-wal"] {
        fs::copy(format!("{path}{suffix}"), format!("{path}.backup{suffix}")).unwrap();
    }
    store_some(&store, 5).await;
    let lost = store.position(10).await.unwrap();
    let store = reopen(store, &kind, &clock).await;
    let lost_with_its_epoch = store.position(10).await.unwrap();
    assert!(stands(&store, &lost).await, "before the restore");
    store.close();
    let _ = fs::remove_file(format!("{path}-shm"));
    for suffix in ["-wal", ""] {
        fs::rename(format!("{path}.backup{suffix}"), format!("{path}{suffix}")).unwrap();
    }
    let store = reopen(store, &kind, &clock).await;
    assert_eq!(position(&store, message(MAILBOX, "6")).await, 6);
    store_some(&store, 6).await;
    assert!(!stands(&store, &lost).await, "6 to 10 are others now");
    assert!(!stands(&store, &lost_with_its_epoch).await, "no such epoch is known");
    assert!(stands(&store, &kept).await && stands(&store, &begin).await);
}

#[tokio::test]
async fn a_database_that_has_lost_what_was_committed_begins_a_new_epoch_before_it_stores_more() {
    let kind = postgres();
    let store = open(&kind, &Clock::system());
    let epochs = count_epochs(&store);
    store_some(&store, 8).await;
    let (kept, lost) = (store.position(5).await.unwrap(), store.position(8).await.unwrap());
    // As a standby that lagged.
    execute(
        &kind.url,
        "UPDATE store SET writes = 1 WHERE id = 1; DELETE FROM messages WHERE position > 5; UPDATE mailboxes SET last = 5",
    );
    let is_refused = append(&store, message(MAILBOX, "6")).await.is_err();
    // The heartbeat may have noticed it before.
    assert!(is_refused || epochs.load(Ordering::SeqCst) > 0);
    wait_for(&store, Status::Serving).await;
    assert_ne!(epochs.load(Ordering::SeqCst), 0);
    let next = if is_refused { 6 } else { 7 };
    assert_eq!(position(&store, message(MAILBOX, "7")).await, next);
    assert!(stands(&store, &kept).await && !stands(&store, &lost).await);
}

#[tokio::test]
async fn a_new_epoch_that_operators_begin_forgets_all_positions() {
    for kind in kinds().into_iter().skip(1) {
        let (store, clock) = (open(&kind, &Clock::system()), Clock::system());
        store_some(&store, 1).await;
        let seen = store.position(1).await.unwrap();
        assert!(!bugle::store::begin_new_epoch(&kind.config(), &clock).await.unwrap(), "it is used");
        store.close();
        let begin = async || bugle::store::begin_new_epoch(&kind.config(), &clock).await.unwrap();
        eventually("the store to be free", begin).await;
        let store = reopen(store, &kind, &clock).await;
        assert!(!stands(&store, &seen).await, "{}", kind.url);
        assert_eq!(texts(&store, MAILBOX, 0).await.len(), 1);
    }
}

#[tokio::test]
async fn a_new_epoch_that_is_refused_leaves_the_tables_of_the_process_that_uses_them() {
    let kind = postgres();
    let store = open(&kind, &Clock::system());
    store_some(&store, 1).await;
    // As an earlier version.
    execute(&kind.url, "UPDATE store SET version = version - 1 WHERE id = 1");
    let version = || count(&kind.url, "SELECT version FROM store WHERE id = 1");
    let before = version();
    assert!(!bugle::store::begin_new_epoch(&kind.config(), &Clock::system()).await.unwrap(), "it is used");
    assert_eq!(version(), before);
}

#[tokio::test]
async fn a_store_whose_row_was_deleted_serves_after_the_next_start() {
    for kind in kinds().into_iter().skip(1) {
        let (lifecycle, clock) = (Lifecycle::new(), Clock::system());
        let store = open_with(&kind, &clock, 1_000, &lifecycle);
        store_some(&store, 2).await;
        let seen = store.position(2).await.unwrap();
        store.close();
        deadline("the store's tasks to end", lifecycle.ended()).await;
        if kind.url.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(&kind.url).await.unwrap();
            sqlx::query("DELETE FROM store").execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        } else {
            execute(&kind.url, "DELETE FROM store");
        }
        let store = open(&kind, &clock);
        wait_for(&store, Status::Serving).await;
        assert_eq!(position(&store, message(MAILBOX, "3")).await, 3, "{}", kind.url);
        assert!(!stands(&store, &seen).await, "its epoch is forgotten");
    }
}

#[tokio::test]
async fn a_deleted_file_refuses_until_a_file_stands_in_its_place() {
    let [_, kind, _] = kinds();
    let path = path(&kind);
    let store = open(&kind, &Clock::system());
    let epochs = count_epochs(&store);
    store_some(&store, 2).await;
    for suffix in ["", "-wal"] {
        fs::copy(format!("{path}{suffix}"), format!("{path}.backup{suffix}")).unwrap();
    }
    store_some(&store, 1).await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        fs::remove_file(format!("{path}{suffix}")).unwrap();
    }
    assert!(append(&store, message(MAILBOX, "4")).await.is_err(), "it would not survive a restart");
    wait_for(&store, Status::FileGone).await;
    for suffix in ["-wal", ""] {
        fs::rename(format!("{path}.backup{suffix}"), format!("{path}{suffix}")).unwrap();
    }
    wait_for(&store, Status::Serving).await;
    assert_ne!(epochs.load(Ordering::SeqCst), 0);
    assert_eq!(position(&store, message(MAILBOX, "3")).await, 3, "as in the backup");
}

#[tokio::test]
async fn a_file_that_is_being_copied_back_is_not_opened_and_an_empty_one_never() {
    let [_, kind, _] = kinds();
    let path = path(&kind);
    let store = open(&kind, &Clock::system());
    store_some(&store, 1).await;
    for suffix in ["", "-wal"] {
        fs::copy(format!("{path}{suffix}"), format!("{path}.backup{suffix}")).unwrap();
    }
    for suffix in ["", "-wal", "-shm", ".lock"] {
        fs::remove_file(format!("{path}{suffix}")).unwrap();
    }
    wait_for(&store, Status::FileGone).await;
    fs::write(&path, "").unwrap();
    // Long enough to be looked at some times.
    assert!(deadline_passes(&store, Status::Serving).await, "an empty file is no backup");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing was written there");
    for suffix in ["-wal", ""] {
        fs::rename(format!("{path}.backup{suffix}"), format!("{path}{suffix}")).unwrap();
    }
    wait_for(&store, Status::Serving).await;
    assert_eq!(texts(&store, MAILBOX, 0).await.len(), 1);
}

/// Whether a status does not come within two seconds.
async fn deadline_passes(store: &Store, status: Status) -> bool {
    let mut statuses = store.watch_status();
    tokio::time::timeout(std::time::Duration::from_secs(2), statuses.wait_for(|now| *now == status)).await.is_err()
}

#[tokio::test]
async fn marks_and_other_changes_are_written_though_no_emit_comes_and_at_the_end() {
    for kind in kinds() {
        let lifecycle = Lifecycle::new();
        let store = open_with(&kind, &Clock::system(), 1_000, &lifecycle);
        store_some(&store, 3).await;
        let (mailbox, user) = (room(MAILBOX), UserId::new("42").unwrap());
        for _ in 0..20 {
            let marks = (0..40).map(|_| store.mark_read(&mailbox, &user, Which::UpTo(2)));
            let deletions = (0..40).map(|_| store.delete_to(&mailbox, 1));
            let written = join(join_all(marks), join_all(deletions));
            let (marked, deleted) = deadline("all changes", written).await;
            assert!(marked.iter().all(Result::is_ok) && deleted.iter().all(Result::is_ok), "{}", kind.url);
        }
        store.close();
        deadline("the store's tasks to end", lifecycle.ended()).await;
    }
}

#[tokio::test]
async fn a_database_that_is_read_only_is_read_and_recovers() {
    let kind = postgres();
    let store = open(&kind, &Clock::system());
    store_some(&store, 1).await;
    set_read_only(&kind.url, true);
    assert!(append(&store, message(MAILBOX, "2")).await.is_err());
    wait_for(&store, Status::Unwritable).await;
    assert!(matches!(append(&store, message(MAILBOX, "2")).await, Err(Error::Unreachable)));
    assert_eq!(texts(&store, MAILBOX, 0).await.len(), 1);
    // Also by a process that begins then.
    store.close();
    let seen = store.position(1).await.unwrap();
    let store = open(&kind, &Clock::system());
    let epochs = count_epochs(&store);
    wait_for(&store, Status::Unwritable).await;
    assert_eq!(texts(&store, MAILBOX, 0).await.len(), 1);
    assert!(stands(&store, &seen).await);
    set_read_only(&kind.url, false);
    wait_for(&store, Status::Serving).await;
    assert_eq!(position(&store, message(MAILBOX, "2")).await, 2);
    assert_eq!(epochs.load(Ordering::SeqCst), 0, "nothing was lost");
}

#[tokio::test]
async fn a_statement_that_the_database_cancels_fails_alone_and_the_store_stays_ready() {
    let kind = postgres();
    let store = open(&kind, &Clock::system());
    store_some(&store, 1).await;
    let mut statuses = store.watch_status();
    statuses.mark_unchanged();
    // As by ALTER TABLE.
    let lock = OpenTransaction::begin(&kind.url, "LOCK TABLE messages");
    let cancel = async {
        waits_for_lock(&kind.url).await;
        // As PostgreSQL does by itself after `statement_timeout`.
        execute(&kind.url, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
    };
    let (refused, ()) = join(append(&store, message(MAILBOX, "2")), cancel).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    drop(lock);
    assert_eq!(position(&store, message(MAILBOX, "3")).await, 2);
    assert!(!statuses.has_changed().expect("the store is open"), "{:?}", *statuses.borrow());
}

#[tokio::test]
async fn reads_share_the_connections_that_the_database_gives() {
    for limit in [1, 2] {
        let mut kind = postgres();
        let role = format!("few_{}", kind.url.rsplit('/').next().unwrap());
        execute(
            &kind.url,
            &format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT {limit}; GRANT ALL ON SCHEMA public TO {role}"),
        );
        kind.url = kind.url.replace("postgres@", &format!("{role}@"));
        let store = open(&kind, &Clock::system());
        store_some(&store, 1).await;
        let reads = (0..100).map(|_| texts(&store, MAILBOX, 0));
        let read = deadline("all reads", join_all(reads)).await;
        assert!(read.iter().all(|texts| texts.len() == 1));
    }
}

#[tokio::test]
async fn marks_that_are_written_together_count_as_they_would_alone() {
    for kind in kinds() {
        let store = open(&kind, &Clock::system());
        let mut kept = Vec::new();
        for number in 1..=3 {
            let message = message("team", &number.to_string());
            kept.push(message.id);
            position(&store, message).await;
        }
        let team = room("team");
        let users: Vec<_> = (100..300).map(|user| UserId::new(&user.to_string()).unwrap()).collect();
        // Each user twice, and user 7, whom the messages leave out.
        let marks = users.iter().enumerate().flat_map(|(index, user)| {
            let which = if index % 2 == 0 { Which::UpTo(2) } else { Which::Message(kept[1]) };
            [store.mark_read(&team, user, which), store.mark_read(&team, user, which)]
        });
        let outcomes = join_all(marks).await;
        for pair in outcomes.chunks(2) {
            let mut pair: Vec<_> = pair.iter().map(|outcome| outcome.clone().unwrap()).collect();
            pair.sort_unstable();
            assert_eq!(pair, [Some(false), Some(true)], "{}", kind.url);
        }
        let unread = store.count_unread_of(&team, &users).await.unwrap();
        let expected: Vec<u64> = (0..users.len()).map(|index| if index % 2 == 0 { 1 } else { 2 }).collect();
        assert_eq!(unread, expected);
        // One user, message by message: one round.
        let one = UserId::new("1000").unwrap();
        let marks = kept.iter().map(|id| store.mark_read(&team, &one, Which::Message(*id)));
        let outcomes = join_all(marks).await;
        assert!(outcomes.iter().all(|outcome| outcome.clone().unwrap() == Some(true)));
        assert_eq!(store.count_unread(&team, &one).await.unwrap(), 0);
        let left_out = UserId::new("7").unwrap();
        assert_eq!(store.mark_read(&team, &left_out, Which::Message(kept[0])).await.unwrap(), None);
        assert_eq!(store.mark_read(&team, &left_out, Which::ALL).await.unwrap(), Some(false));
    }
}

#[tokio::test]
async fn an_unreachable_store_refuses_what_is_to_be_stored_and_nothing_else_until_it_is_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (missing, file) = (directory.path().join("later"), directory.path().join("bugle.db"));
    // The directory of the file itself has to be there at the start.
    std::os::unix::fs::symlink(missing.join("bugle.db"), &file).expect("a link is made");
    let url = format!("sqlite:{}", file.display());
    let server = TestServer::start_with(|config| config.store.url = url.into()).await;
    let backend = server.backend().await;
    let request = EmitToUserRequest { options: Some(stored()), ..to_user("42", "e", "1") };
    let status = refused(Code::Unavailable, backend.notify().emit_to_user(request)).await;
    assert!(status.message().contains("idempotency_key"), "{}", status.message());
    let mut device = server.connect("42").await;
    assert_eq!(backend.emit_to_user("42", "plain", "1").await.enqueued, 1);
    assert_eq!(device.expect_event("plain").await.json(), "1");
    assert_eq!(readiness(&server).await, 503);
    fs::create_dir(&missing).expect("the directory can be made");
    eventually("the store to be back", async || readiness(&server).await == 200).await;
    emit_stored(&backend, "42", "2").await;
    assert_eq!(device.expect_event("e").await.json(), "2");
}
