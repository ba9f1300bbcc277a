use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::time::{DelayQueue, delay_queue::Key};

use super::{closing::own_event, connect::Device};
use crate::auth::OnExpiry;
use crate::lifecycle::Lifecycle;
use crate::message::{CloseCode, EventName};

/// The longest sleep: longer ones are cut into pieces, since timers have an end.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// Tells devices that their tokens are about to expire, and closes the connections whose tokens have. One task for all of them: a task
/// and a timer for each would outweigh what is kept of a device besides.
#[derive(Default)]
pub(super) struct TokenWatch(Mutex<DelayQueue<Weak<Device>>>);

/// How a device stands with the watch.
#[derive(Default)]
pub(super) struct Watched(Mutex<Standing>);

// Locked after the queue, where both are: a key that is not in the queue any more is another's soon.
#[derive(Default)]
struct Standing {
    key: Option<Key>,
    /// The expiry that the device was told of.
    told_of: Option<Timestamp>,
    has_left: bool,
}

/// What is to be done about a token now.
enum Due {
    Later,
    Notice(Timestamp),
    Now,
}

impl TokenWatch {
    /// Watches until a stop is asked for: then all are sent away.
    pub(super) async fn run(&self, lifecycle: &Lifecycle) {
        let stopping = lifecycle.stopping();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = &mut stopping => return,
                device = poll_fn(|cx| self.poll_due(cx)) => {
                    if let Some(device) = device {
                        device.watch_token();
                    }
                }
            }
        }
    }

    /// The next device that is due; none: it is no more.
    fn poll_due(&self, cx: &mut Context<'_>) -> Poll<Option<Arc<Device>>> {
        let mut queue = self.0.lock();
        match queue.poll_expired(cx) {
            Poll::Ready(Some(expired)) => {
                let device = expired.into_inner().upgrade();
                if let Some(device) = &device {
                    device.watched.0.lock().key = None;
                }
                Poll::Ready(device)
            }
            // Nobody is watched.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Device {
    /// Has the watch look at the device when there is something to be done about its token, and does what is to be done now.
    pub(super) fn watch_token(self: &Arc<Self>) {
        if self.edge.parameters.expiry.on_expiry != OnExpiry::Close || self.admission.member().is_gone() {
            return;
        }
        match self.look_again() {
            Due::Later => {}
            Due::Notice(expires_at) => self.tell(expires_at),
            Due::Now => self.admission.close(&CloseCode::Expired.into()),
        }
    }

    /// Whoever looks last has seen the newest token: it is read under the locks under which the next look is set.
    fn look_again(self: &Arc<Self>) -> Due {
        let expiry = &self.edge.parameters.expiry;
        let mut queue = self.edge.token_watch.0.lock();
        let mut standing = self.watched.0.lock();
        if standing.has_left {
            return Due::Later;
        }
        // With the leeway, as when the token was verified: else a device would be closed and let in again with it.
        let expires_at = self.identity.lock().expires_at;
        let to_end = self.edge.parameters.clock.until(expires_at);
        if to_end.is_zero() {
            return Due::Now;
        }
        let to_notice = to_end.saturating_sub(expiry.leeway).saturating_sub(expiry.notice);
        let is_to_be_told = !expiry.notice.is_zero() && standing.told_of != Some(expires_at);
        let tells_now = is_to_be_told && to_notice.is_zero();
        if tells_now {
            standing.told_of = Some(expires_at);
        }
        let next = if is_to_be_told && !tells_now { to_notice } else { to_end };
        let next = next.min(LONGEST_SLEEP);
        match &standing.key {
            Some(key) => queue.reset(key, next),
            None => standing.key = Some(queue.insert(Arc::downgrade(self), next)),
        }
        if tells_now { Due::Notice(expires_at) } else { Due::Later }
    }

    /// The device has left, or is leaving.
    pub(super) fn forget_token(&self) {
        let mut queue = self.edge.token_watch.0.lock();
        let mut standing = self.watched.0.lock();
        standing.has_left = true;
        if let Some(key) = standing.key.take() {
            queue.remove(&key);
        }
    }

    fn tell(&self, expires_at: Timestamp) {
        let leeway = SignedDuration::try_from(self.edge.parameters.expiry.leeway).unwrap_or_default();
        let expires_at = expires_at.checked_sub(leeway).unwrap_or(expires_at);
        let body = json!({ "expiresAt": format!("{expires_at:.3}") });
        // If the queue is full, the next emit finds that out.
        self.admission.member().send(own_event(EventName::own("bugle:token_expiring"), &body));
    }
}
