use std::{panic::Location, pin::pin, time::Duration};

/// How long a test waits for what should come at once, though the disk or the processor may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a future, no longer than [`PATIENCE`]; then panics with `what` was awaited and where.
#[track_caller]
pub fn deadline<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        // It is dropped after the panic: a server in it tells what it has logged.
        let mut future = pin!(future);
        let output = tokio::time::timeout(PATIENCE, &mut future).await;
        output.unwrap_or_else(|_| panic!("{caller}: waited {PATIENCE:?} in vain for {what}"))
    }
}

/// How long a test waits before it looks again.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until something is so, no longer than [`PATIENCE`]; then panics with `what` was awaited and where.
#[track_caller]
pub fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    eventually_within(PATIENCE, what, is_so)
}

/// The same, no longer than `patience`.
#[track_caller]
pub fn eventually_within(
    patience: Duration,
    what: &str,
    mut is_so: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let looking = async {
            while !is_so().await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let became = tokio::time::timeout(patience, looking).await;
        became.unwrap_or_else(|_| panic!("{caller}: waited {patience:?} in vain for {what}"));
    }
}
