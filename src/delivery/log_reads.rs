//! Reads of logs that plain frames do not wait for.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::Delivery;
use crate::hub::Member;

/// Maximum time that plain frames wait for one read. [`crate::hub::Hub::note_read`] limits all reads of a connection.
const READ_STALLS: Duration = Duration::from_secs(1);

impl Delivery {
    /// Reads a log for a connection that catches up. Plain frames pass while the read takes long, and wait again after it has succeeded.
    pub(super) async fn read_log<T, E>(
        &self,
        member: &Arc<Member>,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let done = self.await_log(member, read).await;
        if done.is_ok() {
            self.hub().reading_goes_on(member);
        }
        done
    }

    /// Waits for a log on behalf of a connection that catches up. If that takes long, plain frames pass from then on.
    pub(super) async fn await_log<T>(&self, member: &Arc<Member>, log: impl Future<Output = T>) -> T {
        let (mut log, begun) = (pin!(log), Instant::now());
        let done = if let Ok(done) = timeout(READ_STALLS, &mut log).await {
            done
        } else {
            self.hub().reading_stalls(member);
            log.await
        };
        self.hub().note_read(member, begun.elapsed());
        done
    }
}
