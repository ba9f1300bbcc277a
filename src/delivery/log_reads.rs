//! Reads of logs that plain frames do not wait for.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::Delivery;
use crate::hub::Member;

/// Plain frames to a connection that catches up wait so long for one read.
const READ_STALLS: Duration = Duration::from_secs(1);

impl Delivery {
    /// Reads a log for a connection that catches up. Until a read succeeds, plain frames wait neither for one that takes long nor after one that has
    /// failed, see [`crate::hub::Hub::log_unreadable`].
    pub(super) async fn read_log<T, E>(
        &self,
        member: &Arc<Member>,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut read = pin!(read);
        let done = if let Ok(done) = timeout(READ_STALLS, &mut read).await {
            done
        } else {
            self.hub().reading_stalls(member);
            read.await
        };
        if done.is_ok() {
            self.hub().reading_goes_on(member);
        }
        done
    }
}
