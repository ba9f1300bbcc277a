//! A PostgreSQL that is far away, hangs, or takes long to commit: only what is stored waits for it.

mod hangs;
mod load;
mod lost_connection;
mod messages;
mod stream;
mod uncertain;

use std::{cell::Cell, panic::Location, time::Duration};

use bugle::proto::v1::{EmitToRoomRequest, Receipt};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    harness::{
        Backend, Device, DeviceBuilder, SlowProxy, TestServer, eventually_within, new_database, to_room, token_with,
    },
    stored::{readiness, store},
};

/// The delay of each direction; a round trip takes twice as long.
const DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(5), Duration::from_millis(20)];
/// The time for an answer that needs no store, while that hangs: less than the store's own deadlines, which are 8 and 16 s. An answer that
/// waits for the store comes later.
const WITHOUT_STORE: Duration = Duration::from_secs(3);
/// The time for an answer of the store: more than its own deadlines.
const STORE_PATIENCE: Duration = Duration::from_mins(1);

/// A server whose store is behind a proxy. The server is dropped first.
struct FarStore {
    server: TestServer,
    backend: Backend,
    proxy: SlowProxy,
    /// The URL of the database itself.
    database: String,
}

impl FarStore {
    /// With a new, empty database.
    async fn start(delay: Duration) -> Self {
        let database = new_database();
        let proxy = SlowProxy::start(&database, delay).await;
        let server = TestServer::start_with(|config| config.store.url = proxy.url().into()).await;
        let backend = server.backend().await;
        Self { server, backend, proxy, database }
    }

    /// Waits until the server has noticed that the store can be reached again.
    async fn is_back(&self) {
        let is_back = async || readiness(&self.server).await == 200;
        eventually_within(STORE_PATIENCE, "the store to be back", is_back).await;
    }

    /// Stores an event `stored` for a room; the emit must be accepted.
    #[track_caller]
    fn store(&self, room: &str, json: &str) -> impl Future<Output = Receipt> + use<> {
        let request = EmitToRoomRequest { options: Some(store()), ..to_room(room, "stored", json) };
        let mut notify = self.backend.notify();
        of_store("a stored emit", async move {
            let response = notify.emit_to_room(request).await.expect("the emit is accepted");
            let receipt = response.into_inner().receipt.expect("there is a receipt");
            assert!(receipt.stored);
            receipt
        })
    }
}

/// Waits for what needs no store while that hangs.
#[track_caller]
fn without_store<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let (caller, future) = (Location::caller(), Box::pin(future));
    async move {
        let output = timeout(WITHOUT_STORE, future).await;
        output.unwrap_or_else(|_| panic!("{caller}: {what} waits for the store"))
    }
}

/// Waits for what needs the store.
#[track_caller]
fn of_store<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let (caller, future) = (Location::caller(), Box::pin(future));
    async move {
        let output = timeout(STORE_PATIENCE, future).await;
        output.unwrap_or_else(|_| panic!("{caller}: waited {STORE_PATIENCE:?} in vain for {what}"))
    }
}

/// A device of a user with the role `staff`.
fn staff(server: &TestServer, user: &str) -> DeviceBuilder {
    server.device(user).token(token_with(&json!({ "sub": user, "role": "staff" })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_resume_connect_while_broadcasts_go_on() {
    const DEVICES: usize = 60;
    for delay in DELAYS {
        let far = FarStore::start(delay).await;
        let (connected, resumed) = (Cell::new(0), Cell::new(0));
        let connecting = join_all((0..DEVICES).map(async |number| {
            let user = format!("u{number}");
            let mut device = resuming(&far.server, &user).await;
            connected.set(connected.get() + 1);
            let last = be_resumed(&mut device, &user).await;
            resumed.set(resumed.get() + 1);
            (device, last)
        }));
        let broadcasting = async {
            let (mut broadcasts, mut meanwhile) = (0, 0);
            while resumed.get() < DEVICES {
                let are_coming = connected.get() > 0;
                far.backend.broadcast("b", &broadcasts.to_string()).await;
                broadcasts += 1;
                meanwhile += usize::from(are_coming && resumed.get() < DEVICES);
            }
            (broadcasts, meanwhile)
        };
        let (devices, (broadcasts, meanwhile)) = tokio::join!(connecting, broadcasting);
        // If joins read the store under the room lock, a Broadcast waits for all of them, and there are few: up to 18 were seen then, and at
        // least 160 if not.
        assert!(meanwhile > DEVICES / 2, "{meanwhile} Broadcasts meanwhile, with a delay of {delay:?}");
        assert_eq!(far.backend.broadcast("b", &broadcasts.to_string()).await.enqueued, DEVICES as u64);
        for (mut device, mut last) in devices {
            while last != Some(broadcasts) {
                let event = device.expect_event("b").await;
                last = Some(next_broadcast(event.json(), last));
            }
        }
    }
}

/// Connects a device that resumes for the first time.
async fn resuming(server: &TestServer, user: &str) -> Device {
    server.device(user).resume(json!({})).connect().await.expect("the device connects")
}

/// Waits until a device is told that it has missed nothing. Returns the last Broadcast that it has got.
async fn be_resumed(device: &mut Device, user: &str) -> Option<u64> {
    let mut last = None;
    loop {
        let event = device.try_next(STORE_PATIENCE).await.expect("an event comes");
        if event.name == "bugle:resumed" {
            assert_eq!(event.value()["rooms"][format!("user:{user}")]["recovered"], true, "{}", event.raw);
            return last;
        }
        last = Some(next_broadcast(event.json(), last));
    }
}

/// The number of a Broadcast, which must follow the last one.
fn next_broadcast(json: &str, last: Option<u64>) -> u64 {
    let number = json.parse().expect("a number");
    assert!(last.is_none_or(|last| last + 1 == number), "{number} came after {last:?}");
    number
}
