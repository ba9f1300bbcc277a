//! While the database hangs, what is not stored goes on.

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest, Receipt};
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;
use tonic::Code;

use super::{DELAYS, FarStore, STORE_PATIENCE, of_store, staff, without_store};
use crate::{
    acks::in_background,
    harness::{Backend, Device, EVERY_WAY, TestServer, to_user},
    stored::store,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_stops_neither_plain_connects_nor_plain_emits() {
    join_all(DELAYS.map(|delay| hang_and_go_on(delay, HangsAt::Once, 1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emit_that_was_refused_though_it_was_committed_comes_once_and_in_its_place() {
    join_all(DELAYS.map(|delay| hang_and_go_on(delay, HangsAt::Committed, 1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emit_that_was_refused_though_it_was_committed_comes_in_its_place_after_many_refusals() {
    join_all(DELAYS.map(|delay| hang_and_go_on(delay, HangsAt::Committed, 200))).await;
}

/// When the database begins to hang.
#[derive(Clone, Copy)]
enum HangsAt {
    Once,
    /// When it has committed the first emit that is refused then: the answer is lost.
    Committed,
}

/// Stores three messages, has a fourth refused because the database hangs, and repeats that when it goes on. `refusals`: so many later emits
/// to the same user are refused meanwhile.
async fn hang_and_go_on(delay: Duration, hangs_at: HangsAt, refusals: usize) {
    let far = FarStore::start(delay).await;
    let FarStore { server, backend, proxy, .. } = &far;
    let mut live = server.connect("42").await;
    let mut position = String::new();
    for json in ["1", "2", "3"] {
        position = far.store("user:42", json).await.position;
        assert_eq!(live.expect_event("stored").await.json(), json);
    }
    let refused = if let HangsAt::Committed = hangs_at {
        let hangs = proxy.hang_after(&["\"fourth\"", "COMMIT"]);
        let refused = begin_stored(backend, "\"fourth\"");
        of_store("the commit", hangs).await;
        refused
    } else {
        proxy.hang();
        begin_stored(backend, "\"fourth\"")
    };
    everything_plain(server, backend, "unnoticed").await;
    expect_refusal(refused).await;
    everything_plain(server, backend, "noticed").await;
    for _ in 0..refusals {
        expect_refusal(begin_stored(backend, "\"refused\"")).await;
    }

    proxy.go_on();
    far.is_back().await;
    let fourth = of_store("a stored emit", begin_stored(backend, "\"fourth\"")).await.expect("the call ends");
    assert_eq!(fourth.expect("the store is back").duplicate, matches!(hangs_at, HangsAt::Committed));
    far.store("user:42", "5").await;
    let begin = format!("{}.0", position.rsplit_once('.').expect("a position").0);
    let resumed = server.device("42").resume(json!({ "user:42": begin })).connect().await;
    let mut resumed = resumed.expect("the device connects");
    for json in ["1", "2", "3", "\"fourth\"", "5"] {
        let event = resumed.try_next(STORE_PATIENCE).await.expect("a message is replayed");
        assert_eq!(event.values()[0].to_string(), json, "with a delay of {delay:?}");
    }
    let event = resumed.try_next(STORE_PATIENCE).await.expect("the device is told");
    assert_eq!(event.name, "bugle:resumed");
    far.store("user:42", "6").await;
    assert_eq!(resumed.expect_event("stored").await.values()[0], json!(6));
    let mut got = Vec::new();
    while got.last().is_none_or(|json| json != "6") {
        got.push(live.expect_event("stored").ignoring(&["all"]).await.json().to_owned());
    }
    assert_eq!(got, ["\"fourth\"", "5", "6"], "with a delay of {delay:?}");
}

/// Begins a stored emit to user 42. Its payload is its idempotency key, too.
pub(super) fn begin_stored(backend: &Backend, json: &str) -> JoinHandle<tonic::Result<Receipt>> {
    let options = Some(EmitOptions { idempotency_key: json.into(), ..store() });
    let request = EmitToUserRequest { options, ..to_user("42", "stored", json) };
    let mut notify = backend.notify();
    in_background(async move { Ok(notify.emit_to_user(request).await?.into_inner().receipt.expect("a receipt")) })
}

pub(super) async fn expect_refusal(emit: JoinHandle<tonic::Result<Receipt>>) {
    let status = of_store("the refusal", emit).await.expect("the call ends").expect_err("the store hangs");
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
}

/// Connects devices, joins a room, and emits to all kinds of audiences. None of it may wait for the store.
async fn everything_plain(server: &TestServer, backend: &Backend, phase: &str) {
    let team = format!("team:{phase}");
    let mut devices = Vec::new();
    for (index, (transport, protocol)) in EVERY_WAY.into_iter().enumerate() {
        let user = format!("{phase}-{index}");
        let device = staff(server, &user).transport(transport).protocol(protocol);
        let mut device = without_store("a connect", device.connect()).await.expect("the device connects");
        assert_eq!(without_store("JoinRoom", backend.join_room(&team, &user)).await, 1);
        let receipt = without_store("EmitToUser", backend.emit_to_user(&user, "own", "1")).await;
        assert_eq!(receipt.enqueued, 1);
        without_store("an event", device.expect_event("own").into_future()).await;
        devices.push(device);
    }
    for room in [&team, "role:staff"] {
        let receipt = without_store("EmitToRoom", backend.emit_to_room(room, room, "1")).await;
        assert!(receipt.enqueued >= devices.len() as u64, "{receipt:?}");
    }
    let receipt = without_store("Broadcast", backend.broadcast("all", "1")).await;
    assert!(receipt.enqueued > devices.len() as u64, "{receipt:?}");
    for device in &mut devices {
        for event in [&team, "role:staff", "all"] {
            without_store("an event", device.expect_event(event).into_future()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_holds_up_plain_events_to_a_device_that_resumes_in_none_of_its_rooms() {
    const ROOMS: [&str; 2] = ["user:42", "role:staff"];
    join_all(DELAYS.map(async |delay| {
        let far = FarStore::start(delay).await;
        let mut said = serde_json::Map::new();
        for room in ROOMS {
            said.insert(room.into(), json!(far.store(room, "1").await.position));
            far.store(room, "2").await;
        }
        far.proxy.hang();
        let resuming = staff(&far.server, "42").resume(json!(said)).connect();
        let mut device = without_store("a connect", resuming).await.expect("the device connects");
        for is_noticed in [false, true] {
            if is_noticed {
                expect_refusal(begin_stored(&far.backend, "\"refused\"")).await;
            }
            for room in ROOMS {
                plain_arrives(&far.backend, room, &mut [&mut device]).await;
            }
        }
        far.proxy.go_on();
        for _ in ROOMS {
            let event = device.try_next(STORE_PATIENCE).await.expect("a message is replayed");
            assert_eq!((&*event.name, &event.values()[0]), ("stored", &json!(2)), "with a delay of {delay:?}");
        }
        let told = device.try_next(STORE_PATIENCE).await.expect("the device is told");
        assert_eq!(told.name, "bugle:resumed");
        for room in ROOMS {
            assert_eq!(
                (&told.value()["rooms"][room]["recovered"], &told.value()["rooms"][room]["count"]),
                (&json!(true), &json!(1))
            );
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_commit_holds_up_neither_plain_emits_to_the_room_nor_joins() {
    for delay in DELAYS {
        let far = FarStore::start(delay).await;
        let mut first = staff(&far.server, "1").connect().await.expect("the device connects");
        far.backend.join_room("team:1", "1").await;
        for room in ["role:staff", "team:1"] {
            far.store(room, "0").await;
            first.expect_event("stored").await;
        }

        let commit = begin_slow_commit(&far, "role:staff").await;
        plain_arrives(&far.backend, "role:staff", &mut [&mut first]).await;
        let mut second =
            without_store("a connect", staff(&far.server, "2").connect()).await.expect("the device connects");
        plain_arrives(&far.backend, "role:staff", &mut [&mut first, &mut second]).await;
        end_slow_commit(&far, commit, &mut [&mut first, &mut second]).await;

        let commit = begin_slow_commit(&far, "team:1").await;
        plain_arrives(&far.backend, "team:1", &mut [&mut first]).await;
        assert_eq!(without_store("JoinRoom", far.backend.join_room("team:1", "2")).await, 1);
        plain_arrives(&far.backend, "team:1", &mut [&mut first, &mut second]).await;
        end_slow_commit(&far, commit, &mut [&mut first, &mut second]).await;
    }
}

/// Begins a stored emit to a room. The database hangs with its commit.
async fn begin_slow_commit(far: &FarStore, room: &str) -> JoinHandle<Receipt> {
    let payload = format!("\"slow in {room}\"");
    let hangs = far.proxy.hang_at(&[&payload, "COMMIT"]);
    let commit = in_background(far.store(room, &payload));
    of_store("the commit", hangs).await;
    commit
}

/// The emit is sent to the devices that are in the room now.
async fn end_slow_commit(far: &FarStore, commit: JoinHandle<Receipt>, devices: &mut [&mut Device]) {
    assert!(!commit.is_finished(), "the commit hangs");
    far.proxy.go_on();
    let receipt = commit.await.expect("the call ends");
    assert_eq!((receipt.stored, receipt.enqueued), (true, devices.len() as u64));
    for device in devices {
        assert!(device.expect_event("stored").await.json().starts_with("\"slow in "));
    }
}

/// Sends a plain emit to a room of these devices while the database hangs.
async fn plain_arrives(backend: &Backend, room: &str, devices: &mut [&mut Device]) {
    let receipt = without_store("EmitToRoom", backend.emit_to_room(room, "plain", "1")).await;
    assert_eq!((receipt.matched, receipt.enqueued), (devices.len() as u64, devices.len() as u64));
    for device in devices {
        without_store("an event", device.expect_event("plain").into_future()).await;
    }
}
