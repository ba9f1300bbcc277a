use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{closing::own_event, connect::Device};
use crate::message::{CloseCode, EventName};

/// The longest sleep: longer ones are cut into pieces, since timers have an end.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// Tells the device that its token is about to expire, and closes the connection when it has.
pub(super) async fn watch(device: Arc<Device>) {
    let expiry = &device.edge.parameters.expiry;
    let mut told_of = None;
    while !device.admission.member().is_gone() {
        // With the leeway, as when the token was verified: else a device would be closed and let in again with it.
        let expires_at = device.identity.lock().expires_at;
        let to_end = device.edge.parameters.clock.until(expires_at);
        if to_end.is_zero() {
            device.admission.close(&CloseCode::Expired.into());
            return;
        }
        let to_notice = to_end.saturating_sub(expiry.leeway).saturating_sub(expiry.notice);
        let tell = !expiry.notice.is_zero() && told_of != Some(expires_at);
        if tell && to_notice.is_zero() {
            told_of = Some(expires_at);
            device.tell(expires_at);
            continue;
        }
        let next = if tell { to_notice } else { to_end };
        tokio::select! {
            () = device.connection.changed.notified() => {}
            () = tokio::time::sleep(next.min(LONGEST_SLEEP)) => {}
        }
    }
}

impl Device {
    fn tell(&self, expires_at: Timestamp) {
        let leeway = SignedDuration::try_from(self.edge.parameters.expiry.leeway).unwrap_or_default();
        let expires_at = expires_at.checked_sub(leeway).unwrap_or(expires_at);
        let body = json!({ "expiresAt": format!("{expires_at:.3}") });
        // If the queue is full, the next emit finds that out.
        self.admission.member().send(own_event(EventName::own("bugle:token_expiring"), &body));
    }
}
