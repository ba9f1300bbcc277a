//! A standby of PostgreSQL that lags when it takes the place of the primary: what was stored last is lost, and devices that had it are told.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::acks::in_background;
use crate::harness::{
    Backend, Device, PATIENCE, Postgres, SlowProxy, TestServer, count, deadline, eventually_within, execute, to_user,
};
use crate::resume::kept;
use crate::stored::{emit_stored, readiness, store};

const ROOM: &str = "user:42";
/// Messages that the device gets before the standby is cut off, and after it.
const SOME: usize = 20;

/// A server whose primary is gone and whose standby was promoted, and what a device has got: numbers with their positions.
struct Promoted {
    standby: Postgres,
    proxy: SlowProxy,
    server: TestServer,
    device: Device,
    got: Vec<(u64, String)>,
    /// The number of the last message that the standby has.
    last: u64,
    /// Its URL.
    url: String,
}

/// Stores messages one after another until one is refused. Returns how many were stored.
fn emit_all(backend: Backend) -> JoinHandle<u64> {
    in_background(async move {
        for number in 1.. {
            let mut request = to_user("42", "e", &number.to_string());
            request.options = Some(store());
            if backend.notify().emit_to_user(request).await.is_err() {
                return number - 1;
            }
        }
        unreachable!("there is no last number")
    })
}

async fn take(device: &mut Device, got: &mut Vec<(u64, String)>, events: usize) {
    for _ in 0..events {
        got.push(kept(&device.expect_event("e").ignoring(&["bugle:resumed"]).await));
    }
}

/// Stores messages, cuts the standby off in their middle, and promotes it when the primary was killed.
async fn promote() -> Promoted {
    let primary = Postgres::start(&["-c", "ssl=off"], |_| ());
    let standby = primary.start_standby();
    let database = primary.new_database();
    let proxy = SlowProxy::start(&primary.url(&database), Duration::ZERO).await;
    let server = TestServer::start_with(|config| config.store.url = proxy.url().into()).await;
    let mut device = server.device("42").resume(json!({})).connect().await.expect("it connects");
    let (mut got, emitting) = (Vec::new(), emit_all(server.backend().await));
    take(&mut device, &mut got, SOME).await;
    let of_standby = standby.url("postgres");
    for sql in ["ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"] {
        execute(&of_standby, sql);
    }
    let cut = async {
        while count(&of_standby, "SELECT count(*) FROM pg_stat_wal_receiver") > 0 {
            take(&mut device, &mut got, 1).await;
        }
    };
    deadline("the standby to be cut off", cut).await;
    take(&mut device, &mut got, SOME).await;
    primary.kill_9();
    let stored = deadline("an emit to be refused", emitting).await.expect("it does not panic");
    let left = usize::try_from(stored).expect("there are few") - got.len();
    take(&mut device, &mut got, left).await;
    execute(&of_standby, "SELECT pg_promote()");
    let url = standby.url(&database);
    let last = count(&url, &format!("SELECT last FROM mailboxes WHERE room = '{ROOM}'"));
    assert!(last > 0 && last < stored, "the standby has {last} of {stored}");
    Promoted { standby, proxy, server, device, got, last, url }
}

async fn is_back(server: &TestServer) {
    eventually_within(2 * PATIENCE, "the store to be back", async || readiness(server).await == 200).await;
}

/// Devices that come back are told whether what they have seen is there, though another message has its number by now, and get what is stored then.
async fn expect_told(server: &TestServer, got: &[(u64, String)], last: u64) {
    let backend = server.backend().await;
    let receipt = emit_stored(&backend, "42", "0").await;
    assert!(receipt.position.ends_with(&format!(".{}", last + 1)), "{}", receipt.position);
    let resume = async |number: u64| {
        let (_, position) = got.iter().find(|(own, _)| *own == number).expect("it came");
        let device = server.device("42").resume(json!({ ROOM: position })).connect();
        let mut device = device.await.expect("it connects");
        let resumed = device.expect_event("bugle:resumed").ignoring(&["e"]).await.value();
        (device, resumed["rooms"][ROOM]["recovered"] == true)
    };
    let (mut behind, is_recovered) = resume(last).await;
    assert!(is_recovered, "the standby has what it has seen");
    let (mut ahead, is_recovered) = resume(last + 1).await;
    assert!(!is_recovered, "the standby has never had what it has seen");
    let receipt = emit_stored(&backend, "42", "-1").await;
    for device in [&mut behind, &mut ahead] {
        let event = device.expect_event("e").await;
        assert_eq!((&event.values()[0], &event.values()[1]["position"]), (&json!(-1), &json!(receipt.position)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_led_to_a_standby_that_lagged_tells_devices_that_come_back() {
    let mut promoted = promote().await;
    promoted.proxy.lead_to(([127, 0, 0, 1], promoted.standby.port).into());
    is_back(&promoted.server).await;
    expect_told(&promoted.server, &promoted.got, promoted.last).await;
    let event = promoted.device.expect_event("e").await;
    assert_eq!(kept(&event).0, 0, "a device that has stayed gets it, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_started_over_a_standby_that_lagged_tells_devices_that_come_back() {
    let mut promoted = promote().await;
    promoted.server.stop();
    promoted.server.stopped().await.expect("it stops in order");
    let server = TestServer::start_with(|config| config.store.url = promoted.url.into()).await;
    is_back(&server).await;
    expect_told(&server, &promoted.got, promoted.last).await;
}
