//! A server that is asked to stop under load while its store fails.

mod faults;
mod in_force;
mod load;

pub use faults::Fault;
use load::{Emits, Load};

use std::time::Duration;

use bugle::proto::v1::{EmitOptions, EmitToUserRequest};
use tokio::time::{interval, timeout};
use tonic::Code;

use crate::harness::{Ended, PATIENCE, ServerProcess, eventually, to_user};

/// When the server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As soon as the fault is in force.
    AtOnce,
    /// When the server has noticed it.
    Noticed,
}

/// Starts a server and a load, has the fault strike, and stops the server with SIGTERM. The error is why this machine cannot do that.
pub async fn stop_in(fault: Fault, moment: Moment) -> Result<Ended, String> {
    let mut scene = fault.prepare().await?;
    if !fault.strikes_before_start() {
        scene.server.is_ready(true).await;
    }
    let load = Load::start(&scene.server).await;
    load.is_under_way(emits_before(fault)).await;
    scene.strike().await;
    scene.is_in_force().await;
    if moment == Moment::Noticed {
        is_noticed(fault, &scene.server).await;
    }
    load.stop_at_errors();
    let ended = scene.server.stop().await;
    load.end().await;
    Ok(ended)
}

/// What becomes of stored emits before the fault strikes, or before the server is stopped if it struck before the start.
fn emits_before(fault: Fault) -> Emits {
    if fault == Fault::PostgresHangsSinceStart {
        Emits::Waiting
    } else if fault.strikes_before_start() {
        Emits::Refused
    } else {
        Emits::Stored
    }
}

/// Waits until the server has noticed the fault.
async fn is_noticed(fault: Fault, server: &ServerProcess) {
    if fault == Fault::PostgresHangsSinceStart {
        // It is never ready. Emits are refused once the first attempt to connect has failed.
        is_refused(server).await;
    } else if fault == Fault::PostgresTableLocked {
        is_refused_while_ready(server).await;
    } else if fault == Fault::SqliteDamaged {
        let is_logged = async || server.log().contains("the stored messages of a room cannot be read");
        eventually("the server to log that messages cannot be read", is_logged).await;
    } else {
        server.is_ready(false).await;
    }
}

/// Waits until a stored emit is refused, at the store's deadline at the latest.
async fn is_refused(server: &ServerProcess) {
    let (backend, options) = (server.backend().await, EmitOptions { store: true, ..EmitOptions::default() });
    let request = EmitToUserRequest { options: Some(options), ..to_user("0", "e", "1") };
    let emitted = timeout(4 * PATIENCE, async { backend.notify().emit_to_user(request).await }).await;
    let emitted = emitted.expect("a stored emit has a deadline");
    assert_eq!(emitted.expect_err("the store is out of reach").code(), Code::Unavailable);
}

/// The same while the server is ready.
async fn is_refused_while_ready(server: &ServerProcess) {
    let (mut looks, mut ticks) = (0, interval(Duration::from_millis(50)));
    let looking = async {
        loop {
            ticks.tick().await;
            assert_eq!(server.readiness().await, 200, "only other tables are locked");
            looks += 1;
        }
    };
    tokio::select! {
        () = is_refused(server) => {}
        never = looking => never,
    }
    assert!(looks >= 5, "{looks} looks");
}
