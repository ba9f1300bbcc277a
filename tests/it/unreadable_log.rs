//! Stored messages that cannot be read, as the database's pages or its rows are damaged: devices are told, and all else goes on.

use std::{path::Path, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};

use bugle::proto::v1::EmitToUserRequest;
use tonic::Code;

use crate::{
    harness::{Backend, Device, TestServer, damage, execute, new_database, refused, to_user},
    logs::Log,
    stored::{emit_stored, readiness, store},
};

async fn serve(directory: &Path) -> (TestServer, Backend) {
    serve_at(&format!("sqlite:{}", directory.join("bugle.db").display())).await
}

async fn serve_at(url: &str) -> (TestServer, Backend) {
    let server = TestServer::start_with(|config| {
        config.store.url = url.into();
        // A stop that waits for what devices have left behind takes longer than a test waits for anything.
        config.drain.deadline = Duration::from_mins(10);
    });
    let server = server.await;
    let backend = server.backend().await;
    (server, backend)
}

/// A payload that no other message has on its page of the database.
fn large(text: &str) -> String {
    format!("\"{text}-{}\"", "x".repeat(3_000))
}

async fn resuming(server: &TestServer, user: &str, resume: Value) -> Device {
    server.device(user).resume(resume).connect().await.expect("the device connects")
}

/// What `bugle:resumed` says of a user's own room.
async fn resumed(device: &mut Device, user: &str) -> Value {
    device.expect_event("bugle:resumed").await.value()["rooms"][format!("user:{user}")].clone()
}

/// A server on a database in which a message of user `bad` is damaged, whose others are whole, as are those of user `good`.
async fn damaged(directory: &Path) -> (TestServer, Backend, String) {
    let (mut server, backend) = serve(directory).await;
    let mut position = String::new();
    for n in 1..=3 {
        position = emit_stored(&backend, "bad", &large(&format!("bad{n}"))).await.position;
        emit_stored(&backend, "good", &large(&format!("good{n}"))).await;
    }
    drop(backend);
    server.stop();
    server.stopped().await.expect("it stops in order");
    damage(&directory.join("bugle.db"), "\"bad2").await;
    let (server, backend) = serve(directory).await;
    (server, backend, position)
}

#[tokio::test]
async fn a_device_is_told_of_a_damaged_log_once_logged_and_goes_on_with_what_is_live() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = Log::start();
    let (server, backend, position) = damaged(directory.path()).await;
    for _ in 0..3 {
        let mut bad = resuming(&server, "bad", json!({})).await;
        let told = resumed(&mut bad, "bad").await;
        // It is numbered as before the restart, in an epoch of its own.
        let number = position.rsplit('.').next().expect("a number");
        let at = told["position"].as_str().expect("a position");
        assert!(at.ends_with(&format!(".{number}")), "{at}");
        assert_eq!(told, json!({ "recovered": false, "count": 0, "position": at }));
        bad.abort().await;
    }
    let mut bad = resuming(&server, "bad", json!({ "user:bad": position })).await;
    assert_eq!(resumed(&mut bad, "bad").await["recovered"], true, "there is nothing to be read");
    emit_stored(&backend, "bad", "4").await;
    assert_eq!(bad.expect_event("e").await.values()[0], 4);
    let mut good = resuming(&server, "good", json!({})).await;
    for _ in 0..3 {
        good.expect_event("e").await;
    }
    assert_eq!(resumed(&mut good, "good").await["recovered"], true);

    let lines = log.text();
    let errors: Vec<_> = lines.lines().filter(|line| line.contains("cannot be read")).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("room.name=user:bad") && errors[0].contains("ERROR"), "{}", errors[0]);
}

#[tokio::test]
async fn a_device_that_does_not_resume_goes_live_though_its_log_is_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, backend, _) = damaged(directory.path()).await;
    let mut device = server.connect("bad").await;
    emit_stored(&backend, "bad", "4").await;
    assert_eq!(device.expect_event("e").await.json(), "4", "it waits for no read");
    backend.emit_to_user("bad", "plain", "5").await;
    assert_eq!(device.expect_event("plain").await.json(), "5");
    assert_eq!(backend.emit_to_user("bad", "plain", "6").await.enqueued, 1);
}

#[tokio::test]
async fn devices_that_come_and_go_while_their_log_is_damaged_do_not_delay_a_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut server, backend, _) = damaged(directory.path()).await;
    for _ in 0..10 {
        resuming(&server, "bad", json!({})).await.abort().await;
    }
    drop(backend);
    server.stop();
    server.stopped().await.expect("nothing is left of the devices");
}

/// Another process has stored a message that cannot be read.
#[tokio::test]
async fn an_unreadable_message_does_not_refuse_what_is_stored_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = Log::start();
    let (server, backend) = serve(directory.path()).await;
    let mut plain = server.connect("42").await;
    let mut resumes = resuming(&server, "42", json!({})).await;
    resumed(&mut resumes, "42").await;
    let first = emit_stored(&backend, "42", "1").await.position;
    assert_eq!(resumes.expect_event("e").await.values()[0], 1);
    let url = format!("sqlite:{}", directory.path().join("bugle.db").display());
    let mut database = SqliteConnection::connect(&url).await.expect("the database opens");
    let insert = "INSERT INTO messages (room, position, message_id, event, kind, except_users, stored_at, expires_at, payload) \
                  SELECT room, 2, 'x', event, kind, except_users, stored_at, expires_at, 'no JSON' FROM messages WHERE position = 1; \
                  UPDATE mailboxes SET last = 2;";
    database.execute(insert).await.expect("it is stored");

    for number in 3..=4 {
        assert!(emit_stored(&backend, "42", &number.to_string()).await.position.ends_with(&format!(".{number}")));
    }
    let epoch = first.strip_suffix(".1").expect("the first position");
    let told = resumed(&mut resumes, "42").await;
    assert_eq!(told, json!({ "recovered": false, "count": 0, "position": format!("{epoch}.2") }));
    for number in 3..=4 {
        assert_eq!(resumes.expect_event("e").await.values()[0], number);
    }
    for number in [1, 3, 4] {
        assert_eq!(plain.expect_event("e").await.json(), number.to_string());
    }
    assert_eq!(
        log.text().lines().filter(|line| line.contains("room.name=user:42") && line.contains("ERROR")).count(),
        1
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_read_harms_no_room_that_is_looked_up_at_the_same_time() {
    const DEVICES: usize = 10;
    let directory = tempfile::tempdir().expect("a directory");
    let (server, backend) = serve(directory.path()).await;
    for user in ["bad", "good"] {
        emit_stored(&backend, user, "1").await;
    }
    let url = format!("sqlite:{}", directory.path().join("bugle.db").display());
    let mut database = SqliteConnection::connect(&url).await.expect("the database opens");
    database.execute("UPDATE mailboxes SET last = 'x' WHERE room = 'user:bad'").await.expect("it is written");
    let told = join_all((0..DEVICES * 2).map(async |number| {
        let user = if number % 2 == 0 { "bad" } else { "good" };
        let mut device = resuming(&server, user, json!({})).await;
        (
            user,
            device.expect_event("bugle:resumed").ignoring(&["e"]).await.value()["rooms"][format!("user:{user}")]
                .clone(),
        )
    }));
    for (user, told) in told.await {
        if user == "good" {
            assert_eq!((&told["recovered"], &told["count"]), (&json!(true), &json!(1)), "{told}");
        } else {
            assert_eq!(told, json!({ "recovered": false, "count": 0 }), "not even the position is known");
        }
    }
}

/// Emits to a damaged mailbox, among many others: it is refused each time, which is logged once, and the others are stored.
async fn check_damaged_mailbox(url: &str, lose_row: impl AsyncFnOnce()) {
    const CALLERS: usize = 60;
    let log = Log::start();
    let (server, backend) = serve_at(url).await;
    emit_stored(&backend, "bad", "1").await;
    lose_row().await;
    let (is_over, over) = tokio::sync::watch::channel(false);
    let good = join_all((0..CALLERS).map(async |number| {
        while !*over.borrow() {
            emit_stored(&backend, &format!("good{number}"), "1").await;
        }
    }));
    let bad = async {
        // More than are remembered of emits that may be kept all the same.
        join_all((0..CALLERS).map(async |_| {
            for _ in 0..20 {
                let request = EmitToUserRequest { options: Some(store()), ..to_user("bad", "e", "2") };
                refused(Code::Unavailable, backend.notify().emit_to_user(request)).await;
            }
        }))
        .await;
        is_over.send_replace(true);
    };
    tokio::join!(good, bad);
    assert_eq!(readiness(&server).await, 200);
    let lines = log.text();
    let told: Vec<_> = lines.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
    assert!(told.len() == 1 && told[0].contains("nothing can be stored for a room"), "{told:#?}");
}

#[tokio::test]
async fn a_mailbox_that_has_lost_its_last_position_harms_no_other_in_sqlite_and_the_store_stays_ready() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", directory.path().join("bugle.db").display());
    let lose_row = async || {
        let mut database = SqliteConnection::connect(&url).await.expect("the database opens");
        database.execute("DELETE FROM mailboxes WHERE room = 'user:bad'").await.expect("it is deleted");
    };
    check_damaged_mailbox(&url, lose_row).await;
}

#[tokio::test]
async fn a_mailbox_that_has_lost_its_last_position_harms_no_other_in_postgresql_and_the_store_stays_ready() {
    let url = new_database();
    check_damaged_mailbox(&url, async || execute(&url, "DELETE FROM mailboxes WHERE room = 'user:bad'")).await;
}
