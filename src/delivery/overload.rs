use std::{
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use transport::QueuedBytes;

use super::{Delivery, devices::STRETCH};
use crate::message::{CloseCode, CloseReason, RoomName, UserId};
use crate::telemetry;

/// The transports of closed connections have this long to end and free their queues before the total is looked at again: longer than
/// devices are given to take leave.
const PAUSE: Duration = Duration::from_secs(1);

impl Delivery {
    /// Closes the connections with the largest backlogs as slow whenever all queues together exceed their bound, until a stop is asked for.
    pub(super) async fn bound_queues(self, queued: Arc<QueuedBytes>) {
        let trimming = async {
            loop {
                queued.exceeded().await;
                self.trim_queues(&queued).await;
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = trimming => {}
            () = self.inner.lifecycle.stopping() => {}
        }
    }

    /// Closes connections until what is left is less than 90 % of the bound.
    async fn trim_queues(&self, queued: &QueuedBytes) {
        let mut backlogs = Vec::new();
        for (index, member) in self.hub().members(&RoomName::everyone()).into_iter().enumerate() {
            if index % STRETCH == STRETCH - 1 {
                tokio::task::yield_now().await;
            }
            let backlog = member.connection().backlog();
            if backlog > 0 {
                backlogs.push((member, backlog));
            }
        }
        let (total, bound) = (queued.total(), queued.bound());
        let reason =
            CloseReason::new(CloseCode::Slow, "too much waits for all devices together, and most for this one");
        let mut closed: u64 = 0;
        for member in largest(backlogs, |member| member.user().clone(), total, bound / 10 * 9) {
            closed += u64::from(self.hub().close(&member, &reason));
        }
        if closed > 0 {
            telemetry::queues_trimmed(closed);
            tracing::warn!(
                connections.closed = closed,
                queues.total_bytes = total,
                queues.bound_bytes = bound,
                "clients.queue_bytes_total was exceeded: closed the slowest devices"
            );
        }
    }
}

/// The connections to close until less than `target` of `total` bytes is left: always the largest of the user with the largest total.
fn largest<T>(backlogs: Vec<(T, u64)>, user_of: impl Fn(&T) -> UserId, mut total: u64, target: u64) -> Vec<T> {
    let mut users = HashMap::<UserId, (u64, Vec<(T, u64)>)>::new();
    for (connection, backlog) in backlogs {
        let (of_user, connections) = users.entry(user_of(&connection)).or_default();
        *of_user += backlog;
        connections.push((connection, backlog));
    }
    for (_, connections) in users.values_mut() {
        connections.sort_by_key(|(_, backlog)| *backlog);
    }
    let mut order: BinaryHeap<_> = users.iter().map(|(user, (of_user, _))| (*of_user, user.clone())).collect();
    let mut closing = Vec::new();
    while total >= target
        && let Some((of_user, user)) = order.pop()
    {
        if let Some((connection, backlog)) = users.get_mut(&user).and_then(|(_, connections)| connections.pop()) {
            closing.push(connection);
            total = total.saturating_sub(backlog);
            order.push((of_user.saturating_sub(backlog), user));
        }
    }
    closing
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::config::Config;
    use crate::delivery::{Deps, tests::deps};
    use crate::hub::fake::{Behaviour, FakeConnection};
    use crate::lifecycle::Lifecycle;

    /// A device with a queue of `bytes` until it is closed.
    struct Backlog {
        bytes: u64,
        queued: Arc<QueuedBytes>,
        closed: Mutex<Option<CloseCode>>,
    }

    fn fake(bytes: u64, queued: &Arc<QueuedBytes>) -> Arc<FakeConnection<Backlog>> {
        queued.add(usize::try_from(bytes).unwrap());
        Arc::new(FakeConnection::new(Backlog { bytes, queued: queued.clone(), closed: Mutex::default() }))
    }

    impl Behaviour for Backlog {
        fn backlog(&self) -> u64 {
            self.bytes
        }

        fn close(&self, reason: &CloseReason) {
            *self.closed.lock() = Some(reason.code);
            self.queued.remove(usize::try_from(self.bytes).unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_backlogs_are_closed_as_slow_when_all_queues_exceed_the_bound() {
        let config = Config::defaults().unwrap();
        let queued = QueuedBytes::new(100);
        let lifecycle = Lifecycle::new();
        let delivery = Delivery::new(Deps { queued: queued.clone(), ..deps(&config, &lifecycle) });
        let mut admitted = Vec::new();
        for (user, backlog) in [("1", 60), ("2", 40), ("2", 0), ("3", 0)] {
            let device = fake(backlog, &queued);
            let user = UserId::new(user).unwrap();
            admitted.push((delivery.admit(user, &[], device.clone(), None).await.unwrap(), device));
        }
        let closed = || admitted.iter().map(|(_, device)| *device.closed.lock()).collect::<Vec<_>>();
        sleep(PAUSE).await;
        assert_eq!(closed(), [None; 4], "the total is the bound");
        let last = fake(5, &queued);
        let _admission = delivery.admit(UserId::new("2").unwrap(), &[], last, None).await.unwrap();
        sleep(PAUSE).await;
        assert_eq!(closed(), [Some(CloseCode::Slow), None, None, None]);
        assert_eq!((queued.total(), delivery.hub().connections()), (45, 4));
    }

    fn closing(backlogs: &[(&'static str, u64)], target: u64) -> Vec<(&'static str, u64)> {
        let total = backlogs.iter().map(|(_, backlog)| backlog).sum();
        let backlogs = backlogs.iter().map(|backlog| (*backlog, backlog.1)).collect();
        largest(backlogs, |(user, _)| UserId::new(user).unwrap(), total, target)
    }

    #[test]
    fn the_largest_connection_of_the_largest_user_goes_first() {
        let backlogs = [("one", 50), ("two", 40), ("two", 30), ("three", 5)];
        assert_eq!(closing(&backlogs, 126), []);
        assert_eq!(closing(&backlogs, 125), [("two", 40)]);
        assert_eq!(closing(&backlogs, 80), [("two", 40), ("one", 50)]);
        assert_eq!(closing(&backlogs, 0), [("two", 40), ("one", 50), ("two", 30), ("three", 5)], "all it can");
    }
}
