use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::hub::Member;

/// How long a connection that was let in may take to go live.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// Connections that were let in and are to go live, in the order in which they came. One queue for all: a timer for each would outweigh
/// what is kept of a device besides.
#[derive(Default)]
pub(super) struct ReadyDeadlines(Mutex<VecDeque<(Instant, Weak<Member>)>>);

impl ReadyDeadlines {
    pub(super) fn push(&self, member: &Arc<Member>) {
        self.0.lock().push_back((Instant::now() + READY_WITHIN, Arc::downgrade(member)));
    }

    /// Those whose time is up, and who have not gone live.
    pub(super) fn late(&self, now: Instant) -> Vec<Arc<Member>> {
        let mut deadlines = self.0.lock();
        let due = deadlines.iter().take_while(|(due, _)| *due <= now).count();
        let late = deadlines
            .drain(..due)
            .filter_map(|(_, member)| member.upgrade())
            .filter(|member| member.is_awaiting_transport());
        let late = late.collect();
        if deadlines.is_empty() {
            deadlines.shrink_to_fit();
        }
        late
    }
}
