use std::{panic::Location, time::Duration};

/// How long a test waits for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for a future, no longer than [`PATIENCE`]; then panics with `what` was awaited and where.
#[track_caller]
pub fn deadline<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        let output = tokio::time::timeout(PATIENCE, future).await;
        output.unwrap_or_else(|_| panic!("{caller}: waited {PATIENCE:?} in vain for {what}"))
    }
}
