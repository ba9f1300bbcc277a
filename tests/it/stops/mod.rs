//! A server that is asked to stop under load while its store fails.

mod faults;
mod load;

pub use faults::Fault;
use load::Load;

use crate::harness::Ended;

/// When the server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As soon as the store fails.
    AtOnce,
    /// When the server has noticed that it fails: it is not ready any more.
    Noticed,
}

/// Starts a server and a load, has the fault strike, and stops the server with SIGTERM. The error is why this machine cannot do that.
pub async fn stop_in(fault: Fault, moment: Moment) -> Result<Ended, String> {
    let mut scene = fault.prepare().await?;
    if !fault.strikes_before_start() {
        scene.server.is_ready(true).await;
    }
    let load = Load::start(&scene.server).await;
    load.is_under_way(!fault.strikes_before_start()).await;
    scene.strike().await;
    if moment == Moment::Noticed {
        scene.server.is_ready(false).await;
    }
    load.stop_at_errors();
    let ended = scene.server.stop().await;
    load.end().await;
    Ok(ended)
}
