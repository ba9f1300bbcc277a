//! What backends do to a server, and what that costs it.

use std::time::Duration;

use bugle::bench::{Backend, Fleet, process, user};
use tokio::task::JoinSet;

use crate::{payload::ordinary, server::expect};

/// Of an emit.
pub const ACCEPTED: &str = "the emit is accepted";

/// Makes calls, from several callers at one time.
pub async fn call<F>(
    backend: &Backend,
    callers: usize,
    calls: usize,
    one: impl Fn(Backend, usize) -> F + Copy + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut calling = JoinSet::new();
    for caller in 0..callers {
        let backend = backend.clone();
        calling.spawn(async move {
            for number in (caller..calls).step_by(callers) {
                one(backend.clone(), number).await;
            }
        });
    }
    calling.join_all().await;
}

/// Emits to so many users, each with one device, in turn.
pub async fn emit_to_users(backend: &Backend, callers: usize, emits: usize, users: usize) {
    let emit = move |mut backend: Backend, number| async move {
        let receipt = backend.emit_to_user(&user(number % users), ordinary(number)).await.expect(ACCEPTED);
        assert_eq!((receipt.matched, receipt.enqueued), (1, 1));
    };
    call(backend, callers, emits, emit).await;
}

/// Emits to the room that all devices are in until there were so many deliveries, never further ahead of the devices than so many
/// emits.
pub async fn fill(backend: &mut Backend, fleet: &Fleet, devices: usize, deliveries: usize, ahead: usize) {
    let begun = fleet.tally().arrived();
    let emits = deliveries / devices;
    for number in 1..=emits {
        let receipt = backend.emit_to_room("shared:room", ordinary(number)).await.expect(ACCEPTED);
        assert_eq!(receipt.enqueued, devices as u64);
        let most_missing = if number == emits { 0 } else { ahead - 1 };
        expect(fleet, begun + (number.saturating_sub(most_missing) * devices) as u64).await;
    }
}

/// What a process spends on one thing, in microseconds.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Its own time.
    pub user: f64,
    /// The kernel's for it.
    pub kernel: f64,
}

impl Cost {
    /// Both together.
    pub fn total(self) -> f64 {
        self.user + self.kernel
    }
}

/// What the process spends on one of so many things, its own time and the kernel's for it, in microseconds.
pub async fn cost(process: u32, things: usize, work: impl Future<Output = ()>) -> f64 {
    cost_by_part(process, things, work).await.total()
}

/// What the process spends on one of so many things.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub async fn cost_by_part(process: u32, things: usize, work: impl Future<Output = ()>) -> Cost {
    let spent = || process::cpu_time(process).expect("the process runs");
    let before = spent();
    work.await;
    let after = spent();
    let each = |before, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / things as f64;
    Cost { user: each(before.user, after.user), kernel: each(before.kernel, after.kernel) }
}
