//! Everything at one time, on a database that is very far away.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;

use super::{FarStore, STORE_PATIENCE, of_store, resuming, staff};
use crate::harness::{Backend, Device, answer, to_users};

const DEVICES: usize = 500;
const EMITTERS: usize = 8;
/// Rounds of each emitter.
const ROUNDS: usize = 4;
const DELAY: Duration = Duration::from_millis(300);

/// What has been answered.
#[derive(Default)]
struct Answered {
    plain: AtomicUsize,
    /// Plain emits to the room of the first stored one that were answered before it.
    before_stored: AtomicUsize,
    is_stored: AtomicBool,
}

/// Only memory is touched under a room lock: whatever a stored emit waits for, plain emits to its room that begin after it are answered before
/// it, and so are joins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_emits_and_joins_wait_for_no_stored_emit_of_their_room() {
    let far = FarStore::start(Duration::ZERO).await;
    let mut devices = crowd(&far).await;
    far.proxy.set_delay(DELAY);
    let answered = Answered::default();
    let begun = far.proxy.sees(&["\"first in role:staff\""]);
    let storing = async {
        let receipt = far.store("role:staff", "\"first in role:staff\"").await;
        answered.is_stored.store(true, Ordering::SeqCst);
        assert_eq!(receipt.enqueued, DEVICES as u64);
        for room in ["team:0", "role:staff", "user:0"] {
            far.store(room, &format!("\"later in {room}\"")).await;
        }
    };
    let others = async {
        of_store("a stored emit to begin", begun).await;
        let emitting = join_all((0..EMITTERS).map(|emitter| emit(&far.backend, emitter, &answered)));
        let users: Vec<_> = (0..10).map(|number| format!("resuming-{number}")).collect();
        let coming = join_all(users.iter().map(|user| resuming(&far.server, user)));
        tokio::join!(emitting, joins(&far), coming).2
    };
    let ((), coming) = tokio::join!(storing, others);
    assert_eq!(answered.plain.load(Ordering::SeqCst), EMITTERS * ROUNDS * 5);
    assert!(answered.before_stored.load(Ordering::SeqCst) > 0, "plain emits wait for the commit of a stored one");

    far.proxy.set_delay(Duration::ZERO);
    for mut device in coming {
        while device.try_next(STORE_PATIENCE).await.expect("an event comes").name != "bugle:resumed" {}
    }
    far.backend.emit_to_room("role:staff", "end", "0").await;
    let mut first = None;
    for device in &mut devices {
        let events = events_of_room(device).await;
        assert_eq!(*first.get_or_insert(events.clone()), events, "all devices get the events of a room in one order");
    }
    check_order(&first.unwrap_or_default());
}

/// Connected devices of users 0 to 499 with the role `staff`, which are in four teams. All that the store needs for one message is prepared.
async fn crowd(far: &FarStore) -> Vec<Device> {
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let user = number.to_string();
        devices.push(staff(&far.server, &user).connect().await.expect("the device connects"));
        far.backend.join_room(&format!("team:{}", number % 4), &user).await;
    }
    for room in ["team:0", "role:staff", "user:0"] {
        far.store(room, &format!("\"before in {room}\"")).await;
    }
    devices
}

/// Sends plain emits to all kinds of audiences, first to the room of the stored one.
async fn emit(backend: &Backend, emitter: usize, answered: &Answered) {
    for round in 0..ROUNDS {
        let json = format!("[{emitter},{round}]");
        let receipt = backend.emit_to_room("role:staff", "staff", &json).await;
        assert_eq!(receipt.enqueued, DEVICES as u64);
        if !answered.is_stored.load(Ordering::SeqCst) {
            answered.before_stored.fetch_add(1, Ordering::SeqCst);
        }
        assert!(backend.emit_to_room(&format!("team:{}", round % 4), "team", &json).await.enqueued > 0);
        assert_eq!(backend.emit_to_user(&emitter.to_string(), "own", &json).await.enqueued, 1);
        assert!(backend.broadcast("all", &json).await.enqueued >= DEVICES as u64);
        let response = answer(backend.notify().emit_to_users(to_users(&["0", "1", "2"], "users", &json))).await;
        assert_eq!(response.expect("the call is accepted").total.expect("there is a total").enqueued, 3);
        answered.plain.fetch_add(5, Ordering::SeqCst);
    }
}

/// Puts users into rooms, those of stored emits among them, and connects plain devices.
async fn joins(far: &FarStore) {
    for number in 1..20 {
        let user = (number * 4 + 1).to_string();
        assert_eq!(far.backend.join_room("team:0", &user).await, 1);
        assert_eq!(far.backend.join_room("team:late", &user).await, 1);
        far.server.connect(&format!("plain-{number}")).await;
    }
}

/// The payloads that a device was sent in the room, until the end.
async fn events_of_room(device: &mut Device) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let event = device.next_event().await;
        match &*event.name {
            "staff" => events.push(event.json().to_owned()),
            "stored" if event.json().contains("role:staff") => events.push(event.json().to_owned()),
            "end" => return events,
            _ => {}
        }
    }
}

/// Nothing is missing, and what one emitter has sent is in its order.
fn check_order(events: &[String]) {
    assert_eq!(events.len(), EMITTERS * ROUNDS + 3, "three were stored");
    for emitter in 0..EMITTERS {
        let prefix = format!("[{emitter},");
        let own = events.iter().filter(|json| json.starts_with(&prefix));
        assert!(own.eq((0..ROUNDS).map(|round| format!("{prefix}{round}]")).collect::<Vec<_>>().iter()), "{events:?}");
    }
}
