//! A server whose disk is full or read-only, whose tables are of a newer version, or that follows one that was killed.

use std::{fs, os::unix::fs::symlink, time::Duration};

use bugle::proto::v1::{EmitToUserRequest, ListMessagesRequest, Receipt};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Code;

use crate::harness::{
    Answer, Backend, Device, HangingFile, Launch, OwnMounts, ServerProcess, answer, ask, ask_with, deadline,
    eventually, execute, fill, make_room, make_writable, new_database, not_run, refused, to_user, token,
};
use crate::stored::{emit_stored, store};

/// Long enough for several attempts of the store to write again.
const SOME_RETRIES: Duration = Duration::from_secs(2);

fn start(url: &str, mounts: Option<&OwnMounts>) -> ServerProcess {
    let runner = mounts.map(OwnMounts::runner).unwrap_or_default();
    let launch = Launch { runner: &runner, variables: &[("BUGLE_STORE__URL", url)], ..Launch::default() };
    launch.start().unwrap_or_else(|logged| panic!("it does not start:\n{logged}"))
}

fn file(directory: &TempDir) -> String {
    format!("sqlite:{}/bugle.db", directory.path().display())
}

/// The mounts, unless this process may not mount.
fn mounted(mounts: Result<OwnMounts, String>) -> Option<OwnMounts> {
    mounts.inspect_err(|why| not_run(&"a disk that is full or read-only", why)).ok()
}

async fn is_refused(backend: &Backend) {
    let request = EmitToUserRequest { options: Some(store()), ..to_user("42", "e", "0") };
    refused(Code::Unavailable, backend.notify().emit_to_user(request)).await;
}

async fn listed(backend: &Backend) -> usize {
    let request = ListMessagesRequest { room: "user:42".into(), ..ListMessagesRequest::default() };
    answer(backend.mailbox().list_messages(request)).await.expect("it is read").messages.len()
}

async fn notifications(server: &ServerProcess) -> Answer {
    let authorization = format!("Bearer {}", token("42"));
    ask_with(server.clients, "GET", "/bugle/notifications", &[("authorization", &authorization)], "").await
}

fn number(receipt: &Receipt) -> &str {
    receipt.position.rsplit_once('.').expect("a position").1
}

#[tokio::test]
async fn on_a_full_disk_reading_goes_on_readiness_does_not_flap_and_room_is_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mounts) = mounted(OwnMounts::small_disk(directory.path())) else { return };
    let server = start(&file(&directory), Some(&mounts));
    let backend = server.backend().await;
    for number in 1..=3 {
        emit_stored(&backend, "42", &number.to_string()).await;
    }
    fill(server.id(), directory.path());
    is_refused_in_the_end(&backend).await;
    server.is_ready(false).await;
    let begun = Instant::now();
    while begun.elapsed() < SOME_RETRIES {
        is_refused(&backend).await;
        assert_eq!(ask(server.admin, "GET", "/readyz", "").await.status, 503);
        assert!(listed(&backend).await >= 3);
        let read = notifications(&server).await;
        assert_eq!(read.status, 200, "{}", read.text());
    }
    let told = "the store cannot be written, since its disk is full or it is read-only";
    assert_eq!(server.log().matches(told).count(), 1, "{}", server.log());
    let before = listed(&backend).await;
    make_room(server.id(), directory.path());
    server.is_ready(true).await;
    emit_stored(&backend, "42", "4").await;
    assert_eq!(listed(&backend).await, before + 1);
    let log = server.stop().await.log;
    assert_eq!((log.matches(told).count(), log.matches("the store can be written again").count()), (1, 1), "{log}");
}

/// Stores until there is no room: what is there already may have room in a page of the file.
async fn is_refused_in_the_end(backend: &Backend) {
    let json = format!("\"{}\"", "x".repeat(20_000));
    let request = EmitToUserRequest { options: Some(store()), ..to_user("42", "e", &json) };
    let filling = async { while backend.notify().emit_to_user(request.clone()).await.is_ok() {} };
    deadline("the disk to be full", filling).await;
}

#[tokio::test]
async fn a_file_on_a_read_only_file_system_is_used_as_soon_as_it_can_be_written() {
    for is_killed in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let url = file(&directory);
        let mut first = start(&url, None);
        emit_stored(&first.backend().await, "42", "1").await;
        if is_killed {
            first.kill_9();
        } else {
            assert!(first.stop().await.is_good);
        }
        let Some(mounts) = mounted(OwnMounts::read_only(directory.path())) else { return };
        let server = start(&url, Some(&mounts));
        let backend = server.backend().await;
        server.is_ready(false).await;
        is_refused(&backend).await;
        make_writable(server.id(), directory.path());
        server.is_ready(true).await;
        assert_eq!(number(&emit_stored(&backend, "42", "2").await), "2");
        assert_eq!(listed(&backend).await, 2);
    }
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let values = "(version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE";
    for url in [file(&directory), new_database()] {
        let first = start(&url, None);
        emit_stored(&first.backend().await, "42", "1").await;
        assert!(first.stop().await.is_good);
        if url.starts_with("sqlite") {
            let mut connection = SqliteConnection::connect(&url).await.expect("the file opens");
            let sql = format!("INSERT INTO _sqlx_migrations {values}, x'00', 1)");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("a row is inserted");
            connection.close().await.expect("it is closed");
        } else {
            execute(&url, &format!("INSERT INTO _sqlx_migrations {values}, '\\x00', 1)"));
        }
        let server = start(&url, None);
        is_refused(&server.backend().await).await;
        let told = "the tables of the store are of a newer version of Bugle: run that version";
        let ready = ask(server.admin, "GET", "/readyz", "").await;
        assert!(ready.status == 503 && ready.text().contains(told), "{}", ready.text());
        let logged = server.logged.clone();
        let ended = server.stop().await;
        let log = logged + &ended.log;
        assert!(ended.is_good && log.contains(told), "{url}: {log}");
    }
}

#[tokio::test]
async fn a_second_process_that_opens_the_file_by_another_name_waits() {
    for is_hard in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (directory.path().join("bugle.db"), directory.path().join("links/other.db"));
        let first = start(&file(&directory), None);
        first.is_ready(true).await;
        let mut stored = emit_stored(&first.backend().await, "42", "1").await;
        fs::create_dir(directory.path().join("links")).expect("a directory");
        let linked = if is_hard { fs::hard_link(&path, &other) } else { symlink(&path, &other) };
        linked.expect("a link is made");
        let second = start(&format!("sqlite:{}", other.display()), None);
        let waits =
            async || ask(second.admin, "GET", "/readyz", "").await.text().contains("another process holds the store");
        eventually("the second process to wait", waits).await;
        let begun = Instant::now();
        while begun.elapsed() < SOME_RETRIES {
            assert!(waits().await);
            is_refused(&second.backend().await).await;
            stored = emit_stored(&first.backend().await, "42", "2").await;
        }
        assert!(first.stop().await.is_good);
        second.is_ready(true).await;
        let next = emit_stored(&second.backend().await, "42", "3").await;
        let as_number = |receipt| number(receipt).parse::<u64>().expect("a number");
        assert_eq!(as_number(&next), as_number(&stored) + 1);
    }
}

#[tokio::test]
async fn the_lease_of_a_killed_process_ends_and_the_next_one_goes_on_where_it_was() {
    for is_next_waiting in [false, true] {
        let url = new_database();
        let mut first = start(&url, None);
        first.is_ready(true).await;
        assert_eq!(number(&emit_stored(&first.backend().await, "42", "1").await), "1");
        let waiting = is_next_waiting.then(|| start(&url, None));
        first.kill_9();
        let next = waiting.unwrap_or_else(|| start(&url, None));
        next.is_ready(true).await;
        let backend = next.backend().await;
        assert_eq!(number(&emit_stored(&backend, "42", "2").await), "2");
        let mut device = Device::builder(next.clients).token(token("42")).connect().await.expect("it connects");
        assert_eq!(device.expect_event("e").await.json(), "1");
        assert_eq!(device.expect_event("e").await.json(), "2");
        assert_eq!(number(&emit_stored(&backend, "42", "3").await), "3");
        assert_eq!(device.expect_event("e").await.json(), "3");
    }
}

#[tokio::test]
async fn a_server_whose_disk_hangs_stops_and_one_whose_disk_answers_again_serves() {
    for answers in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("bugle.db");
        fs::write(&path, "").expect("a file is written");
        let hanging = match HangingFile::new(&path) {
            Ok(hanging) => hanging,
            Err(why) => return not_run(&"a disk that hangs", &why.to_string()),
        };
        let server = start(&file(&directory), None);
        eventually("the file to be opened", async || hanging.is_hanging()).await;
        server.is_ready(false).await;
        if answers {
            drop(hanging);
            server.is_ready(true).await;
            emit_stored(&server.backend().await, "42", "1").await;
            assert!(server.stop().await.is_good);
        } else {
            let ended = server.stop().await;
            assert!(ended.is_good && hanging.is_hanging(), "{ended:?}");
        }
    }
}
