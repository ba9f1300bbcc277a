use std::{future::Future, pin::pin, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// The deadline of a transaction. With the wait for the one before it, for the writer or for a connection an operation has twice as long, as the
/// proto and the README say. A database that pauses for 5 s, as for a checkpoint or a fail-over of its disk, delays what is stored and refuses
/// nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);
/// Once the server is asked to stop, what is under way has this long, and emits that wait.
const STOPPING: Duration = Duration::from_millis(1_200);
/// What else begins after that has this long: a store that works writes what there is to write.
const STEP: Duration = Duration::from_millis(300);
/// All together have this long once the store is closed.
const CLOSING: Duration = Duration::from_millis(500);

/// When operations end.
pub(super) struct Deadlines(watch::Sender<Phase>);

#[derive(Clone, Copy)]
enum Phase {
    Running,
    Stopping { since: Instant },
    Closed { since: Instant },
}

/// What an operation may take.
#[derive(Clone, Copy)]
pub(super) enum Allowance {
    /// To append messages, with the wait for the writer.
    Append,
    /// Another operation, with the wait for the writer or for a connection.
    Other,
    /// One transaction.
    Transaction,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }

    /// The server was asked to stop.
    pub(super) fn stop(&self) {
        self.0.send_if_modified(|phase| {
            let is_running = matches!(phase, Phase::Running);
            if is_running {
                *phase = Phase::Stopping { since: Instant::now() };
            }
            is_running
        });
    }

    /// The store is closed.
    pub(super) fn close(&self) {
        self.0.send_replace(Phase::Closed { since: Instant::now() });
    }

    /// Returns `None` if the work has not ended in time.
    pub(super) async fn within<T>(&self, allowance: Allowance, work: impl Future<Output = T>) -> Option<T> {
        let (begun, mut phase, mut work) = (Instant::now(), self.0.subscribe(), pin!(work));
        loop {
            let end = allowance.end(begun, *phase.borrow_and_update());
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = sleep_until(end) => return None,
                // The sender is kept here.
                _ = phase.changed() => {}
            }
        }
    }
}

impl Allowance {
    fn end(self, begun: Instant, phase: Phase) -> Instant {
        let end = match self {
            Self::Append | Self::Other => begun + PATIENCE * 2,
            Self::Transaction => begun + PATIENCE,
        };
        match (phase, self) {
            (Phase::Running, _) => end,
            (Phase::Stopping { since }, Self::Append) => end.min(since + STOPPING),
            (Phase::Stopping { since }, Self::Other | Self::Transaction) => {
                end.min((since + STOPPING).max(begun + STEP))
            }
            (Phase::Closed { since }, _) => end.min(since + CLOSING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_cuts_what_is_under_way_and_leaves_a_step_to_what_begins_later() {
        let (deadlines, begun) = (Deadlines::new(), Instant::now());
        let forever = || std::future::pending::<()>();
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            deadlines.stop();
        };
        let (under_way, ()) = tokio::join!(deadlines.within(Allowance::Other, forever()), stop);
        assert_eq!((under_way, begun.elapsed()), (None, Duration::from_secs(1) + STOPPING));
        deadlines.within(Allowance::Append, forever()).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1) + STOPPING, "emits are refused at once");
        deadlines.within(Allowance::Other, forever()).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1) + STOPPING + STEP);
        deadlines.close();
        deadlines.within(Allowance::Transaction, forever()).await;
        deadlines.within(Allowance::Transaction, forever()).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1) + STOPPING + STEP + CLOSING);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_in_time_is_answered() {
        let deadlines = Deadlines::new();
        deadlines.close();
        assert_eq!(deadlines.within(Allowance::Transaction, async { 1 }).await, Some(1));
    }
}
